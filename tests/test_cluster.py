"""A Ray cluster that runs already, in which nobody sees the project's folder."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox import environment, make_project, run
from test_guides import script

# a cluster started by hand asks for a token otherwise
OPEN = {"RAY_AUTH_MODE": "disabled"}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def hidden(tmp_path_factory) -> Path:
    """A folder that the cluster's processes find empty, whatever is put there."""
    return tmp_path_factory.mktemp("hidden")


@pytest.fixture(scope="module")
def address(hidden) -> Iterator[str]:
    """A head node started in another folder, in a mount namespace that hides `hidden`."""
    here = Path(tempfile.mkdtemp(prefix="ray"))  # its sockets' names must stay below 108 characters
    port = free_port()
    start = f"ray start --head --block --port={port} --num-cpus=2 --include-dashboard=false --disable-usage-stats "
    start += f"--node-ip-address=127.0.0.1 --object-store-memory=200000000 --temp-dir={here}"
    command = ["unshare", "--mount", "bash", "-c", f"mount -t tmpfs none {hidden} && exec {start}"]
    if shutil.which("unshare") is None or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("no mount namespaces here: the folder cannot be hidden")
    head = subprocess.Popen(
        command, cwd=here, env=environment(hidden, **OPEN), stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        for _ in range(60):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert head.poll() is None, "the head node ended"
            time.sleep(0.5)
        time.sleep(3)  # the port answers before the node is in
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        head.wait(timeout=30)
        shutil.rmtree(here, ignore_errors=True)


@pytest.mark.timeout(300)
def test_the_cluster_computes_the_same_bytes_without_seeing_the_project(project, hidden, address):
    folder = make_project(hidden / "project")
    run(["dvc", "repro", "evaluate@ours"], folder, timeout=290, RAY_ADDRESS=address, **OPEN)
    same = ["data/tiny/scribbles/scribbles.parquet", "results/tiny/ours/val.json"]
    same += [f"runs/tiny/ours/{stage}/checkpoint.pt" for stage in ("stage1", "stage2")]
    for name in same:
        assert (folder / name).read_bytes() == (project / name).read_bytes(), name
    assert list((folder / "predictions/tiny/ours/val/val-000").glob("*.png"))


@pytest.mark.timeout(200)
def test_a_search_runs_on_the_cluster(hidden, address):
    folder = hidden / "project"
    run(["dvc", "repro", "--single-item", "tune"], folder, timeout=190, RAY_ADDRESS=address, **OPEN)
    assert len((folder / "tune/trials.csv").read_text().splitlines()) == 4


@pytest.mark.timeout(200)
def test_commands_of_the_cluster_guide_run(address, project_copy):
    done = run(["bash", "-c", script("cluster", {"127.0.0.1:6379": address})], project_copy, timeout=190, **OPEN)
    assert "Running stage 'train_stage1@ours'" in done.stdout


def test_an_address_where_nobody_listens_is_one_line(project_copy):
    nobody = f"127.0.0.1:{free_port()}"
    done = run(["python", "-m", "pipelines.scribbles"], project_copy, check=False, RAY_ADDRESS=nobody)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and f"RAY_ADDRESS {nobody}: no cluster answers there" in done.stderr
