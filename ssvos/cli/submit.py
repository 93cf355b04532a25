"""`ssvos submit`: check masks and write the zip of a benchmark's server."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ssvos.progress import progress_bar

_SHOWN = 100  # faults that are printed one by one


class Benchmark(StrEnum):
    davis2017_testdev = "davis2017-testdev"
    youtube_vos = "youtube-vos"


def submit(
    pred: Annotated[Path, typer.Argument(help="Folder <seq>/<frame>.png of predicted masks.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.zip", help="Where the zip is written.")],
    benchmark: Annotated[Benchmark, typer.Option(help="Whose server.")],
    data: Annotated[Path, typer.Option(help="The benchmark's data: DAVIS's folder, or YouTube-VOS's `valid`.")],
) -> None:
    """Check predicted masks, name every fault, and write the zip that a benchmark's server takes.

    Example: ssvos submit masks/ out.zip --benchmark davis2017-testdev --data DAVIS
    """
    from ssvos.evaluation.submission import TOP_FOLDERS, find_faults, wanted_masks, write_zip
    from ssvos.files import require_writable

    if out.suffix != ".zip":
        raise ValueError(f"{out}: a submission is a zip; give a name that ends in .zip")
    if out.resolve().is_relative_to(pred.resolve()):
        raise ValueError(f"{out}: lies in {pred}, beside the masks; choose another folder")
    require_writable(out)
    wanted = wanted_masks(benchmark, data)
    total = sum(len(video.frames) for video in wanted)
    with progress_bar("checking masks", total) as advance:
        faults = find_faults(pred, wanted, advance)
    if faults:
        _refuse(faults)
    with progress_bar("writing masks", total) as advance:
        made = write_zip(pred, wanted, out, TOP_FOLDERS[benchmark], advance)
    typer.echo(f"{out}: {made.num_sequences} sequences, {made.num_frames} frames, {made.num_bytes} bytes")
    typer.echo(f"sha256 {made.sha256}")
    if made.num_left_out:
        typer.echo(f"left out: {made.num_left_out} masks of frames that the server does not ask for")


def _refuse(faults: list[str]) -> NoReturn:
    """Exit status 1 with a line for each of several faults, as many as a person would read, and their number."""
    for fault in faults[:_SHOWN]:
        typer.echo(f"ssvos: {fault}", err=True)
    if len(faults) > _SHOWN:
        typer.echo(f"ssvos: and {len(faults) - _SHOWN} more", err=True)
    if len(faults) > 1:
        typer.echo(f"ssvos: {len(faults)} faults; nothing was written", err=True)
    raise typer.Exit(1)
