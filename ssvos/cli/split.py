"""`ssvos split`: hold out a validation set with seen and unseen categories."""

from pathlib import Path
from typing import Annotated

import typer


def split(
    meta: Annotated[Path, typer.Argument(metavar="TRAIN_META", help="meta.json of YouTube-VOS's training set.")],
    out: Annotated[Path, typer.Argument(help="A new folder, in YouTube-VOS's layout: train/ and valid/.")],
    unseen_share: Annotated[
        float, typer.Option(help="Share of the categories that train nothing (the benchmark: 26 of 91).")
    ] = 0.29,
    val_share: Annotated[float, typer.Option(help="Share of the other videos that is held out.")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is drawn.")] = 0,
) -> None:
    """Hold a validation set with seen and unseen categories out of YouTube-VOS's training set.

    Example: ssvos split YouTube-VOS/train/meta.json heldout/ --unseen-share 0.29 --val-share 0.1 --seed 0
    """
    from ssvos.evaluation.unseen_split import write_split

    made = write_split(meta, out, unseen_share, val_share, seed)
    typer.echo(f"{out}/train: {len(made.train)} videos, {len(made.seen)} categories")
    typer.echo(f"{out}/valid: {len(made.valid)} videos, {len(made.valid_unseen)} with one of the unseen categories:")
    typer.echo(", ".join(made.unseen))
