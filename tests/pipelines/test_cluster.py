"""Resources that training workers request: never more than one node has, or Ray would wait forever."""

import os
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest

from pipelines import scribbles
from pipelines.cluster import ray_cluster as cluster
from pipelines.cluster.worker_inputs import PackedInputs
from ssvos.config import ScribbleConfig
from ssvos.labels import write_labels


@pytest.fixture(autouse=True)
def default_workers(monkeypatch):
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
def test_workers_fit_on_the_nodes(nodes, batch_clips, expected):
    workers = cluster._plan_workers(nodes, batch_clips)
    assert (workers.count, workers.cpus) == expected
    on_gpus = any(gpus for _, gpus in nodes)
    fitting = [cpus // workers.cpus for cpus, _ in nodes]
    assert sum(min(n, gpus) if on_gpus else n for n, (_, gpus) in zip(fitting, nodes, strict=True)) >= workers.count


def test_gpus_on_a_node_with_fewer_cpus_are_rejected():
    with pytest.raises(ValueError, match="4 workers need one CPU per GPU on the same node"):
        cluster._plan_workers([(2, 4)], 4)


def test_more_workers_than_the_cluster_can_hold_are_rejected(monkeypatch):
    monkeypatch.setenv("SSVOS_WORKERS", "3")
    with pytest.raises(ValueError, match="3 workers requested, but there are 2 CPUs; request at most 2"):
        cluster._plan_workers([(1, 0), (1, 0)], 3)


@pytest.mark.parametrize(("frames", "cpus", "rows"), [(10, 2, 16), (2048, 2, 256), (6208, 2, 444), (2048, 64, 16)])
def test_scribbles_are_split_into_several_tasks_per_cpu_but_no_small_ones(frames, cpus, rows):
    assert scribbles.block_rows(frames, cpus) == rows


def test_workers_have_their_stages_niceness_and_block_size_does_not_change_scribbles(tmp_path, monkeypatch):
    """By default Ray raises its workers' niceness, and other processes then take nearly all CPU time."""
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 20:50] = 1
    write_labels(tmp_path / "a.png", mask)
    row = {"dataset": "made", "split": "train", "sequence": "a", "mask_path": "a.png", "scribble_path": None}
    rows = [row | {"frame": f"{k:05d}", "height": 48, "width": 64} for k in range(40)]
    index, packed_inputs = pa.Table.from_pylist(rows), PackedInputs({"index": "none"}, {"made": str(tmp_path)})
    with patch.dict(os.environ), cluster.cluster():
        import ray

        assert ray.get(ray.remote(lambda: os.nice(0)).remote()) == os.nice(0)
        tables = []
        for fewest in (7, 16, 64):
            monkeypatch.setattr(scribbles, "FEWEST_ROWS", fewest)
            tables.append(scribbles.simulate(index, packed_inputs, ScribbleConfig()).sort_by("frame"))
    assert tables[0].num_rows == 40
    assert tables[0].equals(tables[1]) and tables[0].equals(tables[2])
