"""Resuming an interrupted search repeats no ended trial; a trial's workers reach the score of one process."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from bad_place import edit, make_place
from sandbox import PROJECT, environment
from test_search_space import LOSS, RATE, WIDTH, with_tune

from pipelines.cluster.worker_inputs import WorkerInputs
from pipelines.tuning.search_callback import Trial
from pipelines.tuning.searchers import search_algorithm, trial_scheduler
from pipelines.tuning.trainable import TrialState, train_both
from pipelines.tuning.trial_store import TrialStore
from ssvos.config import Config
from ssvos.config.variants import merge


def test_saved_trials_are_read_back_and_a_broken_file_is_named(tmp_path):
    store = TrialStore(tmp_path)
    first = Trial(1, {RATE: 0.5, LOSS: "none"}, "abc", status="failed", error="nan", history=[{"epoch": 1}])
    second = Trial(0, {RATE: 0.25, LOSS: "none"}, "def", score=0.5)
    for trial in (first, second, first):
        store.write(trial)
    assert store.known == [] and TrialStore(tmp_path).known == [second, first]
    (tmp_path / "trial-0001.json").write_text('{"number": 1')
    with pytest.raises(ValueError, match=r"trial-0001\.json: not a saved trial .*; remove its folder"):
        TrialStore(tmp_path)


def test_a_member_that_has_trained_its_last_epoch_is_neither_paused_nor_changed(tiny_config):
    space = {RATE: {"low": 1e-5, "high": 1e-1}}
    stages = {"train": {"stage1": {"epochs": 2}, "stage2": {"epochs": 1}}}
    config = Config.model_validate(merge(tiny_config.model_dump(mode="json"), stages))
    population = trial_scheduler(with_tune(config, searcher="pbt", trials=2, space=space), [])

    def decision(epoch: int) -> str:
        result = {"training_iteration": epoch, "row/epoch": epoch, "row/holdout_score": 0.5}  # Ray flattens results
        return population.on_trial_result(None, "a trial that Ray's population does not know", result)

    assert decision(3) == "CONTINUE"
    with pytest.raises(KeyError, match="does not know"):
        decision(2)


def ended_trial(number: int, rate: float, scores: list[float], status: str = "finished") -> Trial:
    history = [{"epoch": epoch, "holdout_score": score} for epoch, score in enumerate(scores, 1)]
    score = max(scores) if scores else None
    return Trial(number, {RATE: rate}, "run", status=status, score=score, history=history)


def test_a_resumed_search_does_not_draw_the_values_of_ended_trials_again(tiny_config):
    space = {RATE: {"low": 1e-5, "high": 1e-1}}
    config = with_tune(tiny_config, trials=12, space=space)

    def drawn(planned: list[dict], known: list[Trial], count: int) -> list[float]:
        search = search_algorithm(config, planned, known)
        assert search["num_samples"] == 12 - len(known)
        return [search["search_alg"].suggest(str(number))[RATE] for number in range(count)]

    first = drawn([{RATE: 1e-3}], [], 6)
    assert first[0] == pytest.approx(1e-3)
    known = [ended_trial(number, rate, [0.1 * number]) for number, rate in enumerate(first[:5])]
    after = drawn([{RATE: first[5]}], known, 7)
    assert after[0] == pytest.approx(first[5]), "the trial that had not ended comes first"
    together = [*first[:5], *after]
    assert min(abs(a / b - 1) for a in together for b in together if a is not b) > 1e-3


def test_a_resumed_search_proposes_values_near_the_best_ended_trials(tiny_config):
    config = with_tune(tiny_config, trials=40, space={RATE: {"low": 1e-5, "high": 1e-1}})
    rates = [10 ** (-5 + 4 * k / 19) for k in range(20)]
    known = [ended_trial(k, rate, [1.0 if 8 <= k <= 9 else 0.0]) for k, rate in enumerate(rates)]
    known += [ended_trial(20, 0.05, [], "failed")]
    search = search_algorithm(config, [], known)["search_alg"]
    drawn = [search.suggest(str(number))[RATE] for number in range(19)]
    near = sum(rates[6] < rate < rates[11] for rate in drawn)
    assert near > 19 / 2, "a quarter of the range contains all trials with a score above 0"


@pytest.mark.parametrize(("scheduler", "decision"), [("asha", "STOP"), ("none", "CONTINUE")])
def test_the_scheduler_compares_a_weak_trial_with_ended_ones(tiny_config, scheduler, decision):
    space = {RATE: {"low": 1e-5, "high": 1e-1}}
    config = with_tune(tiny_config, trials=9, grace_period=1, reduction_factor=2, scheduler=scheduler, space=space)
    known = [ended_trial(number, 1e-3, [0.5 + 0.01 * number, 0.6]) for number in range(4)]
    schedule = trial_scheduler(config, known)
    weak = SimpleNamespace(trial_id="weak")
    schedule.on_trial_add(None, weak)
    assert schedule.on_trial_result(None, weak, {"training_iteration": 1, "score": 0.1}) == decision


def test_a_trial_resumed_from_its_state_ends_with_the_same_weights(tiny_data, tmp_path):
    inputs = WorkerInputs(tiny_data.index, tiny_data.scribbles, tiny_data.roots)
    config = tiny_data.config
    rows: list[dict] = []
    state = TrialState()

    def on_epoch(report: dict) -> None:
        rows.append(report)
        if report["row"]["epoch"] in (1, 2):  # within the first stage, and at its end
            state.save(tmp_path / f"{report['row']['epoch']:.0f}.pt")

    uninterrupted, _ = train_both(config, inputs, on_epoch, state)
    for epoch in (1, 2):
        resumed_rows: list[dict] = []
        resumed, _ = train_both(config, inputs, resumed_rows.append, TrialState.load(tmp_path / f"{epoch}.pt"))
        assert resumed_rows == rows[epoch:]
        for name, weights in uninterrupted.state_dict().items():
            assert torch.equal(weights, resumed.state_dict()[name]), name


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A project's folder that is ready for a search."""
    folder = tmp_path_factory.mktemp("prepared")
    make_place(folder)
    return folder


def start_search(folder: Path) -> subprocess.Popen:
    variables = environment(folder, PYTHONPATH=str(PROJECT))
    command = [sys.executable, "-m", "pipelines.tune"]
    return subprocess.Popen(
        command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run_and_kill(folder: Path, count: int, is_enough) -> str:
    """Search until `is_enough` is true for `count` saved trials, then kill the driver -> its output."""
    running = start_search(folder)
    try:
        for _ in range(6000):
            if sum(map(is_enough, saved_trials(folder))) >= count or running.poll() is not None:
                break
            time.sleep(0.05)
        assert running.poll() is None, running.communicate()[0]
    finally:
        running.send_signal(signal.SIGKILL)
    return running.communicate(timeout=60)[0]


def saved_trials(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in folder.glob("resume/*/trial-*.json")]


def run_to_end(folder: Path) -> tuple[list[dict], str]:
    """Run or resume the search -> its rows, its output. Checks that each row has one MLflow run that has ended."""
    from mlflow import MlflowClient

    running = start_search(folder)
    output = running.communicate(timeout=550)[0]
    assert running.returncode == 0, output
    with open(folder / "tune/trials.csv") as file:
        rows = list(csv.DictReader(file))
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("ssvos-tune").experiment_id])
    (parent,) = (run for run in runs if run.data.tags["stage"] == "tune")
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(int(run.data.tags["trial"]) for run in children) == [int(row["trial"]) for row in rows]
    assert {run.info.status for run in runs} == {"FINISHED"} and len(runs) == len(rows) + 1
    for run in children:
        epochs = [metric.step for metric in client.get_metric_history(run.info.run_id, "holdout_score")]
        assert epochs == list(range(1, 1 + int(rows[int(run.data.tags["trial"])]["epochs"])))
    assert not list((folder / "resume").glob("*-tune-*"))
    return rows, output


def copy_with_tune(folder: Path, prepared: Path, **tune) -> Path:
    """Copy the project with other parameters of the search; a trial has two steps."""
    shutil.copytree(prepared, folder, symlinks=True)
    edit(str(folder / "params.yaml"), tune={"scheduler": "none"} | tune)
    return folder


@pytest.mark.timeout(600)
def test_a_search_killed_at_trial_3_of_6_resumes_and_repeats_no_ended_trial(prepared, tmp_path):
    folder = copy_with_tune(tmp_path / "project", prepared, trials=6, scheduler="asha")
    run_and_kill(folder, 3, lambda trial: trial["status"] != "running")
    before = {trial["number"]: trial for trial in saved_trials(folder) if trial["status"] != "running"}
    assert 3 <= len(before) < 6
    rows, output = run_to_end(folder)
    assert [int(row["trial"]) for row in rows] == list(range(6))
    run_after = {int(line.split()[1]) for line in output.splitlines() if line.startswith("trial ")}
    assert run_after == set(range(6)) - set(before)
    for number, trial in before.items():
        assert float(rows[number]["score"]) == trial["score"]
        assert float(rows[number][RATE]) == trial["values"][RATE]
    assert len({row[RATE] for row in rows}) == 6


@pytest.mark.timeout(600)
def test_a_killed_population_resumes_with_its_weights(prepared, tmp_path):
    stages = {"stage1": {"epochs": 2}}
    folder = copy_with_tune(tmp_path / "project", prepared, trials=3, searcher="pbt", trial={"train": stages})
    run_and_kill(folder, 2, lambda trial: len(trial["history"]) >= 2)
    assert len(saved_trials(folder)) == 3
    rows, output = run_to_end(folder)
    assert "the search resumes" in output or "the population starts again" in output
    assert [row["epochs"] for row in rows] == ["3", "3", "3"]
    lows, highs = (1e-4, 0.1), (1e-2, 5.0)
    for row in rows:
        for key, low, high in zip((RATE, "loss.weight"), lows, highs, strict=True):
            assert low <= float(row[key]) <= high


@pytest.mark.timeout(600)
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two workers need two CPUs")
def test_two_workers_of_a_trial_reach_the_score_of_one_process(prepared, tmp_path):
    space = {WIDTH: {"low": 4, "high": 8}}
    rows, _ = run_to_end(copy_with_tune(tmp_path / "one", prepared, trials=3, searcher="random", space=space))
    assert int(rows[0][WIDTH]) == 8 and {int(row[WIDTH]) for row in rows} <= set(range(4, 9))
    (by_two,), _ = run_to_end(copy_with_tune(tmp_path / "two", prepared, trials=1, workers=2))
    assert float(by_two["score"]) == pytest.approx(float(rows[0]["score"]), abs=2e-3)
    assert by_two["epochs"] == rows[0]["epochs"] == "2"
