"""`ssvos evaluate`: folders of masks to scores, as a table, as JSON and frame by frame as CSV."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from ssvos.data.videos import read_list
from ssvos.files import require_writable, write_text
from ssvos.metrics.davis import davis_evaluation
from ssvos.metrics.object_scores import Evaluation, SequenceScores
from ssvos.metrics.youtube_vos import Convention, youtube_vos_evaluation

_FRAME_COLUMNS = ("sequence", "object", "frame", "J", "F")

Tracked = Callable[[str, int], AbstractContextManager[Callable[..., None]]]


def planned(
    protocol: str,
    gt_dir: Path,
    pred_dir: Path,
    split: Path | None = None,
    meta: Path | None = None,
    train_meta: Path | None = None,
    convention: Convention = "after_entry",
) -> Evaluation:
    """The evaluation of the sequences in the list `split`, or of all, by a protocol.

    meta, train_meta, convention: of youtube-vos alone
    """
    if split is not None and not split.is_file():
        raise FileNotFoundError(f"{split}: no such list; give a text file with a sequence a line")
    sequences = None if split is None else read_list(split)
    if protocol == "youtube-vos":
        return youtube_vos_evaluation(gt_dir, pred_dir, meta, train_meta, convention, sequences)
    return davis_evaluation(protocol, gt_dir, pred_dir, sequences)


def score(evaluation: Evaluation, json_out: Path | None, frames_out: Path | None, tracked: Tracked) -> str:
    """Score, write what is asked for, nothing before all is scored, and return the table of the figures."""
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
    """A row for every object and frame that counts, as fractions in full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_FRAME_COLUMNS)
    for sequence, one in scores.items():
        writer.writerows((sequence, *row) for row in one.rows())
    return text.getvalue()


def table(figures: dict) -> str:
    """The figures in percent: a row an object, then those of all together."""
    objects = figures["objects"]
    if "G" not in figures["global"]:
        rows = {name: _davis_row(one) for name, one in objects.items()}
        return _aligned("percent", list(figures["global"]), rows | {_all(objects): list(figures["global"].values())})
    rows = {name: [one["J"], one["F"], "seen" if one["seen"] else "unseen"] for name, one in objects.items()}
    overall = {_all(objects): list(figures["global"].values())}
    return _aligned("percent", ["J", "F", ""], rows) + "\n\n" + _aligned("", list(figures["global"]), overall)


def _all(objects: Mapping) -> str:
    return f"all {len(objects)} objects" if len(objects) != 1 else "the one object"


def _davis_row(one: Mapping[str, Mapping[str, float]]) -> list[float]:
    """In the order of the benchmark's global figures."""
    values = [one[measure][key] for measure in ("J", "F") for key in ("mean", "recall", "decay")]
    return [(one["J"]["mean"] + one["F"]["mean"]) / 2, *values]


def _aligned(corner: str, columns: list[str], rows: Mapping[str, list[float | str | None]]) -> str:
    """Lines of a table, fractions in percent; None is a dash."""
    width = max(map(len, (corner, *rows)))
    lines = [f"{corner:<{width}}" + "".join(f"{column:>10}" for column in columns)]
    lines += [f"{name:<{width}}" + "".join(f"{_percent(value):>10}" for value in row) for name, row in rows.items()]
    return "\n".join(line.rstrip() for line in lines)


def _percent(value: float | str | None) -> str:
    if isinstance(value, str):
        return value
    return "-" if value is None else f"{100 * value:.1f}"
