"""CPUs and GPUs of a search's trials, and how many trials run at a time."""

import math
from dataclasses import dataclass

from pipelines.cluster.ray_cluster import default_trial_resources, uses_existing_cluster
from pipelines.cluster.storage import storage
from pipelines.params import PARAMS
from ssvos.config import ResourcesConfig, TuneConfig
from ssvos.hardware import available_cpus

# the process that controls a trial's workers needs no CPU, but Ray requires some resource: a byte of memory
_CONTROLLER = {"cpu": 0, "memory": 1}


@dataclass(frozen=True)
class TrialResources:
    """Resources of each trial.

    reserved: what Ray Tune reserves for a trial.
    concurrent: number of trials that run at a time.
    cpus, gpus, threads: of the trial, or of each of its workers.
    """

    reserved: dict[str, float]
    concurrent: int
    cpus: float
    gpus: float
    threads: int


def require_trial_resources(tune: TuneConfig) -> None:
    """Raise ValueError, before Ray starts, if a trial does not fit on this machine.

    The size of an existing cluster is not known yet; `trial_resources` checks it.
    """
    import torch

    if uses_existing_cluster() and tune.searcher == "pbt" and storage() is None:
        raise ValueError(
            f"{PARAMS}: tune.searcher: pbt copies weights between machines; set SSVOS_STORAGE to a storage that every "
            "machine can reach"
        )
    if not uses_existing_cluster():
        _require_room(tune, [(available_cpus(), torch.cuda.device_count())])


def trial_resources(tune: TuneConfig) -> TrialResources:
    """Return the resources of each trial, inside `cluster()`.

    Raises ValueError if no node can hold a trial; Ray itself would wait forever.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    node_sizes = [(node.get("CPU", 0), node.get("GPU", 0)) for node in nodes]
    _require_room(tune, node_sizes)
    share, concurrent = default_trial_resources()
    threads = 1
    if tune.resources or tune.workers:
        requested = tune.resources or _default_share(node_sizes)
        share = {"cpu": requested.cpus} | ({"gpu": requested.gpus} if requested.gpus else {})
        concurrent = _num_shares(requested, node_sizes) // (tune.workers or 1)
        threads = max(1, int(requested.cpus))
    reserved = _CONTROLLER if tune.workers else share
    return TrialResources(reserved, concurrent, share["cpu"], share.get("gpu", 0), threads)


def _default_share(node_sizes: list[tuple[float, float]]) -> ResourcesConfig:
    return ResourcesConfig(cpus=1.0, gpus=float(any(gpus for _, gpus in node_sizes)))


def _require_room(tune: TuneConfig, node_sizes: list[tuple[float, float]]) -> None:
    share = tune.resources or _default_share(node_sizes)
    if _num_shares(share, node_sizes) >= max(tune.workers, 1):
        return
    key = "tune.workers: " + f"{tune.workers} workers of " if tune.workers else "tune.resources: "
    cpus, gpus = (sum(column) for column in zip(*node_sizes, strict=True))
    nodes = f"on {len(node_sizes)} nodes" if len(node_sizes) > 1 else "on this machine"
    raise ValueError(
        f"{PARAMS}: {key}{share.cpus:g} CPUs and {share.gpus:g} GPUs requested, but there are {cpus:g} CPUs and "
        f"{gpus:g} GPUs {nodes}; request less"
    )


def _num_shares(share: ResourcesConfig, node_sizes: list[tuple[float, float]]) -> int:
    """Return how many shares all nodes can hold; a share is on one node, and a part of a GPU on one GPU."""
    return sum(_num_on_node(share, cpus, gpus) for cpus, gpus in node_sizes)


def _num_on_node(share: ResourcesConfig, cpus: float, gpus: float) -> int:
    by_cpu = math.floor(cpus / share.cpus + 1e-9)
    if not share.gpus:
        return by_cpu
    by_gpu = gpus // share.gpus if share.gpus >= 1 else gpus * math.floor(1 / share.gpus + 1e-9)
    return min(by_cpu, int(by_gpu))
