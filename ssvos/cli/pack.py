"""`ssvos pack`: the inputs of a training in one folder."""

from pathlib import Path
from typing import Annotated

import typer

from ssvos.progress import progress_bar


def pack(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The file for `ssvos fit`.")],
    out: Annotated[Path, typer.Argument(help="A new folder for frames, labels, scribbles and the file.")],
    height: Annotated[int, typer.Option(min=16, help="Higher frames are scaled down to this height.")] = 240,
    quality: Annotated[int, typer.Option(min=1, max=100, help="JPEG quality of the frames.")] = 75,
) -> None:
    """Pack the inputs of a training into one small folder, to train on another machine: ssvos fit OUT/fit.yaml.

    Example: ssvos pack fit.yaml packed/ --height 240
    """
    from ssvos.training.pack import pack_from_file

    typer.echo(pack_from_file(config, out, height, quality, progress_bar))
