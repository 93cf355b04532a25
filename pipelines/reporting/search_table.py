"""What the last search found, as the report shows it."""

import csv
import math
from dataclasses import dataclass

from pipelines.params import BEST, TRIALS, flatten
from ssvos.config import read_yaml
from ssvos.config.variants import Params
from ssvos.visualization import Chart, Line, Point, linear_axis, log_axis

_NOT_SEARCHED = ("trial", "status", "epochs", "score", "seconds")


@dataclass(frozen=True)
class TrialRow:
    """One trial. score: held-out, None if it has none; values: of the searched parameters by dotted key, a choice's as
    the table has it."""

    number: int
    status: str
    epochs: str
    score: float | None
    seconds: float | None
    values: dict[str, float | str]


@dataclass(frozen=True)
class Search:
    """A search's trials and its winner. about: data, data_digest, variant, counts and metric, as `best.yaml` has them.

    before: the trial with the values that the search started from, None if there is none.
    changes: (key, value before, the winner's, the present one) of each parameter; scores are in percent if they are J.
    """

    about: dict
    trials: tuple[TrialRow, ...]
    best: TrialRow
    before: TrialRow | None
    changes: tuple[tuple[str, float | str | None, float | str, object], ...]
    charts: tuple[Chart, ...]

    @property
    def metric(self) -> str:
        return "held-out J, percent" if self.about["metric"] == "J" else "held-out score (minus the loss)"

    def shown(self, score: float | None) -> str:
        return "–" if score is None else f"{score:.1f}" if self.about["metric"] == "J" else f"{score:.3f}"

    @property
    def is_adopted(self) -> bool:
        """Whether the variant's parameters are the winner's."""
        return all(_equal(new, now) for _, _, new, now in self.changes)


def read_search(params: Params) -> Search | None:
    """The last search, None without one. ValueError if its files are not what a search writes."""
    if not (TRIALS.is_file() and BEST.is_file()):
        return None
    found = read_yaml(BEST)
    with open(TRIALS, newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        return _search(found, rows, params)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{TRIALS}, {BEST}: not what a search writes ({error!r}); run `dvc repro -f tune`") from error


def _search(found: dict, rows: list[dict[str, str]], params: Params) -> Search:
    about = found["search"]
    factor = 100 if about["metric"] == "J" else 1
    trials = {int(row["trial"]): _trial(row, factor) for row in rows}
    best = trials[found["best"]["trial"]]
    before = trials[found["before"]["trial"]] if found["before"] else None
    now = flatten(params.variants[about["variant"]]) if about["variant"] in params.variants else {}
    changes = tuple((key, before and before.values[key], value, now.get(key)) for key, value in best.values.items())
    numeric = [key for key in best.values if all(isinstance(one.values[key], float) for one in trials.values())]
    charts = tuple(_scatter(key, list(trials.values()), best, before) for key in numeric)
    return Search(about, tuple(trials.values()), best, before, changes, charts)


def _trial(row: dict[str, str], factor: float) -> TrialRow:
    score, seconds = (float(row[key]) if row[key] else None for key in ("score", "seconds"))
    values = {key: _value(value) for key, value in row.items() if key not in _NOT_SEARCHED}
    score = None if score is None else factor * score
    return TrialRow(int(row["trial"]), row["status"], row["epochs"], score, seconds, values)


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # a choice


def _equal(new: float | str, now: object) -> bool:
    if isinstance(new, str):
        return str(now) == new
    return isinstance(now, int | float) and math.isclose(now, new, rel_tol=1e-6)


def _scatter(key: str, trials: list[TrialRow], best: TrialRow, before: TrialRow | None) -> Chart:
    """Score against one parameter's value; a trial without a score is left out."""
    points = []
    for trial in trials:
        if trial.score is not None:
            kind = "dot" if trial.status == "finished" else "faint"
            kind = "best" if trial is best else "start" if trial is before else kind
            title = f"trial {trial.number}, {trial.status}: {key} {trial.values[key]:.3g}, score {trial.score:.3g}"
            points.append(Point(trial.values[key], trial.score, title, kind))
    values = [trial.values[key] for trial in trials]
    x = log_axis(values) if min(values) > 0 else linear_axis(values)
    y = linear_axis([point.y for point in points] or [0.0], num=3)
    return Chart(f"score against {key}", x, y, key, "score", (Line("trials", (tuple(points),), is_joined=False),))
