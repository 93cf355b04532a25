"""`ssvos evaluate`: score predicted masks by a benchmark's protocol."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ssvos.progress import progress_bar


class Protocol(StrEnum):
    davis2017 = "davis2017"
    davis2016 = "davis2016"
    davis2017_unsupervised = "davis2017-unsupervised"
    youtube_vos = "youtube-vos"


class Convention(StrEnum):
    after_entry = "after_entry"
    after_entry_listed_only = "after_entry_listed_only"
    from_entry = "from_entry"
    after_entry_without_last = "after_entry_without_last"


def evaluate(
    gt: Annotated[Path, typer.Argument(help="Folder <seq>/<frame>.png of annotated masks.")],
    pred: Annotated[Path, typer.Argument(help="Folder <seq>/<frame>.png of predicted masks.")],
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the scores to this file.")] = None,
    frames_out: Annotated[
        Path | None, typer.Option("--frames", help="Write J and F of the frames to this CSV file.")
    ] = None,
    protocol: Annotated[Protocol, typer.Option(help="Protocol of the benchmark.")] = Protocol.davis2017,
    meta: Annotated[Path | None, typer.Option(help="youtube-vos: valid/meta.json.")] = None,
    train_meta: Annotated[Path | None, typer.Option(help="youtube-vos: train/meta.json.")] = None,
    convention: Annotated[
        Convention | None, typer.Option(help="youtube-vos: which frames of an object count; after_entry by default.")
    ] = None,
    split: Annotated[Path | None, typer.Option(help="File with one sequence per line; default: all.")] = None,
) -> None:
    """Score predicted masks by a benchmark's protocol; prints a table in percent, one row per object and one of all.

    Example: ssvos evaluate DAVIS/Annotations/480p masks/ --split DAVIS/ImageSets/2017/val.txt --json scores.json
    """
    from ssvos.evaluation.mask_folders import plan_evaluation, score
    from ssvos.metrics.sequence_folders import unscored_notes

    is_youtube_vos = protocol is Protocol.youtube_vos
    if is_youtube_vos and (meta is None or train_meta is None):
        raise typer.BadParameter("youtube-vos needs --meta and --train-meta")
    if not is_youtube_vos and (meta or train_meta or convention):
        raise typer.BadParameter("--meta, --train-meta and --convention need --protocol youtube-vos")
    if json_out and json_out == frames_out:
        raise typer.BadParameter("--json and --frames must name different files")
    evaluation = plan_evaluation(protocol, gt, pred, split, meta, train_meta, convention or Convention.after_entry)
    typer.echo(score(evaluation, json_out, frames_out, progress_bar))
    outputs = [path for path in (json_out, frames_out) if path]
    for line in unscored_notes(pred, [task.sequence for task in evaluation.tasks], split is not None, outputs):
        typer.echo(f"note: {line}", err=True)
