"""What a training worker asks a cluster for: never more than one node has, or Ray would wait for it for ever."""

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


@pytest.mark.parametrize(("frames", "cpus", "rows"), [(10, 2, 16), (2048, 2, 256), (6208, 2, 444), (2048, 64, 16)])
def test_scribbles_come_in_several_tasks_a_cpu_and_not_in_small_ones(frames, cpus, rows):
    assert scribbles.block_rows(frames, cpus) == rows


def test_workers_are_as_urgent_as_their_stage_and_blocks_do_not_matter(tmp_path, monkeypatch):
    """Ray makes workers nice by default, and other work on the machine then takes nearly all there is."""
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 20:50] = 1
    write_labels(tmp_path / "a.png", mask)
    row = {"dataset": "made", "split": "train", "sequence": "a", "mask_path": "a.png", "scribble_path": None}
    rows = [row | {"frame": f"{k:05d}", "height": 48, "width": 64} for k in range(40)]
    index, parcel = pa.Table.from_pylist(rows), PackedInputs({"index": "none"}, {"made": str(tmp_path)})
    with patch.dict(os.environ), cluster.cluster():
        import ray

        assert ray.get(ray.remote(lambda: os.nice(0)).remote()) == os.nice(0)
        made = []
        for fewest in (7, 16, 64):
            monkeypatch.setattr(scribbles, "FEWEST_ROWS", fewest)
            made.append(scribbles.simulate(index, parcel, ScribbleConfig()).sort_by("frame"))
    assert made[0].num_rows == 40
    assert made[0].equals(made[1]) and made[0].equals(made[2])
