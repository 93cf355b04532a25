"""What a training worker asks a cluster for: never more than one node has, or Ray would wait for it for ever."""

import pytest

from pipelines import cluster


@pytest.fixture(autouse=True)
def unasked(monkeypatch):
    monkeypatch.delenv("SSVOS_WORKERS", raising=False)


# (CPUs, GPUs) of each node, clips in a batch -> workers, and CPUs of each
CLUSTERS = [
    ([(2, 0)], 2, (2, 1)),
    ([(16, 0)], 4, (2, 8)),
    ([(2, 0)] * 3, 4, (2, 2)),  # six CPUs, but no node has three
    ([(3, 0), (8, 0)], 4, (2, 4)),  # two workers of four on the larger node
    ([(1, 0), (1, 0)], 4, (2, 1)),
    ([(8, 1)] * 4 + [(8, 0)] * 2, 4, (4, 8)),
    ([(8, 0), (4, 2), (16, 2)], 4, (4, 2)),  # the node of four CPUs has two of the workers
    ([(16, 8)], 8, (8, 2)),
]


@pytest.mark.parametrize(("nodes", "batch_clips", "expected"), CLUSTERS)
def test_workers_fit_on_the_nodes_that_there_are(nodes, batch_clips, expected):
    workers = cluster._workers(nodes, batch_clips)
    assert (workers.count, workers.cpus) == expected
    on_gpus = any(gpus for _, gpus in nodes)
    room = [cpus // workers.cpus for cpus, _ in nodes]
    assert sum(min(n, gpus) if on_gpus else n for n, (_, gpus) in zip(room, nodes, strict=True)) >= workers.count


def test_gpus_without_a_cpu_beside_them_are_refused():
    with pytest.raises(ValueError, match="4 workers need a CPU beside each GPU"):
        cluster._workers([(2, 4)], 4)


def test_more_workers_than_the_cluster_has_are_refused(monkeypatch):
    monkeypatch.setenv("SSVOS_WORKERS", "3")
    with pytest.raises(ValueError, match="3 workers asked for, there are 2 CPUs"):
        cluster._workers([(1, 0), (1, 0)], 3)
