"""Real faults: killed workers, drivers and machines, a full disk, a tracking server that goes away.

docs/reliability.md describes what happens after each fault.
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
def prepared(tmp_path_factory) -> Path:
    """A prepared project with a training of a few seconds that saves a state after each step."""
    workdir = tmp_path_factory.mktemp("prepared") / "workdir"
    make_place(workdir)
    stage = {"clips_per_epoch": 32, "epochs": EPOCHS, "save_every": 1}
    edit(f"{workdir}/params.yaml", train={"stage1": stage})
    return workdir


@pytest.fixture
def workdir(prepared, tmp_path) -> Path:
    return shutil.copytree(prepared, tmp_path / "workdir", symlinks=True)


class Running:
    """A stage in its own process; its output goes to a file."""

    def __init__(self, workdir: Path, command: list[str], within: tuple[str, ...] = (), **more: str) -> None:
        self.output, self.mark = workdir / f"output-{uuid.uuid4().hex[:6]}", f"SSVOS_TEST={uuid.uuid4().hex}"
        name, _, value = self.mark.partition("=")
        variables = environment(workdir, PYTHONPATH=str(PROJECT), **more) | {name: value}
        with open(self.output, "w") as file:
            self.process = subprocess.Popen(
                [*within, sys.executable, "-m", *command], cwd=workdir, env=variables, stdout=file, stderr=file
            )

    def until(self, is_so: Callable[[], object]) -> object:
        """Wait until `is_so` returns a true value, and return it; the stage must still be running."""
        for _ in range(60_000):
            assert self.process.poll() is None, f"the stage ended early\n{self.output.read_text()}"
            if result := is_so():
                return result
            time.sleep(0.002)
        raise AssertionError(f"no result in two minutes\n{self.output.read_text()}")

    def workers(self, title: str) -> list[int]:
        """Ids of the stage's Ray processes whose title begins with `title`."""
        ids = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (process / "cmdline").read_bytes().startswith(title.encode()):
                    ids += [int(process.name)] * (self.mark.encode() in (process / "environ").read_bytes())
        return ids

    def ended(self) -> str:
        """Wait for the end without an error, and return the output."""
        assert self.process.wait(timeout=300) == 0, self.output.read_text()
        return self.output.read_text()

    def lines(self) -> list[int]:
        """Return the epochs in the output."""
        return [int(epoch) for epoch in re.findall(r"  epoch (\d+)/", self.output.read_text())]


@contextmanager
def running(workdir: Path, command: list[str], within: tuple[str, ...] = (), **more: str) -> Iterator[Running]:
    one = Running(workdir, command, within, **more)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.wait()


def states(workdir: Path) -> list[Path]:
    return list(workdir.glob("resume/*/progress.pt"))


def curve(workdir: Path, uri: str = "") -> list[int]:
    """Return the epochs in MLflow; there must be one run, which has finished."""
    from mlflow import MlflowClient

    client = MlflowClient(uri or f"sqlite:///{workdir / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("ssvos").experiment_id])
    assert run.info.status == "FINISHED"
    return sorted(point.step for point in client.get_metric_history(run.info.run_id, "loss"))


CHECKPOINT, HISTORY = "runs/tiny/pce/stage1/checkpoint.pt", "runs/tiny/pce/stage1/history.csv"
two_cpus = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two workers need two CPUs")


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory) -> Path:
    """The project, trained by two workers without a fault."""
    workdir = shutil.copytree(prepared, tmp_path_factory.mktemp("whole") / "workdir", symlinks=True)
    with running(workdir, TRAIN, SSVOS_WORKERS="2") as one:
        one.ended()
    return workdir


def assert_nothing_is_missing(workdir: Path, undisturbed: Path) -> None:
    """Check that the weights are identical, every epoch is recorded once, and no saved state is left."""
    assert (workdir / CHECKPOINT).read_bytes() == (undisturbed / CHECKPOINT).read_bytes()
    rows, others = (list(csv.DictReader((one / HISTORY).read_text().splitlines())) for one in (workdir, undisturbed))
    # a resumed epoch adds its sums from two parts, which rounds differently
    for row, other in zip(rows, others, strict=True):
        assert [float(value) for value in row.values()] == pytest.approx([float(value) for value in other.values()])
    assert curve(workdir) == list(range(1, EPOCHS + 1))
    assert not list((workdir / "resume").glob("tiny-*"))


@two_cpus
def test_a_killed_worker_and_a_killed_driver_lose_no_epoch(workdir, undisturbed):
    with running(workdir, TRAIN, SSVOS_WORKERS="2") as first:
        first.until(lambda: states(workdir))
        os.kill(first.until(lambda: first.workers("ray::RayTrainWorker"))[-1], signal.SIGKILL)
        first.until(lambda: len(first.lines()) >= 2)
        first.process.send_signal(signal.SIGKILL)
        epochs = first.lines()
    assert epochs == sorted(set(epochs)), "no epoch is printed twice"
    with running(workdir, TRAIN, SSVOS_WORKERS="2") as second:
        assert f"epoch {EPOCHS}/{EPOCHS}" in second.ended()
        assert second.lines()[0] > 1, "it resumes where the first run was"
    assert_nothing_is_missing(workdir, undisturbed)


def test_a_killed_worker_loses_no_scribble(workdir):
    frames = 60
    for sequence, t, (folder, suffix) in product("ab", range(4, frames), ((IMAGES, "jpg"), (MASKS, "png"))):
        of_video = workdir / folder / sequence
        os.link(of_video / f"{t % 4:05d}.{suffix}", of_video / f"{t:05d}.{suffix}")
    store = workdir / "data/tiny/scribbles/scribbles.parquet"
    with running(workdir, ["pipelines.prepare"]) as one:
        one.ended()
    with running(workdir, ["pipelines.scribbles"]) as one:
        os.kill(one.until(lambda: one.workers("ray::MapBatches(_simulate_batch)"))[0], signal.SIGKILL)
        assert "124 scribbles" in one.ended()
    disturbed = read_store_table(store)
    store.unlink()
    with running(workdir, ["pipelines.scribbles"]) as one:
        one.ended()
    assert read_store_table(store).equals(disturbed)


@two_cpus
@pytest.mark.skipif(not can_part(), reason="no network namespaces here, so no separate machines")
def test_a_lost_machine_is_replaced_by_another(workdir, undisturbed):
    """Machine 1 of 4 runs the driver, two others train, and one of these is lost; the object store has the states."""
    with machines(4) as cluster, object_store(cluster.address(0), 9000, cluster.within(0)) as bucket:
        for number in (1, 2, 3, 4):
            cluster.start(number, cpus=int(number > 1), hidden=[workdir] if number > 1 else [], **KEYS)
        wait_for_nodes(cluster, 4, sys.executable)
        storage = {"SSVOS_STORAGE": bucket, **KEYS, **OPEN}
        address = f"{cluster.address(1)}:{PORT}"
        with running(workdir, TRAIN, cluster.within(1), RAY_ADDRESS=address, SSVOS_WORKERS="2", **storage) as one:
            one.until(lambda: one.lines())
            training = [number for number in (2, 3, 4) if cluster.has(number, "ray::RayTrainWorker")]
            assert len(training) == 2, "each has one CPU"
            cluster.kill(training[0])
            output = one.ended()
    assert f"epoch {EPOCHS}/{EPOCHS}" in output and one.lines() == list(range(1, EPOCHS + 1))
    assert_nothing_is_missing(workdir, undisturbed)


@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=two_cpus)])
@pytest.mark.skipif(not can_hide(), reason="no mount namespaces here, so no small disk")
def test_a_full_disk_stops_a_training_with_one_line_and_the_previous_state_is_complete(workdir, workers):
    """The disk can hold one state and a part of a second one."""
    (workdir / "resume").mkdir()
    script = f"""
mount -t tmpfs -o size=3500k none resume
{sys.executable} -m {" ".join(TRAIN)}
status=$?
cp -r resume left
exit $status
"""
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script],
        cwd=workdir,
        env=environment(workdir, PYTHONPATH=str(PROJECT), SSVOS_WORKERS=workers),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert re.match(r"error: resume/.+/progress\.pt: cannot be written completely \(No space left .+\)", done.stderr)
    assert sorted(path.name for path in workdir.glob("left/*/*")) == ["mlflow.run", "progress-before.pt"]
    (left,) = workdir.glob("left/*/*.pt")
    assert from_bytes(left.read_bytes())[0].position().startswith("epoch 1, after ")


@contextmanager
def tracking_server(folder: Path, port: int) -> Iterator[subprocess.Popen]:
    """MLflow's server with its store in the folder. It answers when the block starts, and is killed at its end."""
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


def test_after_a_tracking_server_was_away_its_training_run_is_complete(workdir, tmp_path):
    port = free_port()
    with ExitStack() as at_last:
        with tracking_server(tmp_path, port):
            settings = {"SSVOS_WORKERS": "0", "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
            one = at_last.enter_context(running(workdir, TRAIN, **settings))
            one.until(one.lines)
        one.until(lambda: "waiting 300 seconds for it" in one.output.read_text())
        assert "MLflow did not accept step 3" in one.output.read_text() and one.lines() == list(range(1, EPOCHS + 1))
        with tracking_server(tmp_path, port):
            one.ended()
    assert curve(workdir, f"sqlite:///{tmp_path}/server.db") == list(range(1, EPOCHS + 1))


def test_after_a_tracking_server_was_away_its_search_runs_are_complete(workdir, tmp_path):
    from mlflow import MlflowClient

    port, trials = free_port(), 6
    edit(f"{workdir}/params.yaml", tune={"trials": trials, "scheduler": "none"})
    with ExitStack() as at_last:
        with tracking_server(tmp_path, port):
            one = at_last.enter_context(
                running(workdir, ["pipelines.tune"], MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}")
            )
            one.until(lambda: "trial " in one.output.read_text())
        one.until(lambda: "waiting 300 seconds for it" in one.output.read_text())
        output = one.output.read_text()
        assert "did not accept the start of trial" in output
        assert len(re.findall(rf"trial \d of {trials}  finished", output)) == trials, "no trial waits for the server"
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
