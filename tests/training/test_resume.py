"""A stage that is interrupted at any step and resumed gives the same weights, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from bad_place import edit, make_place
from conftest import changed, run
from ruamel.yaml import YAML

from pipelines.cluster.checkpoint_actor import CheckpointActor
from ssvos.config import AugmentConfig
from ssvos.models.checkpoint import load_checkpoint
from ssvos.models.network import Network
from ssvos.training.fit import fit_from_file
from ssvos.training.train_state import TrainState, from_bytes, to_bytes
from ssvos.training.trainer import first_network, fit

STEPS = 3  # per epoch


@pytest.fixture(scope="module")
def config(tiny_config):
    """Three epochs of three steps, with every option that adds to the state."""
    stage = {"epochs": 3, "clips_per_epoch": 2 * STEPS, "save_every": 1, "warmup_steps": 5, "ramp_steps": 6}
    base = changed(tiny_config, **stage, ema_decay=0.8, grad_clip_norm=1.0, frame_stride=2)
    augment = AugmentConfig(flip=0.5, reverse=0.5, scale_max=1.4, rotation=15.0, color=0.4)
    return base.model_copy(update={"train": base.train.model_copy(update={"augment": augment})})


def fit_stage(config, data, resume: TrainState | None = None, seed: int = 0) -> tuple[TrainState, list[bytes]]:
    """The final state, and the states that were saved after the steps and the epochs."""
    network = first_network(config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})}))
    states = []

    def save(train_state: TrainState) -> None:
        states.append(to_bytes(train_state, "d"))

    done = fit(
        network,
        data,
        config,
        config.train.stage1,
        "cpu",
        lambda report: save(report.train_state),
        resume,
        save=save,
    )
    return done, states


def leaves(value: object, name: str = "") -> dict[str, object]:
    """The values of a state by dotted names."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {name: value}
    return {key: leaf for part, inner in items for key, leaf in leaves(inner, f"{name}.{part}").items()}


def assert_same(one: TrainState, two: TrainState) -> None:
    """Compare two states without the random states, on which nothing depends here."""
    first, second = (leaves({k: v for k, v in vars(state).items() if k != "random"}) for state in (one, two))
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]) if isinstance(value, torch.Tensor) else value == second[key], key


@pytest.fixture(scope="module")
def uninterrupted(config, tiny_data) -> tuple[TrainState, list[bytes]]:
    return fit_stage(config, tiny_data.load())


def test_the_compared_runs_take_clips_of_several_objects(config, tiny_data):
    source = tiny_data.load().fit
    specs = [s for epoch in range(3) for s in source.draw(config.train.stage1, config.train.seed, epoch)]
    assert len({spec.object_id for spec in specs}) > 1 and len({spec.video for spec in specs}) > 1


def test_a_state_is_saved_after_every_step_and_every_epoch(uninterrupted):
    positions = [(s.epoch, s.step) for s in (from_bytes(state)[0] for state in uninterrupted[1])]
    assert positions == [
        position for epoch in range(3) for position in [*((epoch, step + 1) for step in range(STEPS)), (epoch + 1, 0)]
    ]


@pytest.mark.parametrize("at", range(3 * (STEPS + 1)))
def test_a_run_resumed_at_any_step_ends_as_the_uninterrupted_one(uninterrupted, config, tiny_data, at):
    expected, states = uninterrupted
    saved, digest = from_bytes(states[at])
    # the new seed gives other random weights: all must come from the state
    resumed, later = fit_stage(config, tiny_data.load(), saved, seed=5)
    assert digest == "d" and len(later) == len(states) - at - 1
    assert_same(resumed, expected)
    assert [row["epoch"] for row in resumed.history] == [1, 2, 3]


def test_without_save_every_a_state_is_saved_after_each_epoch_only(config, tiny_data):
    done, states = fit_stage(changed(config, save_every=0, epochs=2), tiny_data.load())
    assert [from_bytes(state)[0].epoch for state in states] == [1, 2]
    assert done.step == 0 and not done.sums


def test_random_numbers_of_the_forward_pass_resume_from_the_saved_state(config, tiny_data, monkeypatch):
    """The network draws none, so noise is added here."""
    forward = Network.forward
    monkeypatch.setattr(
        Network, "forward", lambda self, frames, s: forward(self, frames + 0.1 * torch.randn_like(frames), s)
    )
    short = changed(config, epochs=2)
    torch.manual_seed(3)
    done, states = fit_stage(short, tiny_data.load())
    torch.manual_seed(99)
    for at in (0, 2, 3, 4):
        resumed, _ = fit_stage(short, tiny_data.load(), from_bytes(states[at])[0])
        assert all(torch.equal(value, resumed.weights[key]) for key, value in done.weights.items()), at


@pytest.fixture
def fit_file(config, tiny_data, tmp_path) -> Path:
    values = changed(config, clips_per_epoch=24).model_dump(mode="json")
    values["data"]["sources"] = [{"name": "embedded", "layout": "davis", "root": str(tiny_data.roots["embedded"])}]
    values["fit"] = {"out": "run", "index": str(tiny_data.index), "scribbles": str(tiny_data.scribbles)}
    write(tmp_path / "fit.yaml", values)
    return tmp_path / "fit.yaml"


def write(path: Path, values: dict) -> None:
    with open(path, "w", encoding="utf-8") as file:
        YAML(typ="safe").dump(values, file)


def no_progress(_what, _total):
    raise AssertionError("the file names index and scribbles, so nothing is prepared")


def start_process(path: Path) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ssvos.cli", "fit", str(path), "--device", "cpu"]
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def save_times(out: Path) -> set[int]:
    """Modification times of the latest state, which differ between states."""
    times = set()
    for path in out.glob("resume-????????????.pt"):
        with suppress(FileNotFoundError):  # the training process may be renaming it
            times.add(path.stat().st_mtime_ns)
    return times


def test_a_killed_process_resumes_and_writes_the_bytes_of_an_uninterrupted_one(fit_file, tmp_path):
    rng = random.Random()
    out, positions = tmp_path / "run", []
    for _ in range(2):
        process, seen = start_process(fit_file), save_times(out)
        for _ in range(rng.randint(1, 6)):
            while process.poll() is None and save_times(out) <= seen:
                time.sleep(0.003)
            seen |= save_times(out)
        time.sleep(rng.uniform(0.0, 0.1))  # the process may be in a step, or writing a file
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL and not (out / "checkpoint.pt").exists()
        state = next(path for path in (*out.glob("resume-????????????.pt"), *out.glob("resume-*-before.pt")))
        positions.append(from_bytes(state.read_bytes())[0].position())
    process = start_process(fit_file)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert f"resuming from {positions[-1]}" in output, positions
    names = sorted(path.name for path in out.iterdir())
    assert names == ["checkpoint.pt", "history.csv"], "no state remains, nor a partly written file"
    whole = tmp_path / "whole.yaml"
    values = YAML(typ="safe").load(fit_file.read_text())
    write(whole, values | {"fit": values["fit"] | {"out": "whole"}})
    fit_from_file(whole, lambda _: None, no_progress, "cpu")
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), (name, positions)
    assert load_checkpoint(out / "checkpoint.pt")[1].about["epoch"] in (1, 2, 3)


class Interrupted(Exception):
    pass


def interrupt_fit(path: Path, after: int) -> list[str]:
    """The log lines of a fit that is interrupted after this number of steps."""
    lines, count = [], 0
    step = torch.optim.Adam.step

    def stopping(self, *args):
        nonlocal count
        count += 1
        if count > after:
            raise Interrupted
        return step(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", stopping)
        with pytest.raises(Interrupted):
            fit_from_file(path, lines.append, no_progress, "cpu")
    return lines


def test_the_state_of_a_run_with_other_parameters_is_reported_and_not_changed(fit_file, tmp_path):
    interrupt_fit(fit_file, 3)
    (old_state,) = (tmp_path / "run").glob("resume-????????????.pt")
    before = old_state.read_bytes()
    values = YAML(typ="safe").load(fit_file.read_text())
    values["train"]["stage1"] |= {"learning_rate": 2e-3, "epochs": 1, "clips_per_epoch": 4}
    write(fit_file, values)
    lines = []
    fit_from_file(fit_file, lines.append, no_progress, "cpu")
    assert any(str(old_state) in line and "other parameters or data" in line for line in lines)
    assert not any("resuming" in line for line in lines) and old_state.read_bytes() == before
    old_state.with_name(f"{old_state.stem}-before.pt").unlink()
    assert sorted(path.name for path in old_state.parent.iterdir()) == ["checkpoint.pt", "history.csv", old_state.name]


def test_save_every_may_change_before_a_run_is_resumed(fit_file):
    interrupt_fit(fit_file, 3)
    values = YAML(typ="safe").load(fit_file.read_text())
    values["train"]["stage1"]["save_every"] = 2
    write(fit_file, values)
    assert "resuming from epoch 1, after 3 steps" in interrupt_fit(fit_file, 1)


def test_partial_sums_of_several_workers_are_their_mean(config, tiny_data, monkeypatch):
    """Every rank resumes from rank 0's state, so the sums in it must be those of all ranks."""
    states = []
    monkeypatch.setattr("ssvos.training.trainer.mean_over_ranks", lambda values: 2 * values)
    network = first_network(config)
    fit(
        network,
        tiny_data.load(),
        changed(config, epochs=1),
        changed(config, epochs=1).train.stage1,
        "cpu",
        lambda _: None,
        save=lambda train_state: states.append(list(train_state.sums)),
    )
    monkeypatch.undo()
    plain = run(changed(config, epochs=1, clips_per_epoch=2), tiny_data.load()).history[0]
    assert states[0][-1] == 2.0 and states[0][0] == pytest.approx(2 * plain["loss"])


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A prepared project whose stages train in their own process."""
    make_place(tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    for name in ("RAY_ADDRESS", "SSVOS_DEBUG", "DVC_ROOT"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("SSVOS_WORKERS", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setattr(sys, "argv", ["train", "--variant", "pce", "--stage", "stage1"])
    edit("params.yaml", train={"stage1": {"clips_per_epoch": 8, "epochs": 2, "save_every": 2}})
    return tmp_path / "place"


def test_a_stage_of_the_pipeline_resumes_within_an_epoch(place, monkeypatch, capsys):
    """MLflow has the speed of every epoch, which history.csv does not hold."""
    from mlflow import MlflowClient

    from pipelines import train

    steps, step = [], torch.optim.Adam.step

    def stopping(self, *args):
        if len(steps) == 7:
            raise Interrupted
        steps.append(1)
        return step(self, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", stopping)
    with pytest.raises(Interrupted):
        train.main()
    (folder,) = Path("resume").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["mlflow.run", "progress-before.pt", "progress.pt"]
    assert from_bytes((folder / "progress.pt").read_bytes())[0].position() == "epoch 2, after 2 steps"
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, *args: (steps.append(1), step(self, *args))[1])
    (folder / "progress.pt").write_bytes(b"cut off")  # the previous state is the end of the first epoch
    train.main()
    assert len(steps) == 7 + 4 and not folder.exists()
    assert capsys.readouterr().out.count("epoch 1/2") == 1
    out = Path("runs/tiny/pce/stage1")
    contents = {path.name: path.read_bytes() for path in out.iterdir()}
    train.main()
    assert contents == {path.name: path.read_bytes() for path in out.iterdir()} and len(steps) == 7 + 4 + 8
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    runs = client.search_runs([client.get_experiment_by_name("ssvos").experiment_id])
    assert len(runs) == 2
    for one in runs:
        for key in ("loss", "clips_per_second", "data_wait_share", "peak_memory_gb"):
            curve = client.get_metric_history(one.info.run_id, key)
            assert [point.step for point in curve] == [1, 2] and all(point.value > 0 for point in curve), key
    columns = contents["history.csv"].decode().splitlines()[0].split(",")
    assert "loss" in columns and not {"clips_per_second", "data_wait_share", "peak_memory_gb"} & {*columns}


def test_loader_processes_do_not_change_the_checkpoint(place, monkeypatch):
    from pipelines import train

    checkpoints = []
    for loaders in ("0", "1"):
        monkeypatch.setenv("SSVOS_LOADERS", loaders)
        train.main()
        checkpoints.append(Path("runs/tiny/pce/stage1/checkpoint.pt").read_bytes())
    assert checkpoints[0] == checkpoints[1]


def test_a_stage_starts_from_its_init_checkpoint(place):
    from pipelines import train

    start = Path("runs/tiny/pce/stage2/checkpoint.pt")
    frozen = {"learning_rate": 1e-30, "weight_decay": 0.0, "epochs": 1, "init_checkpoint": str(start)}
    edit("params.yaml", train={"stage1": frozen})
    train.main()
    before, after = (load_checkpoint(path)[0].state_dict() for path in (start, "runs/tiny/pce/stage1/checkpoint.pt"))
    assert all((value - after[key]).abs().max() < 1e-20 for key, value in before.items())
    edit("params.yaml", train={"stage1": {"init_checkpoint": "runs/tiny/ours/stage1/checkpoint.pt"}})
    with pytest.raises(
        ValueError, match=r"ours/stage1/checkpoint\.pt: its network has model\.attention\.kind scribble"
    ):
        train.main()


def test_the_checkpoint_actor_hands_on_rows_states_and_warnings():
    actor = CheckpointActor(b"first")
    assert actor.latest() == b"first" and actor.take() == ([], None)
    actor.put({}, "", b"in an epoch")
    actor.put({}, "a warning", None)
    assert actor.latest() == b"in an epoch"
    assert actor.take() == ([({}, "a warning")], b"in an epoch") and actor.take() == ([], None)
    actor.put({"epoch": 1.0}, "epoch 1/2", b"its end")
    assert actor.take() == ([({"epoch": 1.0}, "epoch 1/2")], b"its end")
