"""Faults made for real: killed workers, drivers and machines, a full disk, a tracking server that goes away.

What happens then, fault by fault: docs/reliability.md.
"""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import product
from pathlib import Path

import pytest
from bad_place import IMAGES, MASKS, edit, make_place
from cluster_head import OPEN, can_hide, free_port
from cluster_nodes import PORT, can_part, machines, wait_for_nodes
from object_store import KEYS, object_store
from sandbox import PROJECT, environment

from ssvos.scribbles.store import read_store_table
from ssvos.training.train_state import from_bytes

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not os.environ.get("SSVOS_FAULTS"), reason="minutes, on idle cores: make faults"),
]
EPOCHS = 5
TRAIN = ["pipelines.train", "--variant", "pce", "--stage", "stage1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A prepared project with a training of some seconds, a state a step."""
    place = tmp_path_factory.mktemp("made") / "place"
    make_place(place)
    stage = {"clips_per_epoch": 32, "epochs": EPOCHS, "save_every": 1}
    edit(f"{place}/params.yaml", train={"stage1": stage})
    return place


@pytest.fixture
def place(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "place", symlinks=True)


class Running:
    """A stage in a process of its own; what it says goes to a file."""

    def __init__(self, place: Path, command: list[str], within: tuple[str, ...] = (), **more: str) -> None:
        self.said, self.mark = place / f"said-{uuid.uuid4().hex[:6]}", f"SSVOS_TEST={uuid.uuid4().hex}"
        name, _, value = self.mark.partition("=")
        variables = environment(place, PYTHONPATH=str(PROJECT), **more) | {name: value}
        with open(self.said, "w") as file:
            self.process = subprocess.Popen(
                [*within, sys.executable, "-m", *command], cwd=place, env=variables, stdout=file, stderr=file
            )

    def until(self, is_so: Callable[[], object]) -> object:
        """What `is_so` gives in the end; the stage must be running still."""
        for _ in range(60_000):
            assert self.process.poll() is None, f"it ended before\n{self.said.read_text()}"
            if found := is_so():
                return found
            time.sleep(0.002)
        raise AssertionError(f"nothing in two minutes\n{self.said.read_text()}")

    def workers(self, title: str) -> list[int]:
        """Its processes under Ray whose title begins like this."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (process / "cmdline").read_bytes().startswith(title.encode()):
                    found += [int(process.name)] * (self.mark.encode() in (process / "environ").read_bytes())
        return found

    def ended(self) -> str:
        """What it said, once it has ended without an error."""
        assert self.process.wait(timeout=300) == 0, self.said.read_text()
        return self.said.read_text()

    def lines(self) -> list[int]:
        """The epochs that it has told of."""
        return [int(epoch) for epoch in re.findall(r"  epoch (\d+)/", self.said.read_text())]


@contextmanager
def running(place: Path, command: list[str], within: tuple[str, ...] = (), **more: str) -> Iterator[Running]:
    one = Running(place, command, within, **more)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.wait()


def states(place: Path) -> list[Path]:
    return list(place.glob("resume/*/progress.pt"))


def curve(place: Path, uri: str = "") -> list[int]:
    """The epochs of the training's one run in MLflow, which a killed driver leaves to be written later."""
    from mlflow import MlflowClient

    client = MlflowClient(uri or f"sqlite:///{place / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("ssvos").experiment_id])
    assert run.info.status == "FINISHED"
    return sorted(point.step for point in client.get_metric_history(run.info.run_id, "loss"))


CHECKPOINT, HISTORY = "runs/tiny/pce/stage1/checkpoint.pt", "runs/tiny/pce/stage1/history.csv"
two_cpus = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two workers need two CPUs")


@pytest.fixture(scope="module")
def undisturbed(made, tmp_path_factory) -> Path:
    """Trained by two workers."""
    place = shutil.copytree(made, tmp_path_factory.mktemp("whole") / "place", symlinks=True)
    with running(place, TRAIN, SSVOS_WORKERS="2") as one:
        one.ended()
    return place


def assert_nothing_is_missing(place: Path, undisturbed: Path) -> None:
    """The weights bit for bit, every epoch once, and no state left over."""
    assert (place / CHECKPOINT).read_bytes() == (undisturbed / CHECKPOINT).read_bytes()
    rows, others = (list(csv.DictReader((one / HISTORY).read_text().splitlines())) for one in (place, undisturbed))
    for row, other in zip(rows, others, strict=True):  # an epoch's sums are put together from two parts
        assert [float(value) for value in row.values()] == pytest.approx([float(value) for value in other.values()])
    assert curve(place) == list(range(1, EPOCHS + 1))
    assert not list((place / "resume").glob("tiny-*"))


@two_cpus
def test_a_killed_worker_and_a_killed_driver_lose_no_epoch(place, undisturbed):
    with running(place, TRAIN, SSVOS_WORKERS="2") as first:
        first.until(lambda: states(place))
        os.kill(first.until(lambda: first.workers("ray::RayTrainWorker"))[-1], signal.SIGKILL)
        first.until(lambda: len(first.lines()) >= 2)
        first.process.send_signal(signal.SIGKILL)
        told = first.lines()
    assert told == sorted(set(told)), "no epoch is told twice"
    with running(place, TRAIN, SSVOS_WORKERS="2") as second:
        assert f"epoch {EPOCHS}/{EPOCHS}" in second.ended()
        assert second.lines()[0] > 1, "it begins where the first was"
    assert_nothing_is_missing(place, undisturbed)


def test_a_killed_worker_loses_no_scribble(place):
    frames = 60
    for sequence, t, (folder, suffix) in product("ab", range(4, frames), ((IMAGES, "jpg"), (MASKS, "png"))):
        of_video = place / folder / sequence
        os.link(of_video / f"{t % 4:05d}.{suffix}", of_video / f"{t:05d}.{suffix}")
    made = place / "data/tiny/scribbles/scribbles.parquet"
    with running(place, ["pipelines.prepare"]) as one:
        one.ended()
    with running(place, ["pipelines.scribbles"]) as one:
        os.kill(one.until(lambda: one.workers("ray::MapBatches(_simulate_batch)"))[0], signal.SIGKILL)
        assert "124 scribbles" in one.ended()
    disturbed = read_store_table(made)
    made.unlink()
    with running(place, ["pipelines.scribbles"]) as one:
        one.ended()
    assert read_store_table(made).equals(disturbed)


@two_cpus
@pytest.mark.skipif(not can_part(), reason="no network namespaces here: a machine cannot be told from another")
def test_a_lost_machine_is_replaced_by_another(place, undisturbed):
    """Of four machines the first drives, two train, and one of these goes; states lie in the object store."""
    with machines(4) as cluster, object_store(cluster.address(0), 9000, cluster.within(0)) as bucket:
        for number in (1, 2, 3, 4):
            cluster.start(number, cpus=int(number > 1), hidden=[place] if number > 1 else [], **KEYS)
        wait_for_nodes(cluster, 4, sys.executable)
        storage = {"SSVOS_STORAGE": bucket, **KEYS, **OPEN}
        address = f"{cluster.address(1)}:{PORT}"
        with running(place, TRAIN, cluster.within(1), RAY_ADDRESS=address, SSVOS_WORKERS="2", **storage) as one:
            one.until(lambda: one.lines())
            training = [number for number in (2, 3, 4) if cluster.has(number, "ray::RayTrainWorker")]
            assert len(training) == 2, "each has one CPU"
            cluster.kill(training[0])
            said = one.ended()
    assert f"epoch {EPOCHS}/{EPOCHS}" in said and one.lines() == list(range(1, EPOCHS + 1))
    assert_nothing_is_missing(place, undisturbed)


@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=two_cpus)])
@pytest.mark.skipif(not can_hide(), reason="no mount namespaces here: a small disk cannot be made")
def test_a_full_disk_stops_a_training_in_one_line_and_the_state_before_is_whole(place, workers):
    """The disk has room for one state and a part of a second."""
    (place / "resume").mkdir()
    script = f"""
mount -t tmpfs -o size=3500k none resume
{sys.executable} -m {" ".join(TRAIN)}
status=$?
cp -r resume left
exit $status
"""
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script],
        cwd=place,
        env=environment(place, PYTHONPATH=str(PROJECT), SSVOS_WORKERS=workers),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert re.match(r"error: resume/.+/progress\.pt: cannot be written to its end \(No space left .+\)", done.stderr)
    assert sorted(path.name for path in place.glob("left/*/*")) == ["mlflow.run", "progress-before.pt"]
    (left,) = place.glob("left/*/*.pt")
    assert from_bytes(left.read_bytes())[0].position().startswith("epoch 1, after ")


@contextmanager
def tracking_server(folder: Path, port: int) -> Iterator[subprocess.Popen]:
    """MLflow's own, with its store in the folder; it answers when the block begins, and is killed at its end."""
    store = f"--backend-store-uri sqlite:///{folder}/server.db --artifacts-destination {folder}/artifacts"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *store.split()]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, cwd=folder, env=environment(folder), start_new_session=True, **quiet)
    try:
        for _ in range(600):
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.2)
        yield server
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_a_tracking_server_that_goes_away_and_comes_back_misses_nothing(place, tmp_path):
    port = free_port()
    with ExitStack() as at_last:
        with tracking_server(tmp_path, port):
            settings = {"SSVOS_WORKERS": "0", "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
            one = at_last.enter_context(running(place, TRAIN, **settings))
            one.until(one.lines)
        one.until(lambda: "waiting 300 seconds for it" in one.said.read_text())
        assert "MLflow did not take step 3" in one.said.read_text() and one.lines() == list(range(1, EPOCHS + 1))
        with tracking_server(tmp_path, port):
            one.ended()
    assert curve(place, f"sqlite:///{tmp_path}/server.db") == list(range(1, EPOCHS + 1))


def test_a_search_misses_nothing_of_a_tracking_server_that_was_away(place, tmp_path):
    from mlflow import MlflowClient

    port, trials = free_port(), 6
    edit(f"{place}/params.yaml", tune={"trials": trials, "scheduler": "none"})
    with ExitStack() as at_last:
        with tracking_server(tmp_path, port):
            one = at_last.enter_context(
                running(place, ["pipelines.tune"], MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}")
            )
            one.until(lambda: "trial " in one.said.read_text())
        one.until(lambda: "waiting 300 seconds for it" in one.said.read_text())
        said = one.said.read_text()
        assert "did not take the beginning of trial" in said
        assert len(re.findall(rf"trial \d of {trials}  finished", said)) == trials, "none waits for the server"
        with tracking_server(tmp_path, port):
            one.ended()
    client = MlflowClient(f"sqlite:///{tmp_path}/server.db")
    runs = client.search_runs([client.get_experiment_by_name("ssvos-tune").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * (1 + trials)
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId")]
    assert sorted(int(run.data.tags["trial"]) for run in children) == list(range(trials))
    for run in children:
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "holdout_score")]
        assert steps == list(range(1, 1 + int(run.data.metrics["epochs"])))
