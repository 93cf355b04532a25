"""The table of scores: every variant and every baseline, for the report page and for a terminal."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from pipelines.evaluation_set import METHODS
from pipelines.params import Layout
from ssvos.config.variants import Params

_SCORES = {
    "davis2017": ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay"),
    "youtube-vos": ("G", "J_seen", "J_unseen", "F_seen", "F_unseen"),
}
_VISIBILITY = {"present_JF": "visible", "absent_empty_share": "absent, left empty"}
_BASELINE_NAMES = {
    "untrained": "the untrained network",
    "empty": "empty masks",
    "copied": "the first true mask copied",
    "grabcut + flow": "GrabCut + optical flow",
}
_COMPETITORS = {method.title for method in METHODS.values() if method.is_competitor}


@dataclass(frozen=True)
class ScoreRow:
    """One variant or baseline.

    values: percent, by the table's columns; None if not run
    main:   the value of the column by which rows are compared
    videos: sequence -> J and F in percent
    """

    name: str
    about: str
    is_trained: bool
    values: tuple[float | None, ...] | None
    main: float | None
    videos: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class ScoreTable:
    """The scores of one source; the main variant's row is the first.

    main_column: the column by which rows are compared
    headline:    the main variant compared with all others, in one sentence
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[ScoreRow, ...]
    main_column: str
    headline: str
    notes: tuple[str, ...]

    @property
    def main_score(self) -> str:
        return self.main_column.replace("-Mean", "")


@dataclass(frozen=True)
class _Result:
    """Results of one variant or baseline.

    scores:      by source, as `evaluate` or `baselines` wrote them; None if not run
    video_means: {source: {sequence: {J, F}}}, fractions
    """

    name: str
    about: str
    is_trained: bool
    scores: dict | None
    video_means: dict[str, dict[str, dict[str, float]]]


def score_tables(params: Params, layout: Layout) -> list[ScoreTable]:
    """One table for each source that has evaluation videos."""
    results = [_variant_result(params, layout, name) for name in reversed(list(params.variants))]
    baselines = json.loads(layout.baselines.read_text()) if layout.baselines.is_file() else {}
    for name, method in METHODS.items():
        results.append(_Result(method.title, method.about, False, baselines.get(name), {}))
    sources = [source.name for source in params.base.data.sources if source.val]
    chosen_by_loss = [name for name in params.variants if _read_result(layout, name).get("chosen_by", "J") != "J"]
    return [
        _table(f"{layout.name}: {source}" if len(sources) > 1 else layout.name, source, results, chosen_by_loss)
        for source in sources
    ]


def _read_result(layout: Layout, variant: str) -> dict:
    path = layout.results(variant)
    return json.loads(path.read_text()) if path.is_file() else {}


def _variant_result(params: Params, layout: Layout, name: str) -> _Result:
    scores = _read_result(layout, name).get("scores")
    return _Result(name, _about(params, name), True, scores, _means_by_video(layout.objects(name)))


def _about(params: Params, name: str) -> str:
    loss, attention = params.variants[name].loss, params.variants[name].model.attention.kind
    terms = ["partial cross-entropy"]
    if loss.regularizer != "none":
        terms.append(loss.regularizer.replace("_", "-") + " loss")
    if attention != "none":
        terms.append(f"{attention} attention")
    return "trained on scribbles: " + ", ".join(terms)


def _means_by_video(objects: Path) -> dict[str, dict[str, dict[str, float]]]:
    """{source: {sequence: {J, F}}}: means over a video's objects, from an objects.csv."""
    if not objects.is_file():
        return {}
    by_video: dict[tuple[str, str, str], list[float]] = {}
    with open(objects, newline="") as file:
        for row in csv.DictReader(file):
            for measure in ("J", "F"):
                value = row.get(f"{measure}.mean") or row.get(measure)
                if value:
                    key = (row["source"], row["object"].rpartition("_")[0], measure)
                    by_video.setdefault(key, []).append(float(value))
    means: dict[str, dict[str, dict[str, float]]] = {}
    for (source, sequence, measure), values in by_video.items():
        means.setdefault(source, {}).setdefault(sequence, {})[measure] = sum(values) / len(values)
    return means


def _table(title: str, source: str, results: list[_Result], chosen_by_loss: list[str]) -> ScoreTable:
    """chosen_by_loss: the variants whose checkpoint was chosen by held-out loss."""
    scored = [(result.scores or {}).get(source) for result in results]
    example = next((one for one in scored if one), None)
    columns = _SCORES[example["protocol"]] if example else ()
    visibility = tuple(_VISIBILITY) if example and "visibility" in example else ()
    main_column = _main_column(columns, [one["global"] for one in scored if one])
    rows = []
    for result, one in zip(results, scored, strict=True):
        values = one and tuple(
            _percent(value)
            for value in [*(one["global"][c] for c in columns), *(one["visibility"][c] for c in visibility)]
        )
        means = result.video_means.get(source) or (one or {}).get("sequences", {})
        videos = {k: (100 * v["J"], 100 * v["F"]) for k, v in means.items() if len(v) == 2}
        main = _percent(one["global"][main_column]) if one and main_column else None
        rows.append(ScoreRow(result.name, result.about, result.is_trained, values, main, videos))
    columns += tuple(_VISIBILITY[key] for key in visibility)
    notes = _missing(results, source, bool(example)) + _below(rows)
    notes += [
        f"{name}: no masks of held-out videos, so its checkpoint was chosen by held-out loss."
        for name in chosen_by_loss
    ]
    return ScoreTable(title, columns, tuple(rows), main_column, _headline(rows, main_column), tuple(notes))


def _main_column(columns: tuple[str, ...], scores: list[dict]) -> str:
    """The first score that every row has. G is undefined without an object of an unseen category."""
    return next((column for column in columns if all(one[column] is not None for one in scores)), "")


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _missing(results: list[_Result], source: str, is_scored: bool) -> list[str]:
    """Notes on the rows without values: the reason, and the command that makes the result."""
    notes = []
    if not is_scored and all(result.scores is not None for result in results):
        return ["Not scored: the evaluation videos have no masks. Compare the results in the clip players."]
    for result in results:
        if result.scores is None:
            command = f"dvc repro evaluate@{result.name}" if result.is_trained else "dvc repro baselines"
            notes.append(f"{result.name}: not run, no result yet; `{command}` makes it.")
        elif source not in result.scores and is_scored:
            notes.append(f"{result.name}: not run, it needs masks of the evaluation videos.")
    return notes


def _below(rows: list[ScoreRow]) -> list[str]:
    """A note on each variant that scores below a baseline that segments without training."""
    scores = {row.name: row.main for row in rows if row.name in _COMPETITORS and row.main is not None}
    notes = []
    for row in rows:
        better = [_BASELINE_NAMES.get(name, name) for name, score in scores.items() if (row.main or 0.0) < score]
        if row.is_trained and row.main is not None and better:
            notes.append(f"{row.name} is below {_enumeration(better)}, without any training on video.")
    return notes


def _headline(rows: list[ScoreRow], main_column: str) -> str:
    """The main variant compared with the other variants and with each baseline, in one sentence."""
    main = rows[0]
    if main.main is None:
        return f"{main.name} has no score."
    score = main.main
    others = [f"{row.name} {row.main:.1f}" for row in rows[1:] if row.is_trained and row.main is not None]
    sides: dict[str, list[str]] = {"above": [], "level with": [], "below": []}
    for row in rows:
        if not row.is_trained and row.main is not None:
            side = "above" if score > row.main else "below" if score < row.main else "level with"
            sides[side].append(f"{_BASELINE_NAMES.get(row.name, row.name)} ({row.main:.1f})")
    parts = [f"{side} {_enumeration(names)}" for side, names in sides.items() if names]
    also = f" ({', '.join(others)})" if others else ""
    start = f"{main.name} reaches {main_column.replace('-Mean', '')} {score:.1f} percent{also}"
    return start + (": " + ", but ".join(parts) if parts else "") + "."


def _enumeration(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def text_table(table: ScoreTable) -> str:
    """The table as text for a terminal, percent with one decimal."""
    width = max(len(row.name) for row in table.rows)
    heads = [column.replace("-Mean", "").replace("absent, left empty", "absent ok") for column in table.columns]
    lines = [f"{table.title} (percent)", " " * width + "".join(f"{head:>11}" for head in heads)]
    for row in table.rows:
        cells = ["    not run"]
        if row.values is not None:
            cells = [f"{'-' if v is None else format(v, '.1f'):>11}" for v in row.values]
        lines.append(f"{row.name:<{width}}" + "".join(cells))
    return "\n".join([*lines, *table.notes])
