"""A search as the driver sees it: a row, a curve, an MLflow run and a line on the terminal for each trial."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ray.tune import Callback

from pipelines import tracking
from pipelines.tracking import Record


@dataclass
class Trial:
    """One setting of the searched parameters; score: the best held-out score of its epochs, None if it failed."""

    number: int
    values: dict[str, float]
    run_id: str
    is_present: bool = False  # the values that the search started from
    status: str = "running"
    metric: str = ""
    score: float | None = None
    seconds: float = 0.0
    error: str = ""
    history: list[dict[str, float]] = field(default_factory=list)

    def row(self) -> dict[str, object]:
        """A line of trials.csv."""
        score = "" if self.score is None else self.score
        about = {"trial": self.number, "status": self.status, "epochs": len(self.history), "score": score}
        return about | {"seconds": round(self.seconds, 1)} | self.values

    def line(self, total: int) -> str:
        """What a person reads when the trial has ended."""
        values = "  ".join(f"{key} {value:.3g}" for key, value in self.values.items())
        result = f"held-out score {self.score:.3f}" if self.score is not None else self.error
        return f"trial {self.number} of {total}  {self.status} after {len(self.history)} epochs  {result}  {values}"


class Follower(Callback):
    """On the driver: writes down what the trials report."""

    def __init__(
        self,
        total: int,
        epochs: int,
        present: Sequence[dict[str, float]],
        parent: str,
        record_of: Callable[[int, dict, list], Record],
        advance: Callable[[], None],
    ) -> None:
        self._by_id: dict[str, Trial] = {}
        self._total, self._epochs, self._present, self._parent = total, epochs, present, parent
        self._record_of, self._advance = record_of, advance

    @property
    def trials(self) -> list[Trial]:
        """All trials, in the order in which the search thought of them."""
        return sorted(self._by_id.values(), key=lambda trial: trial.number)

    def __getstate__(self) -> dict:
        return {}  # Ray Tune writes its callbacks down; this one's progress bar cannot be

    def on_trial_start(self, iteration, trials, trial, **info) -> None:
        if trial.trial_id in self._by_id:
            return  # started again after its node was lost
        number, values = trials.index(trial), dict(trial.config)
        run_id = tracking.open_run(self._record_of(number, values, []), parent=self._parent)
        seen = Trial(number, values, run_id, is_present=any(_same(values, one) for one in self._present))
        self._by_id[trial.trial_id] = seen

    def on_trial_result(self, iteration, trials, trial, result, **info) -> None:
        seen = self._by_id[trial.trial_id]
        row = result["row"]
        seen.history = [*(one for one in seen.history if one["epoch"] < row["epoch"]), row]
        seen.score, seen.metric, seen.seconds = result["score"], result["chosen_by"], result["time_total_s"]
        tracking.log_live(seen.run_id, row, step=int(row["epoch"]))

    def on_trial_complete(self, iteration, trials, trial, **info) -> None:
        seen = self._by_id[trial.trial_id]
        seen.status = "finished" if len(seen.history) >= self._epochs else "stopped"
        tracking.write(self._record_of(seen.number, seen.values, seen.history), seen.run_id)
        self._say(seen)

    def on_trial_error(self, iteration, trials, trial, **info) -> None:
        seen = self._by_id[trial.trial_id]
        seen.status, seen.score, seen.error = "failed", None, _reason(trial)
        tracking.close_run(seen.run_id, "FAILED")
        self._say(seen)

    def _say(self, seen: Trial) -> None:
        print(seen.line(self._total), flush=True)
        self._advance()


def _same(values: dict[str, float], others: dict[str, float]) -> bool:
    """Equal but for the last digits, which a search over the logarithm loses."""
    return all(math.isclose(values[key], others[key], rel_tol=1e-9) for key in others)


def _reason(trial) -> str:
    """The last line of a trial's error, which says what went wrong; the rest is where."""
    written = Path(trial.error_file or "")  # Ray's own copy of it is made later
    lines = written.read_text().strip().splitlines() if written.is_file() else []
    return lines[-1].removeprefix("ValueError: ") if lines else "ended without a word"
