"""A search as the driver sees it: a row, a curve, an MLflow run and a line on the terminal for each trial."""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ray.tune import Callback

from pipelines.tracking import mlflow_client as tracking
from pipelines.tracking.mlflow_client import Record
from pipelines.tracking.tracking_uri import silence


@dataclass
class Trial:
    """One setting of the searched parameters; score: the best held-out score of its epochs, None if it failed.

    values: those of the best epoch, where they change while it trains. run_id: '' until MLflow has taken its beginning.
    ray_id: Ray Tune's name for it. at: seconds into the search at which it ended.
    """

    number: int
    values: dict[str, bool | int | float | str]
    run_id: str
    is_present: bool = False  # the values that the search started from
    status: str = "running"
    metric: str = ""
    score: float | None = None
    seconds: float = 0.0
    error: str = ""
    history: list[dict[str, float]] = field(default_factory=list)
    ray_id: str = ""
    at: float = 0.0
    is_recorded: bool = False  # whether MLflow has all of it
    replaced: list[str] = field(default_factory=list)  # runs that another took the place of, and MLflow still has

    @property
    def has_ended(self) -> bool:
        return self.status != "running"

    def row(self) -> dict[str, object]:
        """A line of trials.csv."""
        score = "" if self.score is None else self.score
        about = {"trial": self.number, "status": self.status, "epochs": len(self.history), "score": score}
        return about | {"seconds": round(self.seconds, 1)} | self.values

    def line(self, total: int) -> str:
        """What a person reads when the trial has ended."""
        values = "  ".join(f"{key} {f'{v:.3g}' if isinstance(v, float) else v}" for key, v in self.values.items())
        result = f"held-out score {self.score:.3f}" if self.score is not None else self.error
        return f"trial {self.number} of {total}  {self.status} after {len(self.history)} epochs  {result}  {values}"


class SearchCallback(Callback):
    """On the driver: writes down what the trials report. An MLflow server that goes away does not stop them: what it
    has not taken is brought by `complete_records` at the end.

    known: trials of the same search before an interruption; one without values is whichever comes first. keep: takes a
    trial as it starts, after an epoch, and as it ends, before MLflow has the rest of it: an interruption then loses no
    trial that has ended, and leaves no run behind.
    """

    def __init__(
        self,
        total: int,
        epochs: int,
        present: Sequence[dict],
        parent: str,
        record_of: Callable[[int, dict, list], Record],
        advance: Callable[[], None],
        known: Sequence[Trial] = (),
        keep: Callable[[Trial], None] = lambda trial: None,
    ) -> None:
        self._known = list(known)
        self._thought_of: dict[str, Trial] = {}  # before they start, which they do in any order
        self._by_id: dict[str, Trial] = {}
        self._total, self._epochs, self._present, self._parent = total, epochs, present, parent
        self._record_of, self._advance, self._keep = record_of, advance, keep
        self._began = time.monotonic() - max((trial.at for trial in known), default=0.0)

    @property
    def trials(self) -> list[Trial]:
        """All trials that were started, in the order in which the search thought of them."""
        all_of = (*self._known, *self._thought_of.values())
        started = [trial for trial in all_of if trial.has_ended or trial.ray_id in self._by_id]
        return sorted(started, key=lambda trial: trial.number)

    @property
    def seconds(self) -> float:
        """Of the search so far, up to the last end of a trial before an interruption."""
        return time.monotonic() - self._began

    def __getstate__(self) -> dict:
        return {}  # Ray Tune writes its callbacks down; this one's progress bar cannot be

    def begin(self) -> None:
        """Take up what an interruption left: of trials that had ended MLflow gets what it lacks."""
        self.complete_records()
        for trial in self._known:
            if trial.has_ended:
                self._advance()

    def complete_records(self) -> None:
        """Bring MLflow what an interruption kept from it, or its own absence, which is waited for."""
        for trial in (*self._known, *self._by_id.values()):
            if trial.has_ended and not trial.is_recorded:
                self._record(trial)

    def stop_rest(self) -> None:
        """The time of the search is up: what runs still, or ran before an interruption, has ended where it stands."""
        for seen in (*self._known, *self._by_id.values()):
            if not seen.has_ended:
                self._end(seen, "stopped", "" if seen.history else "no epoch in the time of the search")

    def on_trial_start(self, iteration, trials, trial, **info) -> None:
        if trial.trial_id in self._by_id:
            return  # started again after its node was lost, or paused by its population
        for one in trials:
            if one.trial_id not in self._thought_of:
                self._thought_of[one.trial_id] = self._taken_up(one) or self._new(one)
        seen = self._by_id[trial.trial_id] = self._thought_of[trial.trial_id]
        seen.status, seen.ray_id, seen.is_recorded = "running", trial.trial_id, False
        self._open(seen)
        self._keep(seen)

    def _open(self, seen: Trial) -> None:
        seen.run_id = tracking.open_live(self._record_of(seen.number, seen.values, []), seen.run_id, self._parent)

    def _taken_up(self, trial) -> Trial | None:
        """The earlier trial that this one takes up, by Ray's name for it, or by its values if it has not ended."""
        named = [one for one in self._known if one.ray_id == trial.trial_id]
        found = named or [one for one in self._known if not one.has_ended and _same(trial.config, one.values)]
        if not found:
            return None
        self._known.remove(found[0])
        if not found[0].values:
            found[0].values, found[0].is_present = dict(trial.config), self._is_present(trial)
        return found[0]

    def _new(self, trial) -> Trial:
        taken = {one.number for one in (*self._known, *self._thought_of.values())}
        number = next(number for number in range(len(taken) + 1) if number not in taken)
        return Trial(number, dict(trial.config), "", self._is_present(trial))

    def _is_present(self, trial) -> bool:
        return any(_same(trial.config, one) for one in self._present)

    def on_trial_result(self, iteration, trials, trial, result, **info) -> None:
        seen = self._by_id[trial.trial_id]
        row, before = result["row"], seen.history
        earlier = json.loads(result["rows"])[:-1] if "rows" in result else before
        seen.history = [*(one for one in earlier if one["epoch"] < row["epoch"]), row]
        seen.score, seen.metric, seen.seconds = result["score"], result["chosen_by"], result["time_total_s"]
        if "values" in result:
            seen.values = json.loads(result["values"])
            seen.is_present &= self._is_present(trial)
        if seen.history[: len(before)] != before:
            self._leave_run(seen)
        if not seen.run_id:
            self._open(seen)
        self._keep(seen)
        if seen.run_id:
            tracking.log_live(seen.run_id, seen.history)

    def _leave_run(self, seen: Trial) -> None:
        """Epochs that MLflow has were lost with the weights they were of, and it takes none back: a member of a
        population goes on from a copy of another, or a trial from an earlier state. Another run takes the place."""
        if seen.run_id:
            seen.replaced.append(seen.run_id)
        seen.run_id = ""
        self._keep(seen)
        if not silence():
            self._delete_replaced(seen)

    def _delete_replaced(self, seen: Trial) -> None:
        for run_id in seen.replaced:
            tracking.delete_run(run_id)
        seen.replaced = []

    def on_trial_complete(self, iteration, trials, trial, **info) -> None:
        seen = self._by_id[trial.trial_id]
        self._end(seen, "finished" if len(seen.history) >= self._epochs else "stopped")

    def on_trial_error(self, iteration, trials, trial, **info) -> None:
        self._end(self._by_id[trial.trial_id], "failed", _reason(trial))

    def _end(self, seen: Trial, status: str, error: str = "") -> None:
        seen.status, seen.error, seen.at = status, error, self.seconds
        if status == "failed":
            seen.score = None
        self._keep(seen)
        if not silence():
            self._record(seen)
        print(seen.line(self._total), flush=True)
        self._advance()

    def _record(self, seen: Trial) -> None:
        record = self._record_of(seen.number, seen.values, [] if seen.status == "failed" else seen.history)
        seen.run_id = tracking.write(record, seen.run_id, self._parent)
        self._delete_replaced(seen)
        if seen.status == "failed":
            tracking.close_run(seen.run_id, "FAILED")
        seen.is_recorded = True
        self._keep(seen)


def _same(values: dict, others: dict) -> bool:
    """Equal but for the last digits, which a search over the logarithm loses."""

    def equal(one: object, other: object) -> bool:
        return math.isclose(one, other, rel_tol=1e-9) if isinstance(other, float) else one == other

    return all(equal(values[key], others[key]) for key in others)


def _reason(trial) -> str:
    """The last line of a trial's error, which says what went wrong; the rest is where."""
    written = Path(trial.error_file or "")  # Ray's own copy of it is made later
    lines = written.read_text().strip().splitlines() if written.is_file() else []
    return lines[-1].removeprefix("ValueError: ") if lines else "ended without a word"
