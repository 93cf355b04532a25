"""`ssvos fit`: train one stage with PyTorch alone."""

from pathlib import Path
from typing import Annotated

import typer

from ssvos.progress import progress_bar


def fit(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Parameters and a section `fit`.")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    loaders: Annotated[
        int, typer.Option(min=0, help="Number of processes that read clips; 0: the training process reads them.")
    ] = 0,
    cache: Annotated[Path | None, typer.Option(help="Folder for rendered clips, which several runs may share.")] = None,
) -> None:
    """Train one stage on one device with PyTorch alone.

    Example: ssvos fit fit.yaml, where fit.yaml holds the keys of params.yaml and `fit: {stage: stage1, out: runs/a}`
    """
    from ssvos.training.fit import fit_from_file

    typer.echo(fit_from_file(config, typer.echo, progress_bar, device, loaders, cache))
