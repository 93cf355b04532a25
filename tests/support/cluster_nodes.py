"""A Ray cluster of several nodes on this machine, each in its own network namespace with its own address.

A bridge in a further namespace connects them. No namespace has a link to the outside: no packet leaves the machine.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cluster_head import OPEN
from sandbox import environment

PORT = 6379
_NETWORK = "10.213.7"


def can_part() -> bool:
    """Return whether this user may create network and mount namespaces."""
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        return False
    pair = "unshare --mount --net ip link add name one type veth peer name two"
    return subprocess.run(pair.split(), check=False, stderr=subprocess.DEVNULL).returncode == 0


@dataclass
class Machines:
    """Network namespaces that act as machines.

    base:  folder of the nodes' files
    names: namespaces; the first has the bridge and the object store, each other one a Ray node
    nodes: machine's number -> process of its Ray node
    """

    base: Path
    names: list[str]
    nodes: dict[int, subprocess.Popen] = field(default_factory=dict)

    def address(self, number: int) -> str:
        return f"{_NETWORK}.{number + 1}"

    def within(self, number: int) -> list[str]:
        """Return the prefix that runs a command on a machine."""
        return ["ip", "netns", "exec", self.names[number]]

    def start(self, number: int, cpus: int = 1, hidden: Sequence[Path] = (), **more: str) -> None:
        """Start a node in its own empty folder. Its processes find the hidden folders empty. Node 1 is the head."""
        here = self.base / str(number)
        (here / "tmp").mkdir(parents=True)
        to = f"--head --port={PORT} --include-dashboard=false" if number == 1 else f"--address={self.address(1)}:{PORT}"
        start = f"ray start {to} --block --num-cpus={cpus} --node-ip-address={self.address(number)} "
        start += f"--disable-usage-stats --object-store-memory=100000000 --temp-dir={here}/ray"
        hide = "".join(f"mount -t tmpfs none {folder} && " for folder in hidden)
        command = [*self.within(number), "unshare", "--mount", "bash", "-c", f"{hide}cd {here} && exec {start}"]
        variables = environment(here, TMPDIR=f"{here}/tmp", HOME=str(here), **OPEN, **more)
        with open(here / "log", "w") as log:
            self.nodes[number] = subprocess.Popen(command, cwd=here, env=variables, stdout=log, stderr=log)

    def processes(self, number: int) -> list[Path]:
        found = subprocess.run(["ip", "netns", "pids", self.names[number]], capture_output=True, text=True, check=False)
        return [Path("/proc") / pid for pid in found.stdout.split()]

    def has(self, number: int, title: str) -> bool:
        """Return whether the machine runs a process whose command line starts with `title`."""
        found = False
        for process in self.processes(number):
            with suppress(OSError):
                found |= (process / "cmdline").read_bytes().startswith(title.encode())
        return found

    def kill(self, number: int) -> None:
        """Kill all processes of a machine at once, as a power failure does."""
        for process in self.processes(number):
            with suppress(ProcessLookupError):
                os.kill(int(process.name), signal.SIGKILL)
        self.nodes.pop(number).wait(timeout=30)


@contextmanager
def machines(count: int) -> Iterator[Machines]:
    """Yield `count` machines, numbered from 1. Number 0 is the bridge's namespace."""
    base = Path(tempfile.mkdtemp(prefix="nodes"))
    made = Machines(base, [f"{base.name}-{number}" for number in range(count + 1)])
    try:
        for name in made.names:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", made.names[0], "link", "add", "bridge", "type", "bridge")
        _ip("-n", made.names[0], "addr", "add", f"{made.address(0)}/24", "dev", "bridge")
        _ip("-n", made.names[0], "link", "set", "bridge", "up")
        for number in range(1, count + 1):
            _connect(made, number)
        yield made
    finally:
        for number in list(made.nodes):
            made.kill(number)
        for name in made.names:
            subprocess.run(["ip", "netns", "del", name], check=False)
        shutil.rmtree(base, ignore_errors=True)


def _connect(made: Machines, number: int) -> None:
    name, bridge = made.names[number], made.names[0]
    _ip("link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", f"to{number}", "netns", bridge)
    _ip("-n", bridge, "link", "set", f"to{number}", "master", "bridge", "up")
    _ip("-n", name, "addr", "add", f"{made.address(number)}/24", "dev", "eth0")
    _ip("-n", name, "link", "set", "eth0", "up")
    # a program may derive its own address from the default route; this route ends at the bridge
    _ip("-n", name, "route", "add", "default", "via", made.address(0))


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def wait_for_nodes(made: Machines, count: int, python: str) -> None:
    """Wait until the head reports `count` live nodes."""
    code = f"""
import ray, time
ray.init(address="{made.address(1)}:{PORT}", log_to_driver=False, logging_level="ERROR")
for _ in range(240):
    if sum(node["Alive"] for node in ray.nodes()) == {count}:
        break
    time.sleep(0.25)
else:
    raise SystemExit("nodes are missing")
"""
    command = [*made.within(1), python, "-c", code]
    for _ in range(30):
        done = subprocess.run(command, env=environment(made.base, **OPEN), capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        time.sleep(1)
    raise AssertionError(done.stderr[-2000:])
