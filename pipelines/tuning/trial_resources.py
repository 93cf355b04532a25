"""Where the trials of a search find room: how many CPUs and GPUs each takes, and how many run at a time."""

import math
from dataclasses import dataclass

from pipelines.cluster.ray_cluster import joined, trial_resources
from pipelines.cluster.storage import storage
from pipelines.params import PARAMS
from ssvos.config import ResourcesConfig, TuneConfig
from ssvos.hardware import available_cpus

# the process that looks after a trial's workers computes nothing, but Ray wants to hear of something: a byte of memory
_LOOKS_ON = {"cpu": 0, "memory": 1}


@dataclass(frozen=True)
class TrialResources:
    """asked: what Ray Tune reserves for a trial. cpus, gpus: of the trial, or of each of its workers."""

    asked: dict[str, float]
    concurrent: int
    cpus: float
    gpus: float
    threads: int


def require_trial_resources(tune: TuneConfig) -> None:
    """ValueError, before Ray starts, for more than this machine has; what a joined cluster has is seen later."""
    import torch

    if joined() and tune.searcher == "pbt" and storage() is None:
        raise ValueError(
            f"{PARAMS}: tune.searcher: pbt copies states from machine to machine; set SSVOS_STORAGE to where all of "
            "them see them"
        )
    if not joined():
        _require(tune, [(available_cpus(), torch.cuda.device_count())])


def places(tune: TuneConfig) -> TrialResources:
    """Inside `cluster()`. ValueError at once if no node has the room: Ray itself would wait for ever."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    sizes = [(node.get("CPU", 0), node.get("GPU", 0)) for node in nodes]
    _require(tune, sizes)
    own, concurrent = trial_resources()
    threads = 1
    if tune.resources or tune.workers:
        found = tune.resources or _default(sizes)
        own = {"cpu": found.cpus} | ({"gpu": found.gpus} if found.gpus else {})
        concurrent = _room(found, sizes) // (tune.workers or 1)
        threads = max(1, int(found.cpus))
    asked = _LOOKS_ON if tune.workers else own
    return TrialResources(asked, concurrent, own["cpu"], own.get("gpu", 0), threads)


def _default(sizes: list[tuple[float, float]]) -> ResourcesConfig:
    return ResourcesConfig(cpus=1.0, gpus=float(any(gpus for _, gpus in sizes)))


def _require(tune: TuneConfig, sizes: list[tuple[float, float]]) -> None:
    found = tune.resources or _default(sizes)
    if _room(found, sizes) >= max(tune.workers, 1):
        return
    key = "tune.workers: " + f"{tune.workers} workers of " if tune.workers else "tune.resources: "
    cpus, gpus = (sum(column) for column in zip(*sizes, strict=True))
    nodes = f"on {len(sizes)} nodes" if len(sizes) > 1 else "here"
    raise ValueError(
        f"{PARAMS}: {key}{found.cpus:g} CPUs and {found.gpus:g} GPUs asked for, there are {cpus:g} CPUs and {gpus:g} "
        f"GPUs {nodes}; ask for at most that"
    )


def _room(found: ResourcesConfig, sizes: list[tuple[float, float]]) -> int:
    """How many shares of this size all nodes hold; one lies on one node, and a part of a GPU on one GPU."""
    return sum(_on_node(found, cpus, gpus) for cpus, gpus in sizes)


def _on_node(found: ResourcesConfig, cpus: float, gpus: float) -> int:
    by_cpu = math.floor(cpus / found.cpus + 1e-9)
    if not found.gpus:
        return by_cpu
    by_gpu = gpus // found.gpus if found.gpus >= 1 else gpus * math.floor(1 / found.gpus + 1e-9)
    return min(by_cpu, int(by_gpu))
