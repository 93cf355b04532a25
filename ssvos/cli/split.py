"""`ssvos split`: hold out a validation set with seen and unseen categories."""

from pathlib import Path
from typing import Annotated

import typer


def split(
    meta: Annotated[Path, typer.Argument(metavar="TRAIN_META", help="meta.json of YouTube-VOS's training set.")],
    out: Annotated[Path, typer.Argument(help="A new folder, in YouTube-VOS's layout: train/ and valid/.")],
    unseen_share: Annotated[
        float, typer.Option(help="Share of the categories that no training video has (the benchmark: 26 of 91).")
    ] = 0.29,
    val_share: Annotated[float, typer.Option(help="Share of the other videos that are held out.")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random draw.")] = 0,
) -> None:
    """Hold a validation set with seen and unseen categories out of YouTube-VOS's training set.

    Example: ssvos split YouTube-VOS/train/meta.json heldout/ --unseen-share 0.29 --val-share 0.1 --seed 0
    """
    from ssvos.evaluation.unseen_split import write_split

    result = write_split(meta, out, unseen_share, val_share, seed)
    typer.echo(f"{out}/train: {len(result.train)} videos, {len(result.seen)} categories")
    typer.echo(f"{out}/valid: {len(result.valid)} videos, {len(result.valid_unseen)} of them with an unseen category:")
    typer.echo(", ".join(result.unseen))
