"""A Ray cluster of one node on loopback, whose processes do not see a certain folder."""

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

# a cluster started by hand asks for a token otherwise
# workers get their share of a machine that does other things too, as those of a cluster that a stage starts
OPEN = {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def can_hide() -> bool:
    """Whether this user may make mount namespaces."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--mount", "true"], check=False, stderr=subprocess.DEVNULL).returncode == 0


@contextmanager
def cluster_head(hidden: Path) -> Iterator[str]:
    """Start a head node in another folder; gives its address. Where namespaces are allowed it finds `hidden` empty."""
    here = Path(tempfile.mkdtemp(prefix="ray"))  # its sockets' names must stay below 108 characters
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
    """End the processes of the cluster in `here` at once; asked kindly, it drains for half a minute."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(here).encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended by itself


def _wait(head: subprocess.Popen, port: int) -> None:
    for _ in range(120):
        assert head.poll() is None, "the head node ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.5)
    time.sleep(3)  # the port answers before the node is in
