"""The last parameter search, as the report shows it."""

import csv
import math
from dataclasses import dataclass

from pipelines.params import BEST, TRIALS, flatten
from pipelines.reporting.chart_elements import Chart, Point, Series, linear_axis, log_axis
from ssvos.config import read_yaml
from ssvos.config.variants import Params

_OTHER_COLUMNS = ("trial", "status", "epochs", "score", "seconds")


@dataclass(frozen=True)
class TrialRow:
    """One trial.

    score:  held-out score; None without one
    values: of the searched parameters by dotted key; text for a choice
    """

    number: int
    status: str
    epochs: str
    score: float | None
    seconds: float | None
    values: dict[str, float | str]


@dataclass(frozen=True)
class Search:
    """A search's trials and its best one. Scores are in percent if the metric is J.

    about:   data, data_digest, variant, counts and metric from best.yaml
    before:  the trial with the values before the search; None if the search did not try them
    changes: (key, value before the search, best trial's value, this run's value) of each parameter
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

    def score_text(self, score: float | None) -> str:
        return "–" if score is None else f"{score:.1f}" if self.about["metric"] == "J" else f"{score:.3f}"

    @property
    def is_adopted(self) -> bool:
        """Whether the variant has the best trial's values."""
        return all(_equal(best, current) for _, _, best, current in self.changes)


def read_search(params: Params) -> Search | None:
    """Read the last search; None without one. Raises ValueError if its files have another content."""
    if not (TRIALS.is_file() and BEST.is_file()):
        return None
    content = read_yaml(BEST)
    with open(TRIALS, newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        return _search(content, rows, params)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"{TRIALS}, {BEST}: not readable as results of a search ({error!r}); run `dvc repro -f tune`"
        ) from error


def _search(content: dict, rows: list[dict[str, str]], params: Params) -> Search:
    """content: of best.yaml; rows: of trials.csv."""
    about = content["search"]
    factor = 100 if about["metric"] == "J" else 1
    trials = {int(row["trial"]): _trial(row, factor) for row in rows}
    best = trials[content["best"]["trial"]]
    before = trials[content["before"]["trial"]] if content["before"] else None
    current = flatten(params.variants[about["variant"]]) if about["variant"] in params.variants else {}
    changes = tuple((key, before and before.values[key], value, current.get(key)) for key, value in best.values.items())
    numeric = [key for key in best.values if all(isinstance(one.values[key], float) for one in trials.values())]
    charts = tuple(_scatter(key, list(trials.values()), best, before) for key in numeric)
    return Search(about, tuple(trials.values()), best, before, changes, charts)


def _trial(row: dict[str, str], factor: float) -> TrialRow:
    score, seconds = (float(row[key]) if row[key] else None for key in ("score", "seconds"))
    values = {key: _value(value) for key, value in row.items() if key not in _OTHER_COLUMNS}
    score = None if score is None else factor * score
    return TrialRow(int(row["trial"]), row["status"], row["epochs"], score, seconds, values)


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # the value of a choice


def _equal(best: float | str, current: object) -> bool:
    if isinstance(best, str):
        return str(current) == best
    return isinstance(current, int | float) and math.isclose(current, best, rel_tol=1e-6)


def _scatter(key: str, trials: list[TrialRow], best: TrialRow, before: TrialRow | None) -> Chart:
    """A scatter plot of the score by one parameter's value, without the trials that have no score."""
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
    return Chart(f"score against {key}", x, y, key, "score", (Series("trials", (tuple(points),), is_connected=False),))
