"""Ray: starting it or joining a cluster, and sharing out its CPUs and GPUs."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# A stage's own lines are what a person should see; these must be set before `import ray`.
_QUIET = {
    "RAY_DEDUP_LOGS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_TRAIN_V2_ENABLED": "1",
}


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
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    address = os.environ.get("RAY_ADDRESS") or "local"
    try:
        if address == "local":
            # the project folder must be importable in workers, whose working directory is elsewhere
            ray.init(
                address="local",
                num_cpus=available_cpus(),
                include_dashboard=False,
                log_to_driver=_debug(),
                logging_level="ERROR",
                object_store_memory=256 * 2**20,
                runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}},
            )
        else:
            ray.init(address=address, log_to_driver=_debug(), logging_level="ERROR")
    except ConnectionError as error:
        raise ValueError(f"RAY_ADDRESS {address}: no cluster answers there; start it or unset RAY_ADDRESS") from error
    try:
        yield
    finally:
        ray.shutdown()


def quiet_data():
    """Ray Data without announcing every execution; its logs stay in Ray's session folder."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray.data


def _debug() -> bool:
    return bool(os.environ.get("SSVOS_DEBUG"))


def available_cpus() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def train_workers(batch_clips: int) -> Workers:
    """One worker a GPU, or two on CPUs; SSVOS_WORKERS sets the number. Inside `cluster()`.

    Raises ValueError at once if the cluster cannot hold them: Ray itself would wait for ever.
    """
    import ray

    resources = ray.cluster_resources()
    cpus, gpus = int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
    asked = os.environ.get("SSVOS_WORKERS", "")
    if asked and not (asked.isdigit() and int(asked) > 0):
        raise ValueError(f"SSVOS_WORKERS: {asked!r} is not a number of workers")
    count = int(asked) if asked else min(gpus or min(2, cpus), batch_clips)
    while not asked and batch_clips % count:
        count -= 1
    limit, kind = (gpus, "GPUs") if gpus else (cpus, "CPUs")
    if count > limit:
        raise ValueError(
            f"SSVOS_WORKERS: {count} workers asked for, the cluster has {limit} {kind}; ask for at most that"
        )
    if batch_clips % count:
        raise ValueError(f"SSVOS_WORKERS: a batch of {batch_clips} clips cannot be shared by {count} workers")
    return Workers(count, max(1, cpus // count), 1 if gpus else 0)
