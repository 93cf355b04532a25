"""`ssvos pack`: everything that a training reads, in one folder."""

from pathlib import Path
from typing import Annotated

import typer

from ssvos.progress import progress_bar


def pack(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The file that `ssvos fit` would be given.")],
    out: Annotated[Path, typer.Argument(help="A new folder for frames, labels, scribbles and the file itself.")],
    height: Annotated[int, typer.Option(min=16, help="Frames that are higher are made so high.")] = 240,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of the frames, as JPEG.")] = 75,
) -> None:
    """Pack what a training reads into one small folder, to train on another machine: ssvos fit OUT/fit.yaml.

    Example: ssvos pack fit.yaml packed/ --height 240
    """
    from ssvos.training.pack import pack_from_file

    typer.echo(pack_from_file(config, out, height, quality, progress_bar))
