"""`ssvos submit`: check masks and write the zip for a benchmark's server."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ssvos.progress import progress_bar

_MAX_LINES = 100  # of faults that are printed


class Benchmark(StrEnum):
    davis2017_testdev = "davis2017-testdev"
    youtube_vos = "youtube-vos"


def submit(
    pred: Annotated[Path, typer.Argument(help="Folder <seq>/<frame>.png of predicted masks.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.zip", help="The zip to write.")],
    benchmark: Annotated[Benchmark, typer.Option(help="The benchmark.")],
    data: Annotated[Path, typer.Option(help="The benchmark's data set: DAVIS's folder, or YouTube-VOS's `valid`.")],
) -> None:
    """Check predicted masks, print every fault, and write the zip for a benchmark's server.

    Example: ssvos submit masks/ out.zip --benchmark davis2017-testdev --data DAVIS
    """
    from ssvos.evaluation.submission import TOP_FOLDERS, find_faults, required_masks, write_zip
    from ssvos.files import require_writable

    if out.suffix != ".zip":
        raise ValueError(f"{out}: a submission is a zip; give a name that ends in .zip")
    if out.resolve().is_relative_to(pred.resolve()):
        raise ValueError(f"{out}: is in {pred}, among the masks; choose another folder")
    require_writable(out)
    required = required_masks(benchmark, data)
    total = sum(len(video.frames) for video in required)
    with progress_bar("checking masks", total) as advance:
        faults = find_faults(pred, required, advance)
    if faults:
        _refuse(faults)
    with progress_bar("writing masks", total) as advance:
        result = write_zip(pred, required, out, TOP_FOLDERS[benchmark], advance)
    typer.echo(f"{out}: {result.num_sequences} sequences, {result.num_frames} frames, {result.num_bytes} bytes")
    typer.echo(f"sha256 {result.sha256}")
    if result.num_left_out:
        typer.echo(f"left out: {result.num_left_out} masks of frames that the server does not require")


def _refuse(faults: list[str]) -> NoReturn:
    """Print the faults, at most `_MAX_LINES` of them, and their number; exit with status 1."""
    for fault in faults[:_MAX_LINES]:
        typer.echo(f"ssvos: {fault}", err=True)
    if len(faults) > _MAX_LINES:
        typer.echo(f"ssvos: and {len(faults) - _MAX_LINES} more", err=True)
    if len(faults) > 1:
        typer.echo(f"ssvos: {len(faults)} faults; nothing was written", err=True)
    raise typer.Exit(1)
