"""Starts Ray or joins a running cluster, and assigns its CPUs and GPUs to workers."""

import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from pipelines.cluster.storage import require_storage
from pipelines.cluster.worker_errors import bad_input
from ssvos.hardware import available_cpus

# Ray reads these when it is imported
_VARIABLES = {
    # repeated lines of workers would hide the stage's own lines
    "RAY_DEDUP_LOGS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray sends no usage data
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    # at Ray's default niceness of 15 a worker gets a thirtieth of a core that another process keeps busy
    "RAY_worker_niceness": "0",
}
_CONNECT_SECONDS = 5.0


@dataclass(frozen=True)
class Workers:
    """The training workers of a stage.

    count: number of workers.
    cpus, gpus: of each worker.
    threads: PyTorch threads of each worker.
    """

    count: int
    cpus: float
    gpus: int

    @property
    def threads(self) -> int:
        return max(1, int(self.cpus))


@contextmanager
def cluster() -> Iterator[None]:
    """Join the cluster at RAY_ADDRESS, or start one on this machine's loopback address, while the block runs.

    Raises ValueError if no cluster answers at RAY_ADDRESS, and a worker's exception about its input as that exception.
    """
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    import ray

    options = {"log_to_driver": _debug(), "logging_level": "ERROR"}
    if uses_existing_cluster():
        require_storage()
        _require_listener(os.environ["RAY_ADDRESS"])
        # the workers' nodes need not see the project's folder, so Ray sends the code with the job
        code = Path(__file__).parents[2]
        modules = [str(code / "ssvos"), str(code / "pipelines")]
        setup = "pipelines.cluster.worker_setup.set_gloo_interface"
        runtime = {"py_modules": modules, "worker_process_setup_hook": setup}
        options |= {"address": os.environ["RAY_ADDRESS"], "runtime_env": runtime}
    else:
        # workers have another working directory but must import the project; a runtime_env would cost one more process
        # per worker, because the processes that Ray starts in advance have none
        os.environ["PYTHONPATH"] = os.pathsep.join([os.getcwd(), *sys.path])
        options |= {"address": "local", "num_cpus": available_cpus(), "include_dashboard": False}
        options |= {"object_store_memory": 256 * 2**20}
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        if not uses_existing_cluster():
            raise
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"RAY_ADDRESS {options['address']}: no cluster answers at this address ({reason}); start it, or unset the "
            "variable"
        ) from error
    try:
        yield
    except Exception as error:
        cause = bad_input(error)
        if cause in (None, error):
            raise
        raise cause from error
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Raise ValueError if nothing listens at the address; Ray itself would retry for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not (host and port.isdigit()):
        raise ValueError(f"RAY_ADDRESS {address}: expected host:port of a running cluster, for example 127.0.0.1:6379")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise ValueError(
            f"RAY_ADDRESS {address}: no cluster answers at this address ({error}); start it, or unset the variable"
        ) from error


def uses_existing_cluster() -> bool:
    """Return whether RAY_ADDRESS names a running cluster to join."""
    return os.environ.get("RAY_ADDRESS", "local") not in ("", "local")


def is_connected() -> bool:
    """Return whether this process has started or joined a cluster."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def cluster_or_process() -> AbstractContextManager[None]:
    """Return `cluster()`, or nothing if SSVOS_WORKERS=0: the stage then does its work in its own process."""
    return nullcontext() if requested_workers() == 0 else cluster()


def quiet_ray_data():
    """Return `ray.data` without progress bars and log lines; its logs stay in Ray's session folder."""
    import ray.data

    # the stage reports a failure itself
    logging.getLogger("ray.data").setLevel(logging.ERROR if _debug() else logging.CRITICAL)
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray.data


def _debug() -> bool:
    return bool(os.environ.get("SSVOS_DEBUG"))


def requested_workers() -> int | None:
    """Return the number of training workers in SSVOS_WORKERS; None: unset.

    0: a stage does all of its work in its own process, without Ray. Only `tune` needs Ray.
    """
    value = os.environ.get("SSVOS_WORKERS", "")
    if value and not value.isdecimal():
        raise ValueError(f"SSVOS_WORKERS: {value!r} is not a number of workers; use 0, 1, 2, ...")
    return int(value) if value else None


def num_loaders() -> int:
    """Return the number of clip loader processes per training worker in SSVOS_LOADERS.

    0, the default: the training process reads the clips itself.
    """
    value = os.environ.get("SSVOS_LOADERS", "")
    if value and not value.isdecimal():
        raise ValueError(f"SSVOS_LOADERS: {value!r} is not a number of processes; use 0, 1, 2, ...")
    return int(value or 0)


def train_workers(batch_clips: int) -> Workers:
    """Plan the training workers, inside `cluster()`: one per GPU, or two on CPUs, unless SSVOS_WORKERS is set.

    batch_clips: clips of a batch, divided evenly among the workers.

    Raises ValueError if the cluster cannot hold them; Ray itself would wait forever.
    """
    return _plan_workers(_node_sizes(), batch_clips)


def require_workers(batch_clips: int) -> None:
    """Raise ValueError for an impossible SSVOS_WORKERS, before Ray starts.

    The size of an existing cluster is not known yet; `train_workers` checks it.
    """
    import torch

    requested = requested_workers()
    if requested:
        node = (requested, 0) if uses_existing_cluster() else (available_cpus(), torch.cuda.device_count())
        _plan_workers([node], batch_clips)


def _node_sizes() -> list[tuple[int, int]]:
    """Return (CPUs, GPUs) of each live node of the cluster."""
    import ray

    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in resources]


def _plan_workers(nodes: Sequence[tuple[int, int]], batch_clips: int) -> Workers:
    cpus, gpus = (sum(column) for column in zip(*nodes, strict=True))
    requested = requested_workers()
    count = requested or min(gpus or min(2, cpus), batch_clips)
    while not requested and batch_clips % count:
        count -= 1
    limit, kind = (gpus, "GPUs") if gpus else (cpus, "CPUs")
    if count > limit:
        raise ValueError(
            f"SSVOS_WORKERS: {count} workers requested, but there are {limit} {kind}; request at most {limit}"
        )
    if batch_clips % count:
        raise ValueError(
            f"SSVOS_WORKERS: a batch of {batch_clips} clips cannot be divided among {count} workers; use a divisor of "
            f"{batch_clips}"
        )
    return Workers(count, _cpus_per_worker(nodes, count), 1 if gpus else 0)


def _cpus_per_worker(nodes: Sequence[tuple[int, int]], count: int) -> int:
    """Return the most CPUs that each of `count` workers can have, next to a GPU if there are GPUs.

    A worker runs on one node; Ray would wait forever for resources that no node has.
    """
    on_gpus = any(gpus for _, gpus in nodes)
    for cpus_each in range(max(cpus for cpus, _ in nodes), 0, -1):
        if sum(min(cpus // cpus_each, gpus if on_gpus else cpus) for cpus, gpus in nodes) >= count:
            return cpus_each
    raise ValueError(
        f"SSVOS_WORKERS: {count} workers need one CPU per GPU on the same node; add CPUs, or request fewer workers"
    )


def default_trial_resources() -> tuple[dict[str, float], int]:
    """Return the resources of a search trial and the number of concurrent trials, inside `cluster()`.

    One trial per GPU, or one per CPU if there is no GPU.
    """
    nodes = _node_sizes()
    cpus, gpus = (sum(column) for column in zip(*nodes, strict=True))
    return ({"cpu": _cpus_per_worker(nodes, gpus), "gpu": 1}, gpus) if gpus else ({"cpu": 1}, cpus)
