"""The search: its space, what it refuses, its room on a cluster, and that an interruption repeats no trial."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from bad_place import edit, make_place
from sandbox import PROJECT, environment

import pipelines.tuning.search_callback
from pipelines.cluster.worker_inputs import WorkerInputs
from pipelines.params import typed
from pipelines.reporting.search_table import read_search
from pipelines.tracking import mlflow_client as tracking
from pipelines.tuning.search_callback import SearchCallback, Trial
from pipelines.tuning.search_space import grid_points, random_points, require_space, within
from pipelines.tuning.search_trial import _config
from pipelines.tuning.searchers import proposing, scheduling
from pipelines.tuning.trainable import State, train_both
from pipelines.tuning.trial_resources import _require, _room
from pipelines.tuning.trial_store import TrialStore
from ssvos.config import Config, RangeConfig, ResourcesConfig, TuneConfig
from ssvos.config.variants import Params, merge

RATE, WIDTH, LOSS = "train.stage1.learning_rate", "model.fusion_channels", "loss.regularizer"


def searching(config: Config, **tune) -> Config:
    return Config.model_validate(merge(config.model_dump(mode="json"), {"tune": {"space": {}}}) | {"tune": tune})


def test_a_grid_has_every_combination_of_points_written_out_by_hand(tiny_config):
    space = {
        RATE: {"low": 1e-4, "high": 1e-2, "num": 3},
        WIDTH: {"low": 4, "high": 8, "num": 9, "log": False},
        LOSS: {"choices": ["none", "dense_crf"]},
    }
    points = grid_points(searching(tiny_config, searcher="grid", space=space))
    assert len(points) == 3 * 5 * 2, "the nine points of 4..8 are five whole numbers"
    assert sorted({point[RATE] for point in points}) == pytest.approx([1e-4, 1e-3, 1e-2])
    assert [point[WIDTH] for point in points[:10:2]] == [4, 5, 6, 7, 8]
    assert all(type(point[WIDTH]) is int for point in points)
    assert [point[LOSS] for point in points[:2]] == ["none", "dense_crf"]


def test_random_points_begin_with_the_present_values_and_do_not_depend_on_the_budget(tiny_config):
    space = {RATE: {"low": 1e-5, "high": 1e-1}, WIDTH: {"low": 3, "high": 18, "log": False}}
    few, many = (random_points(searching(tiny_config, searcher="random", trials=n, space=space)) for n in (5, 400))
    assert many[:5] == few
    assert few[0] == {RATE: 1e-3, WIDTH: 16}
    counts = Counter(point[WIDTH] for point in many[1:])
    assert set(counts) == set(range(3, 19)) and max(counts.values()) < 3 * 399 / 16, "both ends, each as often"
    below = sum(point[RATE] < 1e-3 for point in many[1:]) / 399
    assert below == pytest.approx(0.5, abs=0.08), "half of them below the middle of the logarithm"


def test_a_whole_number_over_its_logarithm_is_drawn_as_often_as_its_stretch_is_long(tiny_config):
    space = {WIDTH: {"low": 1, "high": 2}}
    points = random_points(searching(tiny_config, searcher="random", trials=600, space=space))
    # 0.5..1.5 and 1.5..2.5 have log(3) and log(5 / 3)
    assert sum(point[WIDTH] == 1 for point in points) / 600 == pytest.approx(1.0986 / (1.0986 + 0.5108), abs=0.06)


def test_what_pbt_multiplies_stays_in_its_range(tiny_config):
    space = {RATE: {"low": 1e-4, "high": 1e-2}, LOSS: {"choices": ["none", "dense_crf"]}}
    config = searching(tiny_config, searcher="pbt", space=space)
    assert within(config, {RATE: 0.012, LOSS: "none"}) == {RATE: 1e-2, LOSS: "none"}
    assert within(config, {RATE: 0.00008, LOSS: "none"})[RATE] == 1e-4
    assert within(config, {RATE: 0.005, LOSS: "none"})[RATE] == 0.005


def test_values_from_a_table_get_their_parameters_types(tiny_config):
    flag = "model.attention.scaled"
    read = typed(tiny_config, {RATE: 1, WIDTH: 8.0, LOSS: "none", flag: "False"})
    assert read == {RATE: 1.0, WIDTH: 8, LOSS: "none", flag: False}
    assert [type(value) for value in read.values()] == [float, int, str, bool]


def test_every_kind_of_parameter_may_be_searched(tiny_config):
    space = {
        RATE: {"low": 1e-4, "high": 1e-2},
        WIDTH: {"low": 4, "high": 8},
        LOSS: {"choices": ["none", "dense_crf"]},
        "model.attention.scaled": {"choices": [True, False]},
        "loss.weight": {"choices": [1, 2]},
    }
    for algorithm in ("tpe", "random"):
        require_space(searching(tiny_config, searcher=algorithm, space=space))
    values = random_points(searching(tiny_config, searcher="random", space=space))[3]
    assert _config(values, {"config": tiny_config.model_dump(mode="json")}).model.fusion_channels == values[WIDTH]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"low": 1.0}, "give low and high, or choices"),
        ({"low": 1.0, "high": 2.0, "choices": [1, 2]}, "give one of them"),
        ({"choices": [1]}, "fewer than two"),
        ({"low": 0.0, "high": 1.0}, "must be above 0 where log is true"),
    ],
)
def test_a_range_is_a_range_or_choices(given, message):
    with pytest.raises(ValueError, match=message):
        RangeConfig(**given)


# nodes as (CPUs, GPUs); how many fit, counted by hand
@pytest.mark.parametrize(
    ("cpus", "gpus", "nodes", "count"),
    [
        (1.0, 0.0, [(2, 0)], 2),
        (0.5, 0.0, [(2, 0)], 4),
        (3.0, 0.0, [(2, 0), (2, 0)], 0),  # a trial lies on one node
        (1.0, 0.5, [(8, 2), (8, 0)], 4),
        (1.0, 0.4, [(8, 2)], 4),  # two on each GPU, none across
        (1.0, 2.0, [(8, 3), (8, 3)], 2),
        (1.0, 0.1, [(4, 1)], 4),
    ],
)
def test_how_many_shares_the_nodes_hold(cpus, gpus, nodes, count):
    assert _room(ResourcesConfig(cpus=cpus, gpus=gpus), nodes) == count


def test_too_much_is_refused_with_what_is_there_and_what_was_asked():
    with pytest.raises(ValueError, match=r"tune\.resources: 4 CPUs and 0\.5 GPUs asked for, there are 2 CPUs and 0 G"):
        _require(TuneConfig(resources=ResourcesConfig(cpus=4.0, gpus=0.5)), [(2, 0)])
    with pytest.raises(ValueError, match=r"tune\.workers: 3 workers of 1 CPUs .* there are 2 CPUs and 0 GPUs here"):
        _require(TuneConfig(workers=3), [(2, 0)])
    _require(TuneConfig(workers=4, resources=ResourcesConfig(cpus=1.0, gpus=0.5)), [(8, 1), (8, 1)])
    with pytest.raises(ValueError, match="above 1 and not a whole number"):
        ResourcesConfig(gpus=1.5)


def test_a_choice_is_shown_in_words_and_gets_no_chart(tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tune").mkdir()
    header = f"trial,status,epochs,score,seconds,{RATE},{LOSS}"
    (tmp_path / "tune/trials.csv").write_text(
        f"{header}\n0,finished,2,0.25,1,0.1,none\n1,finished,2,0.5,1,0.2,dense_crf\n"
    )
    about = (
        "search: {data: tiny, variant: ours, metric: J}\nbest: {trial: 1, score: 0.5}\nbefore: {trial: 0, score: 0.25}"
    )
    (tmp_path / "tune/best.yaml").write_text(f"{about}\nparams: {{}}\n")
    loss = tiny_config.loss.model_copy(update={"regularizer": "dense_crf"})
    adopted = tiny_config.model_copy(update={"loss": loss})
    found = read_search(Params(adopted, {"ours": adopted}))
    assert found.changes == ((RATE, 0.1, 0.2, 1e-3), (LOSS, "none", "dense_crf", "dense_crf"))
    assert [chart.title for chart in found.charts] == [f"score against {RATE}"]
    assert not found.is_adopted, "the rate is another"


def test_a_trial_on_disk_reads_back_and_a_broken_one_is_named(tmp_path):
    kept = TrialStore(tmp_path)
    first = Trial(1, {RATE: 0.5, LOSS: "none"}, "abc", status="failed", error="nan", history=[{"epoch": 1}])
    second = Trial(0, {RATE: 0.25, LOSS: "none"}, "def", score=0.5)
    for trial in (first, second, first):
        kept.write(trial)
    assert kept.known == [] and TrialStore(tmp_path).known == [second, first]
    (tmp_path / "trial-0001.json").write_text('{"number": 1')
    with pytest.raises(ValueError, match=r"trial-0001\.json: not a trial of a search .*; remove its folder"):
        TrialStore(tmp_path)


@pytest.fixture
def mlflow_calls(monkeypatch) -> list[tuple]:
    """What the follower asks of MLflow: (what, run)."""
    calls: list[tuple] = []

    def open_run(record, run_id="", parent="", began=None) -> str:
        calls.append(("open", run_id))
        return run_id or f"new-{record.name}"

    def write(record, run_id, parent) -> str:
        calls.append(("write", run_id))
        return run_id or "written"

    monkeypatch.setattr(tracking, "open_run", open_run)
    monkeypatch.setattr(tracking, "write", write)
    monkeypatch.setattr(tracking, "close_run", lambda run_id, status: calls.append((status, run_id)))
    monkeypatch.setattr(tracking, "delete_run", lambda run_id: calls.append(("delete", run_id)))
    monkeypatch.setattr(tracking, "log_live", lambda run_id, rows: calls.append(("epochs", run_id, rows)))
    return calls


def follower(known: list[Trial], keep) -> SearchCallback:
    def record_of(number, values, history) -> SimpleNamespace:
        return SimpleNamespace(name=number)

    return SearchCallback(6, 2, [{RATE: 0.5}], "parent", record_of, lambda: None, known, keep)


def ray_trial(name: str, rate: float) -> SimpleNamespace:
    return SimpleNamespace(trial_id=name, config={RATE: rate}, error_file="")


def test_after_an_interruption_a_trial_keeps_its_number_and_its_run(mlflow_calls):
    known = [
        Trial(0, {RATE: 0.5}, "run-0", True, "finished", score=0.1, history=[{"epoch": 1}], at=7.0),
        Trial(2, {RATE: 0.3}, "run-2"),
        Trial(4, {RATE: 0.4}, "run-4", status="failed", is_recorded=True),
    ]
    kept: list[tuple] = []
    seen = follower(known, lambda trial: kept.append((trial.number, trial.status, trial.is_recorded)))
    seen.begin()
    assert mlflow_calls == [("write", "run-0")], "MLflow had not had all of it"
    assert seen.seconds >= 7
    trials = [ray_trial("a", 0.3), ray_trial("b", 0.6), ray_trial("c", 0.7)]
    for trial in (trials[2], trials[0], trials[1]):  # they start in any order
        seen.on_trial_start(1, trials, trial)
    assert {trial.number: trial.run_id for trial in seen.trials} == {
        0: "run-0",
        1: "new-1",
        2: "run-2",
        3: "new-3",
        4: "run-4",
    }
    assert [trial.values[RATE] for trial in seen.trials] == [0.5, 0.6, 0.3, 0.7, 0.4]
    row = {"row": {"epoch": 1, "holdout_score": 0.2}, "score": 0.2, "chosen_by": "J", "time_total_s": 1.0}
    seen.on_trial_result(1, trials, trials[0], row)
    seen.on_trial_complete(1, trials, trials[0])
    assert kept[-2:] == [(2, "stopped", False), (2, "stopped", True)], "it is kept before MLflow is told, and after"
    assert not [call for call in mlflow_calls if call[0] == "delete"]
    seen.stop_rest()
    assert Counter(trial.status for trial in seen.trials) == {"stopped": 3, "finished": 1, "failed": 1}


def test_a_trial_that_an_interruption_left_ends_with_the_time_of_the_search(mlflow_calls):
    seen = follower([Trial(0, {RATE: 0.3}, "run-0", score=0.2, history=[{"epoch": 1}])], lambda trial: None)
    seen.stop_rest()
    assert [(one.status, one.score) for one in seen.trials] == [("stopped", 0.2)]
    assert mlflow_calls == [("write", "run-0")]


def test_a_population_that_begins_again_takes_its_runs_in_order(mlflow_calls):
    seen = follower([Trial(0, {}, "run-0"), Trial(1, {}, "run-1")], lambda trial: None)
    trials = [ray_trial("a", 0.5), ray_trial("b", 0.6), ray_trial("c", 0.7)]
    for trial in reversed(trials):
        seen.on_trial_start(1, trials, trial)
    assert [(one.number, one.run_id, one.values[RATE]) for one in seen.trials] == [
        (0, "run-0", 0.5),
        (1, "run-1", 0.6),
        (2, "new-2", 0.7),
    ]


def epochs(*scores: float) -> list[dict]:
    return [{"epoch": epoch, "holdout_score": score} for epoch, score in enumerate(scores, 1)]


def report(history: list[dict], **more) -> dict:
    return {"row": history[-1], "score": 0.5, "chosen_by": "J", "time_total_s": 1.0} | more


# what MLflow has of a member, and what its next report has come from: the same, more, or less and other
@pytest.mark.parametrize(
    ("before", "after", "is_another"),
    [
        (epochs(0.1), epochs(0.1, 0.2), False),
        (epochs(0.1, 0.2, 0.3), epochs(0.1, 0.2), True),  # killed before Ray Tune had kept the third
        (epochs(0.1, 0.2), epochs(0.1, 0.9, 0.3), True),  # the weights of another member, as far as itself
        (epochs(0.1), epochs(0.4, 0.9, 0.3), True),  # of one that was an epoch ahead
        (epochs(0.1, 0.2, 0.3), epochs(0.4, 0.9), True),  # of one that was behind
    ],
)
def test_a_members_curve_is_that_of_its_weights_in_mlflow_too(mlflow_calls, before, after, is_another):
    seen = follower([Trial(0, {RATE: 0.3}, "old", ray_id="a", history=before)], lambda trial: None)
    one = ray_trial("a", 0.3)
    seen.on_trial_start(1, [one], one)
    mlflow_calls.clear()
    seen.on_trial_result(1, [one], one, report(after, rows=json.dumps(after)))
    (trial,) = seen.trials
    assert trial.history == after
    if not is_another:
        assert mlflow_calls == [("epochs", "old", after)]
    else:
        assert mlflow_calls == [("delete", "old"), ("open", ""), ("epochs", "new-0", after)]


def test_what_a_server_that_was_away_has_not_taken_is_brought_at_the_end(mlflow_calls, monkeypatch):
    """Trials begin, report, lose their curve and end meanwhile; one of them had begun before, in another run."""
    is_away = [True]
    for module in (pipelines.tuning.search_callback, tracking):
        monkeypatch.setattr(module, "silence", lambda: "gone" if is_away[0] else "")
    known = [Trial(0, {RATE: 0.3}, "old", ray_id="a", history=epochs(0.1, 0.2)), Trial(1, {RATE: 0.4}, "", ray_id="b")]
    kept: dict[int, Trial] = {}
    seen = follower(known, lambda trial: kept.update({trial.number: replace(trial, replaced=[*trial.replaced])}))
    one, two = ray_trial("a", 0.3), ray_trial("b", 0.4)
    for trial in (one, two):
        seen.on_trial_start(1, [one, two], trial)
    seen.on_trial_result(1, [one, two], one, report(epochs(0.9)))  # of other weights than the curve it had
    seen.on_trial_complete(1, [one, two], one)
    seen.on_trial_error(1, [one, two], two)
    assert mlflow_calls == []
    assert (kept[0].run_id, kept[0].replaced, kept[0].status) == ("", ["old"], "stopped"), "an interruption loses none"
    is_away[0] = False
    seen.complete_records()
    assert mlflow_calls == [("write", ""), ("delete", "old"), ("write", ""), ("FAILED", "written")]
    assert all(trial.is_recorded and not trial.replaced for trial in seen.trials)
    mlflow_calls.clear()
    seen.complete_records()
    assert mlflow_calls == []


def test_a_trial_without_a_copied_state_begins_its_curve_again(mlflow_calls):
    seen = follower([Trial(0, {RATE: 0.3}, "old", history=epochs(0.1, 0.2))], lambda trial: None)
    one = ray_trial("a", 0.3)
    seen.on_trial_start(1, [one], one)
    seen.on_trial_result(1, [one], one, report(epochs(0.1)))
    assert seen.trials[0].history == epochs(0.1) and ("delete", "old") in mlflow_calls


def test_a_member_that_has_trained_its_last_epoch_is_neither_paused_nor_copied(tiny_config):
    space = {RATE: {"low": 1e-5, "high": 1e-1}}
    stages = {"train": {"stage1": {"epochs": 2}, "stage2": {"epochs": 1}}}
    config = Config.model_validate(merge(tiny_config.model_dump(mode="json"), stages))
    population = scheduling(searching(config, searcher="pbt", trials=2, space=space), [])

    def decided(epoch: int) -> str:
        result = {"training_iteration": epoch, "row/epoch": epoch, "row/holdout_score": 0.5}  # flat, as Ray has it
        return population.on_trial_result(None, "a member that Ray's population does not know", result)

    assert decided(3) == "CONTINUE"
    with pytest.raises(KeyError, match="does not know"):
        decided(2)


def ended(number: int, rate: float, scores: list[float], status: str = "finished") -> Trial:
    history = [{"epoch": epoch, "holdout_score": score} for epoch, score in enumerate(scores, 1)]
    score = max(scores) if scores else None
    return Trial(number, {RATE: rate}, "run", status=status, score=score, history=history)


def test_what_goes_on_draws_other_values_than_those_that_have_ended(tiny_config):
    space = {RATE: {"low": 1e-5, "high": 1e-1}}
    config = searching(tiny_config, trials=12, space=space)

    def drawn(planned: list[dict], known: list[Trial], count: int) -> list[float]:
        search = proposing(config, planned, known)
        assert search["num_samples"] == 12 - len(known)
        return [search["search_alg"].suggest(str(number))[RATE] for number in range(count)]

    first = drawn([{RATE: 1e-3}], [], 6)
    assert first[0] == pytest.approx(1e-3)
    known = [ended(number, rate, [0.1 * number]) for number, rate in enumerate(first[:5])]
    after = drawn([{RATE: first[5]}], known, 7)
    assert after[0] == pytest.approx(first[5]), "what had not ended comes first"
    together = [*first[:5], *after]
    assert min(abs(a / b - 1) for a in together for b in together if a is not b) > 1e-3


def test_optuna_searches_near_the_best_of_the_trials_that_had_ended(tiny_config):
    config = searching(tiny_config, trials=40, space={RATE: {"low": 1e-5, "high": 1e-1}})
    rates = [10 ** (-5 + 4 * k / 19) for k in range(20)]
    known = [ended(k, rate, [1.0 if 8 <= k <= 9 else 0.0]) for k, rate in enumerate(rates)]
    known += [ended(20, 0.05, [], "failed")]
    search = proposing(config, [], known)["search_alg"]
    drawn = [search.suggest(str(number))[RATE] for number in range(19)]
    near = sum(rates[6] < rate < rates[11] for rate in drawn)
    assert near > 19 / 2, "a quarter of the range, which alone had a score"


@pytest.mark.parametrize(("scheduler", "decision"), [("asha", "STOP"), ("none", "CONTINUE")])
def test_a_weak_trial_is_measured_by_those_that_had_ended(tiny_config, scheduler, decision):
    space = {RATE: {"low": 1e-5, "high": 1e-1}}
    config = searching(tiny_config, trials=9, grace_period=1, reduction_factor=2, scheduler=scheduler, space=space)
    known = [ended(number, 1e-3, [0.5 + 0.01 * number, 0.6]) for number in range(4)]
    stops = scheduling(config, known)
    weak = SimpleNamespace(trial_id="weak")
    stops.on_trial_add(None, weak)
    assert stops.on_trial_result(None, weak, {"training_iteration": 1, "score": 0.1}) == decision


def test_a_trial_that_goes_on_from_its_state_ends_where_it_would_have(tiny_data, tmp_path):
    inputs = WorkerInputs(tiny_data.index, tiny_data.scribbles, tiny_data.roots)
    config = tiny_data.config
    rows: list[dict] = []
    state = State()

    def on_epoch(report: dict) -> None:
        rows.append(report)
        if report["row"]["epoch"] in (1, 2):  # within the first stage, and at its end
            state.save(tmp_path / f"{report['row']['epoch']:.0f}.pt")

    whole, _ = train_both(config, inputs, on_epoch, state)
    for epoch in (1, 2):
        again: list[dict] = []
        rest, _ = train_both(config, inputs, again.append, State.load(tmp_path / f"{epoch}.pt"))
        assert again == rows[epoch:]
        for name, weights in whole.state_dict().items():
            assert torch.equal(weights, rest.state_dict()[name]), name


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("made")
    make_place(place)
    return place


def search(place: Path) -> subprocess.Popen:
    code = environment(place, PYTHONPATH=str(PROJECT))
    command = [sys.executable, "-m", "pipelines.tune"]
    return subprocess.Popen(command, cwd=place, env=code, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def killed(place: Path, count: int, is_enough) -> str:
    """Search until so many trials are as they should be, then kill the driver -> what it said."""
    running = search(place)
    try:
        for _ in range(6000):
            if sum(map(is_enough, kept(place))) >= count or running.poll() is not None:
                break
            time.sleep(0.05)
        assert running.poll() is None, running.communicate()[0]
    finally:
        running.send_signal(signal.SIGKILL)
    return running.communicate(timeout=60)[0]


def kept(place: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in place.glob("resume/*/trial-*.json")]


def finished(place: Path) -> tuple[list[dict], str]:
    """Rows of the search after going on, and what it said; all of MLflow's runs have ended, one a row."""
    from mlflow import MlflowClient

    running = search(place)
    said = running.communicate(timeout=550)[0]
    assert running.returncode == 0, said
    with open(place / "tune/trials.csv") as file:
        rows = list(csv.DictReader(file))
    client = MlflowClient(f"sqlite:///{place / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("ssvos-tune").experiment_id])
    (parent,) = (run for run in runs if run.data.tags["stage"] == "tune")
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(int(run.data.tags["trial"]) for run in children) == [int(row["trial"]) for row in rows]
    assert {run.info.status for run in runs} == {"FINISHED"} and len(runs) == len(rows) + 1
    for run in children:
        epochs = [metric.step for metric in client.get_metric_history(run.info.run_id, "holdout_score")]
        assert epochs == list(range(1, 1 + int(rows[int(run.data.tags["trial"])]["epochs"])))
    assert not list((place / "resume").glob("*-tune-*"))
    return rows, said


def smallest(place: Path, made: Path, **tune) -> Path:
    """A place with a search of trainings of two steps."""
    shutil.copytree(made, place, symlinks=True)
    edit(str(place / "params.yaml"), tune={"scheduler": "none"} | tune)
    return place


@pytest.mark.timeout(600)
def test_a_search_killed_at_trial_5_of_12_goes_on_to_12_and_repeats_none(made, tmp_path):
    place = smallest(tmp_path / "place", made, trials=12, scheduler="asha")
    killed(place, 5, lambda trial: trial["status"] != "running")
    before = {trial["number"]: trial for trial in kept(place) if trial["status"] != "running"}
    assert 5 <= len(before) < 12
    rows, said = finished(place)
    assert [int(row["trial"]) for row in rows] == list(range(12))
    run_now = {int(line.split()[1]) for line in said.splitlines() if line.startswith("trial ")}
    assert run_now == set(range(12)) - set(before)
    for number, trial in before.items():
        assert float(rows[number]["score"]) == trial["score"]
        assert float(rows[number][RATE]) == trial["values"][RATE]
    assert len({row[RATE] for row in rows}) == 12


@pytest.mark.timeout(600)
def test_a_killed_population_goes_on_with_its_weights(made, tmp_path):
    stages = {"stage1": {"epochs": 2}}
    place = smallest(tmp_path / "place", made, trials=3, searcher="pbt", trial={"train": stages})
    killed(place, 2, lambda trial: len(trial["history"]) >= 2)
    assert len(kept(place)) == 3
    rows, said = finished(place)
    assert "the search goes on" in said or "the population begins again" in said
    assert [row["epochs"] for row in rows] == ["3", "3", "3"]
    lows, highs = (1e-4, 0.1), (1e-2, 5.0)
    for row in rows:
        for key, low, high in zip((RATE, "loss.weight"), lows, highs, strict=True):
            assert low <= float(row[key]) <= high


@pytest.mark.timeout(600)
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two workers need two CPUs")
def test_two_workers_of_a_trial_come_to_what_one_process_does(made, tmp_path):
    space = {WIDTH: {"low": 4, "high": 8}}
    rows, _ = finished(smallest(tmp_path / "alone", made, trials=3, searcher="random", space=space))
    assert int(rows[0][WIDTH]) == 8 and {int(row[WIDTH]) for row in rows} <= set(range(4, 9))
    (both,), _ = finished(smallest(tmp_path / "both", made, trials=1, workers=2))
    assert float(both["score"]) == pytest.approx(float(rows[0]["score"]), abs=2e-3)
    assert both["epochs"] == rows[0]["epochs"] == "2"
