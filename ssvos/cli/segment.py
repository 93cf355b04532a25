"""`ssvos segment`: segment a video from a scribble on its first frame."""

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ssvos.progress import progress_bar


class Method(StrEnum):
    """What makes the masks."""

    NETWORK = "network"
    LABEL_PROPAGATION = "label-propagation"


def segment(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="Folder of frames, or a video file.")],
    scribble: Annotated[Path, typer.Option(help="Scribble PNG of the first frame, or a DAVIS-interactive JSON file.")],
    out: Annotated[Path, typer.Option(help="Folder for the masks, one palette PNG per frame.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="A checkpoint.pt of this project; default: the bundled checkpoint (docs/model-card.md)."),
    ] = None,
    method: Annotated[
        Method,
        typer.Option(help="network: a checkpoint; label-propagation: ImageNet features, no training on video."),
    ] = Method.NETWORK,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write overlay.mp4 (H.264).")] = False,
    foreground_bias: Annotated[
        float, typer.Option(help="Subtracted from the objects' log-odds; a larger value gives smaller masks.")
    ] = 0.0,
    roi: Annotated[
        float,
        typer.Option(min=0, help="Only the region around the objects is segmented, with this margin; 0: whole frames."),
    ] = 0.3,
    refine: Annotated[
        int, typer.Option(min=0, help="Iterations of CRF refinement, which moves outlines to image edges; 0: off.")
    ] = 5,
    colours: Annotated[
        float, typer.Option(min=0, help="Weight of the color model of the first frame; 0: off, 1: full.")
    ] = 0.0,
    flow: Annotated[
        float,
        typer.Option(min=0, help="Weight of masks propagated by GrabCut and optical flow, for example 4; 0: off."),
    ] = 0.0,
    online: Annotated[
        int, typer.Option(min=0, help="Steps of test-time training on the scribble: slower, often better; 0: off.")
    ] = 0,
    full_size: Annotated[
        bool, typer.Option("--full-size", help="Segment frames at full size, not at the size of the training.")
    ] = False,
) -> None:
    """Segment a video from a scribble on its first frame.

    Example: ssvos segment frames/ --scribble scribble.png --out masks/ --overlay
    """
    from ssvos.config import ColorModelConfig, FlowConfig, PredictConfig, TestTimeTrainingConfig
    from ssvos.inference.segment_video import DEFAULT_PREDICT, segment_video
    from ssvos.models.checkpoint import BUNDLED

    if method is Method.LABEL_PROPAGATION and checkpoint:
        raise ValueError(f"--checkpoint {checkpoint}: label propagation uses no checkpoint; leave out one of them")
    _require_finite({"--foreground-bias": foreground_bias, "--roi": roi, "--colours": colours, "--flow": flow})
    settings = PredictConfig(
        foreground_bias=foreground_bias,
        roi=DEFAULT_PREDICT.roi.model_copy(update={"margin": roi}),
        crf_refinement=DEFAULT_PREDICT.crf_refinement.model_copy(update={"iterations": refine}),
        color_model=ColorModelConfig(weight=colours),
        flow=FlowConfig(weight=flow),
        test_time_training=TestTimeTrainingConfig(steps=online),
    )
    used = None if method is Method.LABEL_PROPAGATION else checkpoint or BUNDLED
    count = segment_video(source, scribble, used, out, device, overlay, full_size, settings, progress_bar)
    typer.echo(f"{count} masks in {out}")


def _require_finite(numbers: dict[str, float]) -> None:
    """ValueError if the number of an option is infinite or not a number."""
    for option, number in numbers.items():
        if not math.isfinite(number):
            raise ValueError(f"{option} {number}: is not finite; give a finite number, for example 0.5")
