"""`ssvos segment`: masks of a video from a scribble on its first frame."""

import math
from pathlib import Path
from typing import Annotated

import typer

from ssvos.progress import progress_bar


def segment(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="Folder of frames, or a video file.")],
    scribble: Annotated[Path, typer.Option(help="Scribble PNG of the first frame, or DAVIS-interactive JSON.")],
    out: Annotated[Path, typer.Option(help="Where a palette PNG a frame goes.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="A checkpoint.pt of this project; without one, that which comes along: docs/model-card.md."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write overlay.mp4 (H.264).")] = False,
    foreground_bias: Annotated[
        float, typer.Option(help="Taken off the object's log-odds: larger gives tighter masks.")
    ] = 0.0,
    refine: Annotated[
        int, typer.Option(min=0, help="Rounds of dense-CRF inference, which follow the image's edges; 0: none.")
    ] = 5,
    colours: Annotated[
        float, typer.Option(min=0, help="Weight of the first frame's colours beside the network; 0: none, 1: full.")
    ] = 1.0,
    flow: Annotated[
        float, typer.Option(min=0, help="Weight of what GrabCut and optical flow carry along; 0: none, and faster.")
    ] = 4.0,
    online: Annotated[
        int, typer.Option(min=0, help="Steps of learning from the scribble before segmenting: slower, often better.")
    ] = 0,
    full_size: Annotated[
        bool, typer.Option("--full-size", help="Frames at their own size, not at that of training.")
    ] = False,
) -> None:
    """Segment a video of your own from a scribble on its first frame.

    Example: ssvos segment frames/ --scribble scribble.png --out masks/ --overlay
    """
    from ssvos.config import ColorModelConfig, CrfRefinementConfig, FlowConfig, PredictConfig, TestTimeTrainingConfig
    from ssvos.inference.segment_video import segment_video
    from ssvos.models.checkpoint import BUNDLED

    for option, number in {"--foreground-bias": foreground_bias, "--colours": colours, "--flow": flow}.items():
        if not math.isfinite(number):
            raise ValueError(f"{option} {number}: is no number; give one, for example 0.5")
    settings = PredictConfig(
        foreground_bias=foreground_bias,
        crf_refinement=CrfRefinementConfig(iterations=refine),
        color_model=ColorModelConfig(weight=colours),
        flow=FlowConfig(weight=flow),
        test_time_training=TestTimeTrainingConfig(steps=online),
    )
    count = segment_video(
        source, scribble, checkpoint or BUNDLED, out, device, overlay, full_size, settings, progress_bar
    )
    typer.echo(f"{count} masks in {out}")
