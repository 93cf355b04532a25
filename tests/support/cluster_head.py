"""A Ray cluster of one node on loopback, whose processes find a given folder empty."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox import environment

# By default a cluster started by hand requires a token.
# Niceness 0 gives workers an equal share of a busy machine, as in a cluster that a stage starts.
OPEN = {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def can_hide() -> bool:
    """Return whether this user may create mount namespaces."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--mount", "true"], check=False, stderr=subprocess.DEVNULL).returncode == 0


@contextmanager
def cluster_head(hidden: Path) -> Iterator[str]:
    """Start a head node in another folder and yield its address.

    If this user may create mount namespaces, the node finds `hidden` empty.
    """
    # Ray's sockets are in this folder; a socket's path must be shorter than 108 characters
    here = Path(tempfile.mkdtemp(prefix="ray"))
    port = free_port()
    start = f"ray start --head --block --port={port} --num-cpus=2 --include-dashboard=false --disable-usage-stats "
    start += f"--node-ip-address=127.0.0.1 --object-store-memory=200000000 --temp-dir={here}"
    hide = ["unshare", "--mount", "bash", "-c", f"mount -t tmpfs none {hidden} && exec {start}"]
    command = hide if can_hide() else ["bash", "-c", f"exec {start}"]
    head = subprocess.Popen(
        command, cwd=here, env=environment(hidden, **OPEN), stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        _wait(head, port)
        yield f"127.0.0.1:{port}"
    finally:
        _end(here)
        head.wait(timeout=30)
        shutil.rmtree(here, ignore_errors=True)


def _end(here: Path) -> None:
    """Kill the processes of the cluster in `here`. With SIGTERM the cluster drains for half a minute."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(here).encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue  # the process has already ended


def _wait(head: subprocess.Popen, port: int) -> None:
    for _ in range(120):
        assert head.poll() is None, "the head node ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.5)
    time.sleep(3)  # the port opens before the node joins the cluster
