"""The driver's view of a search: saves, prints and records each trial in MLflow as its reports arrive."""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ray.tune import Callback

from pipelines.tracking import mlflow_client as tracking
from pipelines.tracking.mlflow_metrics import try_log_history
from pipelines.tracking.record import Record
from pipelines.tracking.tracking_uri import unavailable_reason


@dataclass
class Trial:
    """One setting of the searched parameters.

    values: those of the best epoch, if they change during training.
    run_id: its MLflow run; '' until MLflow has accepted the start.
    is_present: whether it has the values that the search started from.
    score: best held-out score of its epochs; None if it failed.
    history: a row per epoch.
    ray_id: Ray Tune's name of the trial.
    at: time of its end, in seconds since the start of the search.
    is_recorded: whether MLflow has all of it.
    replaced: MLflow runs that `run_id` replaces and that are still to be deleted.
    """

    number: int
    values: dict[str, bool | int | float | str]
    run_id: str
    is_present: bool = False
    status: str = "running"
    metric: str = ""
    score: float | None = None
    seconds: float = 0.0
    error: str = ""
    history: list[dict[str, float]] = field(default_factory=list)
    ray_id: str = ""
    at: float = 0.0
    is_recorded: bool = False
    replaced: list[str] = field(default_factory=list)

    @property
    def has_ended(self) -> bool:
        return self.status != "running"

    def row(self) -> dict[str, object]:
        """Return the trial's row of trials.csv."""
        score = "" if self.score is None else self.score
        about = {"trial": self.number, "status": self.status, "epochs": len(self.history), "score": score}
        return about | {"seconds": round(self.seconds, 1)} | self.values

    def line(self, total: int) -> str:
        """Return the line to print when the trial has ended."""
        values = "  ".join(f"{key} {f'{v:.3g}' if isinstance(v, float) else v}" for key, v in self.values.items())
        result = f"held-out score {self.score:.3f}" if self.score is not None else self.error
        return f"trial {self.number} of {total}  {self.status} after {len(self.history)} epochs  {result}  {values}"


class SearchCallback(Callback):
    """Ray Tune's callback on the driver: saves and records what the trials report.

    An MLflow server that is away does not stop the trials; `complete_records` writes what is missing at the end.

    total: number of trials of the search.
    epochs: of a trial.
    current_values: the values that the search starts from, if they are tried.
    parent: MLflow run of the search.
    record_of: makes the record of a trial from its number, values and history.
    advance: advances the progress bar.
    known: trials from before an interruption; a trial without values becomes whichever trial starts first.
    save: saves a trial. It is called when the trial starts, after an epoch, and at its end before MLflow has all of it,
        so that an interruption loses no trial that has ended and leaves no run behind.
    """

    def __init__(
        self,
        total: int,
        epochs: int,
        current_values: Sequence[dict],
        parent: str,
        record_of: Callable[[int, dict, list], Record],
        advance: Callable[[], None],
        known: Sequence[Trial] = (),
        save: Callable[[Trial], None] = lambda trial: None,
    ) -> None:
        self._known = list(known)
        self._proposed: dict[str, Trial] = {}  # by Ray's name, in the order of the search; they start in any order
        self._by_id: dict[str, Trial] = {}  # those that have started
        self._total, self._epochs, self._current_values, self._parent = total, epochs, current_values, parent
        self._record_of, self._advance, self._save = record_of, advance, save
        self._start = time.monotonic() - max((trial.at for trial in known), default=0.0)

    @property
    def trials(self) -> list[Trial]:
        """All trials that have started, by number."""
        all_trials = (*self._known, *self._proposed.values())
        started = [trial for trial in all_trials if trial.has_ended or trial.ray_id in self._by_id]
        return sorted(started, key=lambda trial: trial.number)

    @property
    def seconds(self) -> float:
        """Duration of the search; before an interruption it counts up to the last end of a trial."""
        return time.monotonic() - self._start

    def __getstate__(self) -> dict:
        return {}  # Ray Tune pickles its callbacks, and this one's progress bar cannot be pickled

    def begin(self) -> None:
        """Resume after an interruption: complete the MLflow runs of trials that have ended, and count them."""
        self.complete_records()
        for trial in self._known:
            if trial.has_ended:
                self._advance()

    def complete_records(self) -> None:
        """Write what MLflow lacks of trials that have ended; waits for a server that is away."""
        for trial in (*self._known, *self._by_id.values()):
            if trial.has_ended and not trial.is_recorded:
                self._write_record(trial)

    def stop_rest(self) -> None:
        """End all trials that are still running, or were before an interruption: the search's time is up."""
        for trial in (*self._known, *self._by_id.values()):
            if not trial.has_ended:
                self._end(trial, "stopped", "" if trial.history else "the time budget ended before its first epoch")

    def on_trial_start(self, iteration, trials, trial, **info) -> None:
        if trial.trial_id in self._by_id:
            return  # restarted after its node was lost, or paused by its population
        for ray_trial in trials:
            if ray_trial.trial_id not in self._proposed:
                self._proposed[ray_trial.trial_id] = self._known_trial(ray_trial) or self._new_trial(ray_trial)
        started = self._by_id[trial.trial_id] = self._proposed[trial.trial_id]
        started.status, started.ray_id, started.is_recorded = "running", trial.trial_id, False
        self._open_run(started)
        self._save(started)

    def _open_run(self, trial: Trial) -> None:
        trial.run_id = tracking.try_open_run(
            self._record_of(trial.number, trial.values, []), trial.run_id, self._parent
        )

    def _known_trial(self, ray_trial) -> Trial | None:
        """Return the earlier trial that Ray's trial resumes: by Ray's name, or by its values if it has not ended."""
        by_name = [trial for trial in self._known if trial.ray_id == ray_trial.trial_id]
        matches = by_name or [
            trial for trial in self._known if not trial.has_ended and _are_equal(ray_trial.config, trial.values)
        ]
        if not matches:
            return None
        match = matches[0]
        self._known.remove(match)
        if not match.values:
            match.values, match.is_present = dict(ray_trial.config), self._has_current_values(ray_trial)
        return match

    def _new_trial(self, ray_trial) -> Trial:
        taken = {trial.number for trial in (*self._known, *self._proposed.values())}
        number = next(number for number in range(len(taken) + 1) if number not in taken)
        return Trial(number, dict(ray_trial.config), "", self._has_current_values(ray_trial))

    def _has_current_values(self, ray_trial) -> bool:
        return any(_are_equal(ray_trial.config, values) for values in self._current_values)

    def on_trial_result(self, iteration, trials, trial, result, **info) -> None:
        reported = self._by_id[trial.trial_id]
        row, previous = result["row"], reported.history
        earlier = json.loads(result["rows"])[:-1] if "rows" in result else previous
        reported.history = [*(epoch for epoch in earlier if epoch["epoch"] < row["epoch"]), row]
        reported.score, reported.metric, reported.seconds = result["score"], result["chosen_by"], result["time_total_s"]
        if "values" in result:
            reported.values = json.loads(result["values"])
            reported.is_present &= self._has_current_values(trial)
        if reported.history[: len(previous)] != previous:
            self._replace_run(reported)
        if not reported.run_id:
            self._open_run(reported)
        self._save(reported)
        if reported.run_id:
            try_log_history(reported.run_id, reported.history)

    def _replace_run(self, trial: Trial) -> None:
        """Give the trial a new MLflow run, because its history no longer continues the one in MLflow.

        A member of a population copies another's weights, or a trial resumes from an earlier state; MLflow cannot
        delete epochs of a run.
        """
        if trial.run_id:
            trial.replaced.append(trial.run_id)
        trial.run_id = ""
        self._save(trial)
        if not unavailable_reason():
            self._delete_replaced(trial)

    def _delete_replaced(self, trial: Trial) -> None:
        for run_id in trial.replaced:
            tracking.delete_run(run_id)
        trial.replaced = []

    def on_trial_complete(self, iteration, trials, trial, **info) -> None:
        ended = self._by_id[trial.trial_id]
        self._end(ended, "finished" if len(ended.history) >= self._epochs else "stopped")

    def on_trial_error(self, iteration, trials, trial, **info) -> None:
        self._end(self._by_id[trial.trial_id], "failed", _error_line(trial))

    def _end(self, trial: Trial, status: str, error: str = "") -> None:
        trial.status, trial.error, trial.at = status, error, self.seconds
        if status == "failed":
            trial.score = None
        self._save(trial)
        if not unavailable_reason():
            self._write_record(trial)
        print(trial.line(self._total), flush=True)
        self._advance()

    def _write_record(self, trial: Trial) -> None:
        record = self._record_of(trial.number, trial.values, [] if trial.status == "failed" else trial.history)
        trial.run_id = tracking.write(record, trial.run_id, self._parent)
        self._delete_replaced(trial)
        if trial.status == "failed":
            tracking.close_run(trial.run_id, "FAILED")
        trial.is_recorded = True
        self._save(trial)


def _are_equal(values: dict, others: dict) -> bool:
    """Compare up to rounding, since a search over the logarithm changes the last digits."""

    def equal(value: object, other: object) -> bool:
        return math.isclose(value, other, rel_tol=1e-9) if isinstance(other, float) else value == other

    return all(equal(values[key], others[key]) for key in others)


def _error_line(ray_trial) -> str:
    """Return the last line of a trial's error, which has the message; the lines before it are the traceback."""
    error_file = Path(ray_trial.error_file or "")  # Ray copies it to the storage later
    lines = error_file.read_text().strip().splitlines() if error_file.is_file() else []
    return lines[-1].removeprefix("ValueError: ") if lines else "ended without an error message"
