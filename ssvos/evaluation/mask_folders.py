"""`ssvos evaluate`: score folders of masks and write the scores as a table, as JSON and, frame by frame, as CSV."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from ssvos.data.videos import read_list
from ssvos.files import require_writable, write_text
from ssvos.metrics.davis import davis_evaluation
from ssvos.metrics.object_scores import Evaluation, Figures, SequenceScores
from ssvos.metrics.youtube_vos import youtube_vos_evaluation

_FRAME_COLUMNS = ("sequence", "object", "frame", "J", "F")

Tracked = Callable[[str, int], AbstractContextManager[Callable[..., None]]]
Cell = float | str | None


def plan_evaluation(
    protocol: str,
    gt_dir: Path,
    pred_dir: Path,
    split: Path | None = None,
    meta: Path | None = None,
    train_meta: Path | None = None,
    convention: str = "after_entry",
) -> Evaluation:
    """The tasks of an evaluation.

    protocol: one of `davis2017`, `davis2016`, `davis2017-unsupervised` and `youtube-vos`.
    gt_dir, pred_dir: the folders of annotations and predictions.
    split: a file with one sequence per line; None: all sequences are scored.
    meta, train_meta, convention: as in `evaluate_youtube_vos`, for `youtube-vos` only.
    """
    if split is not None and not split.is_file():
        raise FileNotFoundError(f"{split}: no such list; give a text file with one sequence per line")
    sequences = None if split is None else read_list(split)
    if protocol == "youtube-vos":
        assert meta is not None and train_meta is not None
        return youtube_vos_evaluation(gt_dir, pred_dir, meta, train_meta, convention, sequences)
    return davis_evaluation(protocol, gt_dir, pred_dir, sequences)


def score(evaluation: Evaluation, json_out: Path | None, frames_out: Path | None, tracked: Tracked) -> str:
    """Score and return the table of the figures. Files are written after everything is scored.

    json_out, frames_out: where the figures and the scores of the frames are written, if at all.
    tracked: shows progress.
    """
    for path in (json_out, frames_out):
        if path:
            require_writable(path)
    with tracked("scoring frames", evaluation.num_frames) as advance:
        scores = evaluation.score(advance)
    figures = evaluation.summarize(scores)
    if frames_out:
        write_text(frames_out, frame_csv(scores))
    if json_out:
        write_text(json_out, json.dumps(figures, indent=2) + "\n")
    return table(figures)


def frame_csv(scores: Mapping[str, SequenceScores]) -> str:
    """The CSV text of the scores: one row per object and frame that counts, fractions in full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_FRAME_COLUMNS)
    for sequence, sequence_scores in scores.items():
        writer.writerows((sequence, *row) for row in sequence_scores.rows())
    return text.getvalue()


def table(figures: Figures) -> str:
    """The text of a table in percent: one row per object, and one of all objects."""
    objects, overall = figures["objects"], figures["global"]
    all_row = {_all(objects): list(overall.values())}
    if "G" not in overall:
        rows = {name: _davis_row(scores) for name, scores in objects.items()}
        return _aligned("percent", list(overall), rows | all_row)
    rows = {name: [one["J"], one["F"], "seen" if one["seen"] else "unseen"] for name, one in objects.items()}
    return _aligned("percent", ["J", "F", ""], rows) + "\n\n" + _aligned("", list(overall), all_row)


def _all(objects: Mapping[str, object]) -> str:
    return f"all {len(objects)} objects" if len(objects) != 1 else "the one object"


def _davis_row(scores: Mapping[str, Mapping[str, float]]) -> list[Cell]:
    """The scores of an object in the order of the benchmark's global figures."""
    values = [scores[measure][key] for measure in ("J", "F") for key in ("mean", "recall", "decay")]
    return [(scores["J"]["mean"] + scores["F"]["mean"]) / 2, *values]


def _aligned(corner: str, columns: list[str], rows: Mapping[str, Sequence[Cell]]) -> str:
    """The lines of a table. Fractions become percent, None a dash."""
    width = max(map(len, (corner, *rows)))
    lines = [f"{corner:<{width}}" + "".join(f"{column:>10}" for column in columns)]
    lines += [f"{name:<{width}}" + "".join(f"{_percent(value):>10}" for value in row) for name, row in rows.items()]
    return "\n".join(line.rstrip() for line in lines)


def _percent(value: Cell) -> str:
    if isinstance(value, str):
        return value
    return "-" if value is None else f"{100 * value:.1f}"
