"""The table of scores: every variant and every answer without training, for the page and for a terminal."""

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
_BY_NAME = {"untrained": "the untrained network", "empty": "empty masks", "copied": "the first true mask copied"}
_FLOOR = "grabcut + flow"


@dataclass(frozen=True)
class Row:
    """One answer. values: percent, by the table's columns, None if not run; main: that of the column by which answers
    are compared; videos: J and F in percent by sequence."""

    name: str
    about: str
    is_trained: bool
    values: tuple[float | None, ...] | None
    main: float | None
    videos: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class ScoreTable:
    """The rows of one judged source, the main variant's first. compared: the column that answers are compared by;
    headline: how the main variant stands, in one sentence."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    compared: str
    headline: str
    notes: tuple[str, ...]

    @property
    def main_score(self) -> str:
        return self.compared.replace("-Mean", "")


def score_tables(params: Params, layout: Layout) -> list[ScoreTable]:
    """A table for each judged source."""
    answers = [_variant(params, layout, name) for name in reversed(list(params.variants))]
    baselines = json.loads(layout.baselines.read_text()) if layout.baselines.is_file() else {}
    for name, about in METHODS.items():
        answers.append((name.replace("_", " + "), about, False, baselines.get(name), {}))
    sources = [source.name for source in params.base.data.sources if source.val]
    chosen_by_loss = [name for name in params.variants if _result(layout, name).get("chosen_by", "J") != "J"]
    return [
        _table(f"{layout.name}: {source}" if len(sources) > 1 else layout.name, source, answers, chosen_by_loss)
        for source in sources
    ]


def _result(layout: Layout, variant: str) -> dict:
    path = layout.results(variant)
    return json.loads(path.read_text()) if path.is_file() else {}


def _variant(params: Params, layout: Layout, name: str) -> tuple:
    scores = _result(layout, name).get("scores")
    return name, _about(params, name), True, scores, _means_by_video(layout.objects(name))


def _about(params: Params, name: str) -> str:
    loss, attention = params.variants[name].loss, params.variants[name].model.attention.kind
    terms = ["partial cross-entropy"]
    if loss.regularizer != "none":
        terms.append(loss.regularizer.replace("_", "-") + " loss")
    if attention != "none":
        terms.append(f"{attention} attention")
    return "trained on scribbles: " + ", ".join(terms)


def _means_by_video(objects: Path) -> dict[str, dict[str, dict[str, float]]]:
    """{source: {sequence: {J, F}}}, the means over a video's objects, from an `objects.csv`."""
    if not objects.is_file():
        return {}
    gathered: dict[tuple[str, str, str], list[float]] = {}
    with open(objects, newline="") as file:
        for row in csv.DictReader(file):
            for measure in ("J", "F"):
                value = row.get(f"{measure}.mean") or row.get(measure)
                if value:
                    key = (row["source"], row["object"].rpartition("_")[0], measure)
                    gathered.setdefault(key, []).append(float(value))
    means: dict[str, dict[str, dict[str, float]]] = {}
    for (source, sequence, measure), values in gathered.items():
        means.setdefault(source, {}).setdefault(sequence, {})[measure] = sum(values) / len(values)
    return means


def _table(title: str, source: str, answers: list[tuple], chosen_by_loss: list[str]) -> ScoreTable:
    scored = [(scores or {}).get(source) for *_, scores, _ in answers]
    known = next((one for one in scored if one), None)
    columns = _SCORES[known["protocol"]] if known else ()
    visibility = tuple(_VISIBILITY) if known and "visibility" in known else ()
    compared = _compared(columns, [one["global"] for one in scored if one])
    rows = []
    for (name, about, is_trained, _, means), one in zip(answers, scored, strict=True):
        values = one and tuple(
            _percent(value)
            for value in [*(one["global"][c] for c in columns), *(one["visibility"][c] for c in visibility)]
        )
        videos = means.get(source) or (one or {}).get("sequences", {})
        both = {k: (100 * v["J"], 100 * v["F"]) for k, v in videos.items() if len(v) == 2}
        main = _percent(one["global"][compared]) if one and compared else None
        rows.append(Row(name, about, is_trained, values, main, both))
    columns += tuple(_VISIBILITY[key] for key in visibility)
    notes = _missing(answers, source, bool(known)) + _below(rows)
    notes += [
        f"{name}: no masks of held-out videos, so its checkpoint was chosen by held-out loss."
        for name in chosen_by_loss
    ]
    return ScoreTable(title, columns, tuple(rows), compared, _headline(rows, compared), tuple(notes))


def _compared(columns: tuple[str, ...], scores: list[dict]) -> str:
    """The first score that every answer has: G lacks where no judged object is of an unseen category."""
    return next((column for column in columns if all(one[column] is not None for one in scores)), "")


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _missing(answers: list[tuple], source: str, is_scored: bool) -> list[str]:
    """Why a row has no values."""
    notes = []
    if not is_scored and all(scores is not None for *_, scores, _ in answers):
        return ["Not scored: the judged videos have no masks. The pictures are all there is to judge by."]
    for name, _, is_trained, scores, _ in answers:
        if scores is None:
            command = f"dvc repro evaluate@{name}" if is_trained else "dvc repro baselines"
            notes.append(f"{name}: not run, there is no result of it; `{command}` makes one.")
        elif source not in scores and is_scored:
            notes.append(f"{name}: not run, it needs masks of the judged videos.")
    return notes


def _below(rows: list[Row]) -> list[str]:
    floor = next((row.main for row in rows if row.name == _FLOOR), None)
    return [
        f"{row.name} is below GrabCut + optical flow, which needs no training."
        for row in rows
        if row.is_trained and row.main is not None and floor is not None and row.main < floor
    ]


def _headline(rows: list[Row], compared: str) -> str:
    """How the main variant stands against the other variants and each answer without training."""
    main = rows[0]
    if main.main is None:
        return f"{main.name} has no score."
    score = main.main
    others = [f"{row.name} {row.main:.1f}" for row in rows[1:] if row.is_trained and row.main is not None]
    sides: dict[str, list[str]] = {"above": [], "level with": [], "below": []}
    for row in rows:
        if not row.is_trained and row.main is not None:
            word = "above" if score > row.main else "below" if score < row.main else "level with"
            name = _BY_NAME.get(row.name, "GrabCut + optical flow, which needs no training")
            sides[word].append(f"{name} ({row.main:.1f})")
    parts = [f"{word} {_listed(names)}" for word, names in sides.items() if names]
    also = f" ({', '.join(others)})" if others else ""
    start = f"{main.name} reaches {compared.replace('-Mean', '')} {score:.1f} percent{also}"
    return start + (": " + ", but ".join(parts) if parts else "") + "."


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def text_table(table: ScoreTable) -> str:
    """The table as a terminal shows it, percent with one decimal."""
    width = max(len(row.name) for row in table.rows)
    heads = [column.replace("-Mean", "").replace("absent, left empty", "absent ok") for column in table.columns]
    lines = [f"{table.title} (percent)", " " * width + "".join(f"{head:>11}" for head in heads)]
    for row in table.rows:
        cells = ["    not run"]
        if row.values is not None:
            cells = [f"{'-' if v is None else format(v, '.1f'):>11}" for v in row.values]
        lines.append(f"{row.name:<{width}}" + "".join(cells))
    return "\n".join([*lines, *table.notes])
