"""Ray: starting it or joining a cluster, and sharing out its CPUs and GPUs."""

import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.cluster.storage import require_storage
from pipelines.cluster.worker_errors import bad_input
from ssvos.hardware import available_cpus

# Must be set before `import ray`.
_VARIABLES = {
    # a stage's own lines are what a person should see
    "RAY_DEDUP_LOGS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    # workers are the work: with Ray's 15 each gets a thirtieth of a core that anything else is busy on
    "RAY_worker_niceness": "0",
}
_ANSWERS_WITHIN = 5.0  # seconds


@dataclass(frozen=True)
class Workers:
    """How a stage is spread: number of workers, CPUs and GPUs of each, and PyTorch threads a worker may use."""

    count: int
    cpus: float
    gpus: int

    @property
    def threads(self) -> int:
        return max(1, int(self.cpus))


@contextmanager
def cluster() -> Iterator[None]:
    """Join the cluster at RAY_ADDRESS, or start one on this machine on loopback, for the time of the block."""
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    import ray

    options = {"log_to_driver": _debug(), "logging_level": "ERROR"}
    if joined():
        require_storage()
        _require_answer(os.environ["RAY_ADDRESS"])
        # the workers' nodes need not see this folder: the code travels with the job
        code = Path(__file__).parents[2]
        modules = [str(code / "ssvos"), str(code / "pipelines")]
        everywhere = {"py_modules": modules, "worker_process_setup_hook": "pipelines.cluster.worker_setup.announce"}
        options |= {"address": os.environ["RAY_ADDRESS"], "runtime_env": everywhere}
    else:
        # the project folder must be importable in workers, whose working directory is elsewhere; in a runtime_env it
        # would cost a process more for each of them, as the ones that Ray starts beforehand have none
        os.environ["PYTHONPATH"] = os.pathsep.join([os.getcwd(), *sys.path])
        options |= {"address": "local", "num_cpus": available_cpus(), "include_dashboard": False}
        options |= {"object_store_memory": 256 * 2**20}
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        if not joined():
            raise
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"RAY_ADDRESS {options['address']}: no cluster answers there ({reason}); start it, or unset the variable"
        ) from error
    try:
        yield
    except Exception as error:
        found = bad_input(error)
        if found in (None, error):
            raise
        raise found from error
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Ray itself tries an address where nothing listens for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not (host and port.isdigit()):
        raise ValueError(f"RAY_ADDRESS {address}: expected host:port of a running cluster, for example 127.0.0.1:6379")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWERS_WITHIN).close()
    except OSError as error:
        raise ValueError(
            f"RAY_ADDRESS {address}: no cluster answers there ({error}); start it, or unset the variable"
        ) from error


def joined() -> bool:
    """Whether RAY_ADDRESS sends the work to a cluster that runs already."""
    return os.environ.get("RAY_ADDRESS", "local") not in ("", "local")


def quiet_data():
    """Ray Data without announcing every execution; its logs stay in Ray's session folder."""
    import ray.data

    # a failure is told once, by the stage
    logging.getLogger("ray.data").setLevel(logging.ERROR if _debug() else logging.CRITICAL)
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray.data


def _debug() -> bool:
    return bool(os.environ.get("SSVOS_DEBUG"))


def asked_workers() -> int | None:
    """SSVOS_WORKERS: the number of training workers; 0 trains in the stage's own process, unset leaves it open."""
    asked = os.environ.get("SSVOS_WORKERS", "")
    if asked and not asked.isdecimal():
        raise ValueError(f"SSVOS_WORKERS: {asked!r} is not a number of workers; give 0, 1, 2, ...")
    return int(asked) if asked else None


def num_loaders() -> int:
    """SSVOS_LOADERS: processes that read clips ahead for each training worker; 0, the default, reads in the step."""
    asked = os.environ.get("SSVOS_LOADERS", "")
    if asked and not asked.isdecimal():
        raise ValueError(f"SSVOS_LOADERS: {asked!r} is not a number of processes; give 0, 1, 2, ...")
    return int(asked or 0)


def train_workers(batch_clips: int) -> Workers:
    """One worker a GPU, or two on CPUs; SSVOS_WORKERS sets another number. Inside `cluster()`.

    Raises ValueError at once if the cluster cannot hold them: Ray itself would wait for ever.
    """
    return _workers(_nodes(), batch_clips)


def require_workers(batch_clips: int) -> None:
    """ValueError for an SSVOS_WORKERS that cannot be, before Ray starts; what a joined cluster has is seen later."""
    import torch

    asked = asked_workers()
    if asked:
        here = (asked, 0) if joined() else (available_cpus(), torch.cuda.device_count())
        _workers([here], batch_clips)


def _nodes() -> list[tuple[int, int]]:
    """(CPUs, GPUs) of every node of the cluster that is alive."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [(int(one.get("CPU", 0)), int(one.get("GPU", 0))) for one in alive]


def _workers(nodes: Sequence[tuple[int, int]], batch_clips: int) -> Workers:
    cpus, gpus = (sum(column) for column in zip(*nodes, strict=True))
    asked = asked_workers()
    count = asked or min(gpus or min(2, cpus), batch_clips)
    while not asked and batch_clips % count:
        count -= 1
    limit, kind = (gpus, "GPUs") if gpus else (cpus, "CPUs")
    if count > limit:
        raise ValueError(f"SSVOS_WORKERS: {count} workers asked for, there are {limit} {kind}; ask for at most that")
    if batch_clips % count:
        raise ValueError(
            f"SSVOS_WORKERS: a batch of {batch_clips} clips cannot be shared by {count} workers; take a divisor of it"
        )
    return Workers(count, _cpus_each(nodes, count), 1 if gpus else 0)


def _cpus_each(nodes: Sequence[tuple[int, int]], count: int) -> int:
    """The most CPUs that each of `count` workers can have, beside a GPU where there are GPUs: a worker lies on one
    node, and Ray would wait for ever for a larger one."""
    on_gpus = any(gpus for _, gpus in nodes)
    for each in range(max(cpus for cpus, _ in nodes), 0, -1):
        if sum(min(cpus // each, gpus if on_gpus else cpus) for cpus, gpus in nodes) >= count:
            return each
    raise ValueError(f"SSVOS_WORKERS: {count} workers need a CPU beside each GPU; give the nodes more or ask for fewer")


def trial_resources() -> tuple[dict[str, float], int]:
    """What a trial of a search takes, and how many run at a time: one a GPU, else one a CPU. Inside `cluster()`."""
    nodes = _nodes()
    cpus, gpus = (sum(column) for column in zip(*nodes, strict=True))
    return ({"cpu": _cpus_each(nodes, gpus), "gpu": 1}, gpus) if gpus else ({"cpu": 1}, cpus)
