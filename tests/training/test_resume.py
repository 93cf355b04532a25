"""A stage that was stopped at any step goes on as if it had not been: the same weights, bit for bit."""

import logging
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
from ssvos.training.train_state import Kept, TrainState, from_bytes, run_digest, to_bytes
from ssvos.training.trainer import first_network, fit

STEPS = 3  # an epoch


@pytest.fixture(scope="module")
def config(tiny_config):
    """Three epochs of three steps, with all that carries something from step to step."""
    stage = {"epochs": 3, "clips_per_epoch": 2 * STEPS, "save_every": 1, "warmup_steps": 5, "ramp_steps": 6}
    made = changed(tiny_config, **stage, ema_decay=0.8, grad_clip_norm=1.0, frame_stride=2)
    augment = AugmentConfig(flip=0.5, reverse=0.5, scale_max=1.4, rotation=15.0, color=0.4)
    return made.model_copy(update={"train": made.train.model_copy(update={"augment": augment})})


def fitted(config, data, resume: TrainState | None = None, seed: int = 0) -> tuple[TrainState, list[bytes]]:
    """The finished progress, and its states at every step and at every epoch's end."""
    network = first_network(config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})}))
    states = []

    def keep(progress: TrainState) -> None:
        states.append(to_bytes(progress, "d"))

    done = fit(
        network,
        data,
        config,
        config.train.stage1,
        "cpu",
        lambda report: keep(report.progress),
        resume,
        save=keep,
    )
    return done, states


def leaves(value: object, name: str = "") -> dict[str, object]:
    """All that a state holds, by dotted names."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {name: value}
    return {key: leaf for part, inner in items for key, leaf in leaves(inner, f"{name}.{part}").items()}


def assert_same(one: TrainState, two: TrainState) -> None:
    """But for the random states, on which nothing depends here."""
    first, second = (leaves({k: v for k, v in vars(p).items() if k != "random"}) for p in (one, two))
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]) if isinstance(value, torch.Tensor) else value == second[key], key


@pytest.fixture(scope="module")
def whole(config, tiny_data) -> tuple[TrainState, list[bytes]]:
    return fitted(config, tiny_data.load())


def test_the_runs_compared_follow_several_objects(config, tiny_data):
    source = tiny_data.load().fit
    specs = [s for epoch in range(3) for s in source.draw(config.train.stage1, config.train.seed, epoch)]
    assert len({spec.object_id for spec in specs}) > 1 and len({spec.video for spec in specs}) > 1


def test_a_state_is_handed_out_at_every_step_and_every_epochs_end(whole):
    places = [(p.epoch, p.step) for p in (from_bytes(state)[0] for state in whole[1])]
    assert places == [
        place for epoch in range(3) for place in [*((epoch, step + 1) for step in range(STEPS)), (epoch + 1, 0)]
    ]


@pytest.mark.parametrize("at", range(3 * (STEPS + 1)))
def test_a_run_resumed_at_any_step_ends_as_the_uninterrupted_one(whole, config, tiny_data, at):
    done, states = whole
    begun, digest = from_bytes(states[at])
    # other random weights to begin with: all must come from the state
    resumed, later = fitted(config, tiny_data.load(), begun, seed=5)
    assert digest == "d" and len(later) == len(states) - at - 1
    assert_same(resumed, done)
    assert [row["epoch"] for row in resumed.history] == [1, 2, 3]


def test_without_save_every_a_state_comes_at_epochs_ends_alone(config, tiny_data):
    done, states = fitted(changed(config, save_every=0, epochs=2), tiny_data.load())
    assert [from_bytes(state)[0].epoch for state in states] == [1, 2]
    assert done.step == 0 and not done.sums


def test_random_numbers_of_the_forward_pass_go_on_where_they_were(config, tiny_data, monkeypatch):
    """The network draws none; one that did would be resumed exactly as well."""
    forward = Network.forward
    monkeypatch.setattr(
        Network, "forward", lambda self, frames, s: forward(self, frames + 0.1 * torch.randn_like(frames), s)
    )
    short = changed(config, epochs=2)
    torch.manual_seed(3)
    done, states = fitted(short, tiny_data.load())
    torch.manual_seed(99)
    for at in (0, 2, 3, 4):
        resumed, _ = fitted(short, tiny_data.load(), from_bytes(states[at])[0])
        assert all(torch.equal(value, resumed.weights[key]) for key, value in done.weights.items()), at


@pytest.fixture
def fit_file(config, tiny_data, tmp_path) -> Path:
    longer = changed(config, clips_per_epoch=24)
    values = longer.model_dump(mode="json")
    values["data"]["sources"] = [{"name": "embedded", "layout": "davis", "root": str(tiny_data.roots["embedded"])}]
    values["fit"] = {"out": "run", "index": str(tiny_data.index), "scribbles": str(tiny_data.scribbles)}
    write(tmp_path / "fit.yaml", values)
    return tmp_path / "fit.yaml"


def write(path: Path, values: dict) -> None:
    with open(path, "w", encoding="utf-8") as file:
        YAML(typ="safe").dump(values, file)


def quiet(_what, _total):
    raise AssertionError("index and scribbles are given")


def begin(path: Path) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ssvos.cli", "fit", str(path), "--device", "cpu"]
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def states_of(out: Path) -> set[int]:
    """What tells a state from those before it; the file may just be renamed."""
    found = set()
    for path in out.glob("resume-????????????.pt"):
        with suppress(FileNotFoundError):
            found.add(path.stat().st_mtime_ns)
    return found


def test_a_killed_process_goes_on_to_the_bytes_of_one_that_was_not(fit_file, tmp_path):
    rng = random.Random()
    out, killed = tmp_path / "run", []
    for _ in range(2):
        process, seen = begin(fit_file), states_of(out)
        for _ in range(rng.randint(1, 6)):
            while process.poll() is None and states_of(out) <= seen:
                time.sleep(0.003)
            seen |= states_of(out)
        time.sleep(rng.uniform(0.0, 0.1))  # the moment may be within a step, or within a file that is written
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL and not (out / "checkpoint.pt").exists()
        state = next(path for path in (*out.glob("resume-????????????.pt"), *out.glob("resume-*-before.pt")))
        killed.append(from_bytes(state.read_bytes())[0].place())
    process = begin(fit_file)
    said, errors = process.communicate()
    assert process.returncode == 0, errors
    assert f"going on from {killed[-1]}" in said, killed
    there = sorted(path.name for path in out.iterdir())
    assert there == ["checkpoint.pt", "history.csv"], "no state is left, nor a half-written one"
    whole = tmp_path / "whole.yaml"
    values = YAML(typ="safe").load(fit_file.read_text())
    write(whole, values | {"fit": values["fit"] | {"out": "whole"}})
    fit_from_file(whole, lambda _: None, quiet, "cpu")
    for name in there:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), (name, killed)
    assert load_checkpoint(out / "checkpoint.pt")[1].about["epoch"] in (1, 2, 3)


class Interrupted(Exception):
    pass


def interrupted(path: Path, after: int) -> list[str]:
    """What `ssvos fit` says until it is stopped in its step of this number."""
    said, count = [], 0
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
            fit_from_file(path, said.append, quiet, "cpu")
    return said


def test_a_state_of_other_parameters_is_told_and_left_alone(fit_file, tmp_path):
    interrupted(fit_file, 3)
    (left,) = (tmp_path / "run").glob("resume-????????????.pt")
    before = left.read_bytes()
    values = YAML(typ="safe").load(fit_file.read_text())
    values["train"]["stage1"] |= {"learning_rate": 2e-3, "epochs": 1, "clips_per_epoch": 4}
    write(fit_file, values)
    said = []
    fit_from_file(fit_file, said.append, quiet, "cpu")
    assert any(str(left) in line and "other parameters or data" in line for line in said)
    assert not any("going on" in line for line in said) and left.read_bytes() == before
    left.with_name(f"{left.stem}-before.pt").unlink()
    assert sorted(path.name for path in left.parent.iterdir()) == ["checkpoint.pt", "history.csv", left.name]


def test_how_often_a_state_is_saved_may_change_before_it_is_taken_up(fit_file):
    interrupted(fit_file, 3)
    values = YAML(typ="safe").load(fit_file.read_text())
    values["train"]["stage1"]["save_every"] = 2
    write(fit_file, values)
    assert "going on from epoch 1, after 3 steps" in interrupted(fit_file, 1)


def test_parameters_data_and_start_are_in_the_digest(config, tiny_data, tmp_path):
    files = [tiny_data.index, tiny_data.scribbles]
    (tmp_path / "other.pt").write_bytes(b"x")
    digests = [
        run_digest(config, "stage1", files),
        run_digest(config, "stage2", files),
        run_digest(changed(config, lr_decay=0.5), "stage1", files),
        run_digest(config, "stage1", [tmp_path / "other.pt", files[1]]),
        run_digest(config, "stage1", [*files, tmp_path / "other.pt"]),
    ]
    assert len(set(digests)) == len(digests)
    assert run_digest(changed(config, save_every=7), "stage1", files) == digests[0]


def a_state(epoch: int, digest: str = "d") -> bytes:
    return to_bytes(TrainState(epoch=epoch, weights={"a": torch.arange(5000.0)}), digest)


def cut_off(state: bytes) -> bytes:
    return state[: len(state) // 2]


def one_byte_changed(state: bytes) -> bytes:
    place = state.index(torch.arange(5000.0).numpy().tobytes()) + 4321
    return state[:place] + bytes([state[place] ^ 1]) + state[place + 1 :]


SPOIL = [cut_off, one_byte_changed, lambda _: b"", lambda _: b"no state at all"]


@pytest.mark.parametrize("spoil", SPOIL)
def test_of_two_states_the_one_before_replaces_a_broken_one(tmp_path, caplog, spoil):
    kept = Kept(tmp_path / "progress.pt", "d")
    assert kept.read() is None
    for epoch in (1, 2, 3):
        kept.write(a_state(epoch))
    assert kept.read().epoch == 3 and len(list(tmp_path.iterdir())) == 2
    kept.path.write_bytes(spoil(kept.path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert kept.read().epoch == 2
    assert caplog.text.count("progress.pt: no whole state") == 1
    kept.write(a_state(4))  # the broken one must not take the place of the one before
    kept.path.write_bytes(b"")
    assert kept.read().epoch == 2
    kept.before.write_bytes(b"")
    assert kept.read() is None


def test_a_process_killed_between_two_states_leaves_one(tmp_path, monkeypatch):
    kept = Kept(tmp_path / "progress.pt", "d")
    kept.write(a_state(1))
    monkeypatch.setattr("ssvos.training.train_state.write_bytes", lambda *_: (_ for _ in ()).throw(Interrupted))
    with pytest.raises(Interrupted):
        kept.write(a_state(2))
    assert kept.read().epoch == 1


def test_the_state_of_another_run_is_refused(tmp_path):
    Kept(tmp_path / "progress.pt", "other").write(a_state(1, "other"))
    with pytest.raises(ValueError, match=r"progress\.pt: the state of a run with other parameters or data"):
        Kept(tmp_path / "progress.pt", "d").read()


def test_a_state_runs_no_code_when_it_is_read(tmp_path):
    class Code:
        def __reduce__(self):
            return open, (str(tmp_path / "it-ran"), "w")

    torch.save({"digest": "d", "progress": Code()}, tmp_path / "progress.pt")
    assert Kept(tmp_path / "progress.pt", "d").read() is None
    assert not (tmp_path / "it-ran").exists()


def test_partial_sums_of_several_workers_are_their_mean(config, tiny_data, monkeypatch):
    """Each rank goes on from rank 0's state, so that it must hold what all have come to."""
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
        save=lambda progress: states.append(list(progress.sums)),
    )
    monkeypatch.undo()
    plain = run(changed(config, epochs=1, clips_per_epoch=2), tiny_data.load()).history[0]
    assert states[0][-1] == 2.0 and states[0][0] == pytest.approx(2 * plain["loss"])


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A prepared project whose training is by its own process."""
    make_place(tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    for name in ("RAY_ADDRESS", "SSVOS_DEBUG", "DVC_ROOT"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("SSVOS_WORKERS", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setattr(sys, "argv", ["train", "--variant", "pce", "--stage", "stage1"])
    edit("params.yaml", train={"stage1": {"clips_per_epoch": 8, "epochs": 2, "save_every": 2}})
    return tmp_path / "place"


def test_a_stage_of_the_pipeline_goes_on_within_an_epoch(place, monkeypatch, capsys):
    """And MLflow has its speed, which no file holds."""
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
    assert from_bytes((folder / "progress.pt").read_bytes())[0].place() == "epoch 2, after 2 steps"
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, *args: (steps.append(1), step(self, *args))[1])
    (folder / "progress.pt").write_bytes(b"cut off")  # the one before it is the first epoch's end
    train.main()
    assert len(steps) == 7 + 4 and not folder.exists()
    assert capsys.readouterr().out.count("epoch 1/2") == 1
    out = Path("runs/tiny/pce/stage1")
    again = {path.name: path.read_bytes() for path in out.iterdir()}
    train.main()
    assert again == {path.name: path.read_bytes() for path in out.iterdir()} and len(steps) == 7 + 4 + 8
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    runs = client.search_runs([client.get_experiment_by_name("ssvos").experiment_id])
    assert len(runs) == 2
    for one in runs:
        for key in ("loss", "clips_per_second", "data_wait_share", "peak_memory_gb"):
            curve = client.get_metric_history(one.info.run_id, key)
            assert [point.step for point in curve] == [1, 2] and all(point.value > 0 for point in curve), key
    columns = again["history.csv"].decode().splitlines()[0].split(",")
    assert "loss" in columns and not {"clips_per_second", "data_wait_share", "peak_memory_gb"} & {*columns}


def test_clips_read_ahead_by_another_process_train_the_same_bytes(place, monkeypatch):
    from pipelines import train

    made = []
    for loaders in ("0", "1"):
        monkeypatch.setenv("SSVOS_LOADERS", loaders)
        train.main()
        made.append(Path("runs/tiny/pce/stage1/checkpoint.pt").read_bytes())
    assert made[0] == made[1]


def test_a_stage_begins_with_the_checkpoint_that_it_names(place):
    from pipelines import train

    start = "runs/tiny/ours/stage1/checkpoint.pt"
    same = Path("runs/tiny/pce/stage2/checkpoint.pt")
    still = {"learning_rate": 1e-30, "weight_decay": 0.0, "epochs": 1, "init_checkpoint": str(same)}
    edit("params.yaml", train={"stage1": still})
    train.main()
    begun, made = (load_checkpoint(path)[0].state_dict() for path in (same, "runs/tiny/pce/stage1/checkpoint.pt"))
    assert all((value - made[key]).abs().max() < 1e-20 for key, value in begun.items())
    edit("params.yaml", train={"stage1": {"init_checkpoint": start}})
    with pytest.raises(
        ValueError, match=r"ours/stage1/checkpoint\.pt: its network has model\.attention\.kind scribble"
    ):
        train.main()


def test_the_keeper_hands_on_rows_states_and_warnings():
    keeper = CheckpointActor(b"first")
    assert keeper.latest() == b"first" and keeper.take() == ([], None)
    keeper.put({}, "", b"in an epoch")
    keeper.put({}, "a warning", None)
    assert keeper.latest() == b"in an epoch"
    assert keeper.take() == ([({}, "a warning")], b"in an epoch") and keeper.take() == ([], None)
    keeper.put({"epoch": 1.0}, "epoch 1/2", b"its end")
    assert keeper.take() == ([({"epoch": 1.0}, "epoch 1/2")], b"its end")
