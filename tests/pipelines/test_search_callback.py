"""The search's callback: which trials and MLflow runs an interrupted search resumes, and what it writes to MLflow."""

import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from test_search_space import RATE

import pipelines.tuning.search_callback
from pipelines.tracking import mlflow_client as tracking
from pipelines.tuning.search_callback import SearchCallback, Trial


@pytest.fixture
def mlflow_calls(monkeypatch) -> list[tuple]:
    """The callback's calls to MLflow: (call, run)."""
    calls: list[tuple] = []

    def open_run(record, run_id="", parent="", start_ms=None) -> str:
        calls.append(("open", run_id))
        return run_id or f"new-{record.name}"

    def write(record, run_id, parent) -> str:
        calls.append(("write", run_id))
        return run_id or "written"

    monkeypatch.setattr(tracking, "open_run", open_run)
    monkeypatch.setattr(tracking, "write", write)
    monkeypatch.setattr(tracking, "close_run", lambda run_id, status: calls.append((status, run_id)))
    monkeypatch.setattr(tracking, "delete_run", lambda run_id: calls.append(("delete", run_id)))
    monkeypatch.setattr(
        pipelines.tuning.search_callback,
        "try_log_history",
        lambda run_id, rows: calls.append(("epochs", run_id, rows)),
    )
    return calls


def make_callback(known: list[Trial], save) -> SearchCallback:
    def record_of(number, values, history) -> SimpleNamespace:
        return SimpleNamespace(name=number)

    return SearchCallback(6, 2, [{RATE: 0.5}], "parent", record_of, lambda: None, known, save)


def ray_trial(name: str, rate: float) -> SimpleNamespace:
    return SimpleNamespace(trial_id=name, config={RATE: rate}, error_file="")


def test_after_an_interruption_a_trial_has_the_same_number_and_run(mlflow_calls):
    known = [
        Trial(0, {RATE: 0.5}, "run-0", True, "finished", score=0.1, history=[{"epoch": 1}], at=7.0),
        Trial(2, {RATE: 0.3}, "run-2"),
        Trial(4, {RATE: 0.4}, "run-4", status="failed", is_recorded=True),
    ]
    saved: list[tuple] = []
    callback = make_callback(known, lambda trial: saved.append((trial.number, trial.status, trial.is_recorded)))
    callback.begin()
    assert mlflow_calls == [("write", "run-0")], "MLflow did not have the whole trial"
    assert callback.seconds >= 7
    trials = [ray_trial("a", 0.3), ray_trial("b", 0.6), ray_trial("c", 0.7)]
    for trial in (trials[2], trials[0], trials[1]):  # trials may start in any order
        callback.on_trial_start(1, trials, trial)
    assert {trial.number: trial.run_id for trial in callback.trials} == {
        0: "run-0",
        1: "new-1",
        2: "run-2",
        3: "new-3",
        4: "run-4",
    }
    assert [trial.values[RATE] for trial in callback.trials] == [0.5, 0.6, 0.3, 0.7, 0.4]
    row = {"row": {"epoch": 1, "holdout_score": 0.2}, "score": 0.2, "chosen_by": "J", "time_total_s": 1.0}
    callback.on_trial_result(1, trials, trials[0], row)
    callback.on_trial_complete(1, trials, trials[0])
    assert saved[-2:] == [(2, "stopped", False), (2, "stopped", True)], "saved before MLflow has it, and after"
    assert not [call for call in mlflow_calls if call[0] == "delete"]
    callback.stop_rest()
    assert Counter(trial.status for trial in callback.trials) == {"stopped": 3, "finished": 1, "failed": 1}


def test_an_interrupted_trial_ends_when_the_searchs_time_is_over(mlflow_calls):
    callback = make_callback([Trial(0, {RATE: 0.3}, "run-0", score=0.2, history=[{"epoch": 1}])], lambda trial: None)
    callback.stop_rest()
    assert [(one.status, one.score) for one in callback.trials] == [("stopped", 0.2)]
    assert mlflow_calls == [("write", "run-0")]


def test_a_population_that_starts_again_reuses_its_runs_in_order(mlflow_calls):
    callback = make_callback([Trial(0, {}, "run-0"), Trial(1, {}, "run-1")], lambda trial: None)
    trials = [ray_trial("a", 0.5), ray_trial("b", 0.6), ray_trial("c", 0.7)]
    for trial in reversed(trials):
        callback.on_trial_start(1, trials, trial)
    assert [(one.number, one.run_id, one.values[RATE]) for one in callback.trials] == [
        (0, "run-0", 0.5),
        (1, "run-1", 0.6),
        (2, "new-2", 0.7),
    ]


def epochs(*scores: float) -> list[dict]:
    return [{"epoch": epoch, "holdout_score": score} for epoch, score in enumerate(scores, 1)]


def report(history: list[dict], **more) -> dict:
    return {"row": history[-1], "score": 0.5, "chosen_by": "J", "time_total_s": 1.0} | more


# a member's history in MLflow, its history in the next report, and whether the run must be replaced
@pytest.mark.parametrize(
    ("before", "after", "is_replaced"),
    [
        (epochs(0.1), epochs(0.1, 0.2), False),
        (epochs(0.1, 0.2, 0.3), epochs(0.1, 0.2), True),  # killed before Ray Tune saved the third epoch
        (epochs(0.1, 0.2), epochs(0.1, 0.9, 0.3), True),  # copied from another member at the same epoch
        (epochs(0.1), epochs(0.4, 0.9, 0.3), True),  # copied from a member that was ahead
        (epochs(0.1, 0.2, 0.3), epochs(0.4, 0.9), True),  # copied from a member that was behind
    ],
)
def test_a_members_mlflow_run_has_the_history_of_its_weights(mlflow_calls, before, after, is_replaced):
    callback = make_callback([Trial(0, {RATE: 0.3}, "old", ray_id="a", history=before)], lambda trial: None)
    one = ray_trial("a", 0.3)
    callback.on_trial_start(1, [one], one)
    mlflow_calls.clear()
    callback.on_trial_result(1, [one], one, report(after, rows=json.dumps(after)))
    (trial,) = callback.trials
    assert trial.history == after
    if not is_replaced:
        assert mlflow_calls == [("epochs", "old", after)]
    else:
        assert mlflow_calls == [("delete", "old"), ("open", ""), ("epochs", "new-0", after)]


def test_runs_are_completed_at_the_end_if_the_server_was_away(mlflow_calls, monkeypatch):
    """Meanwhile trials start, report, change their history and end; one trial already had a run."""
    is_away = [True]
    for module in (pipelines.tuning.search_callback, tracking):
        monkeypatch.setattr(module, "unavailable_reason", lambda: "gone" if is_away[0] else "")
    known = [Trial(0, {RATE: 0.3}, "old", ray_id="a", history=epochs(0.1, 0.2)), Trial(1, {RATE: 0.4}, "", ray_id="b")]
    saved: dict[int, Trial] = {}
    callback = make_callback(
        known, lambda trial: saved.update({trial.number: replace(trial, replaced=[*trial.replaced])})
    )
    one, two = ray_trial("a", 0.3), ray_trial("b", 0.4)
    for trial in (one, two):
        callback.on_trial_start(1, [one, two], trial)
    callback.on_trial_result(1, [one, two], one, report(epochs(0.9)))  # does not continue its history
    callback.on_trial_complete(1, [one, two], one)
    callback.on_trial_error(1, [one, two], two)
    assert mlflow_calls == []
    assert (saved[0].run_id, saved[0].replaced, saved[0].status) == ("", ["old"], "stopped")
    is_away[0] = False
    callback.complete_records()
    assert mlflow_calls == [("write", ""), ("delete", "old"), ("write", ""), ("FAILED", "written")]
    assert all(trial.is_recorded and not trial.replaced for trial in callback.trials)
    mlflow_calls.clear()
    callback.complete_records()
    assert mlflow_calls == []


def test_a_trial_that_restarts_from_its_first_epoch_replaces_its_run(mlflow_calls):
    callback = make_callback([Trial(0, {RATE: 0.3}, "old", history=epochs(0.1, 0.2))], lambda trial: None)
    one = ray_trial("a", 0.3)
    callback.on_trial_start(1, [one], one)
    callback.on_trial_result(1, [one], one, report(epochs(0.1)))
    assert callback.trials[0].history == epochs(0.1) and ("delete", "old") in mlflow_calls
