"""Stage `scribbles`: simulate a scribble for every labelled frame with Ray Data, or use the drawn ones."""

from collections.abc import Iterable
from math import ceil

import cv2
import pyarrow as pa

from pipelines.cluster.ray_cluster import cluster_or_process, quiet_ray_data, requested_workers
from pipelines.cluster.worker_inputs import PackedInputs, pack, unpack
from pipelines.params import Layout, read_params, write_json
from pipelines.stage import no_arguments, run_stage
from pipelines.tracking import mlflow_client as tracking
from pipelines.tracking.stage_records import Records
from ssvos.config import ScribbleConfig
from ssvos.data.index import labelled_frames, read_index
from ssvos.progress import progress_bar
from ssvos.scribbles.quality import summarise_store
from ssvos.scribbles.store import STORE_SCHEMA, read_store_table, scribble_row, write_store

_MOST_ROWS, FEWEST_ROWS = 512, 16
_TASKS_PER_CPU = 4


def main() -> None:
    no_arguments(__doc__)
    params = read_params()
    config = params.base
    tracking.connect()
    layout = Layout(config.data.name)
    index = read_index(layout.index)
    with cluster_or_process():
        table = simulate(labelled_frames(index), pack(config, layout, scribbles=False), config.scribbles)
    path = layout.scribbles / "scribbles.parquet"
    write_store(table, path)
    write_json(layout.scribbles / "summary.json", summarise_store(read_store_table(path)))
    tracking.write(Records.read(params, layout).scribbles())
    print(f"{path}: {len(table)} scribbles")


def simulate(frames: pa.Table, packed_inputs: PackedInputs, config: ScribbleConfig) -> pa.Table:
    """Return a store row for each labelled frame.

    A row depends only on its frame, so the number of workers and the size of blocks do not change it.

    frames: rows of the index.
    """
    tables = []
    with progress_bar("simulating scribbles", len(frames)) as advance:
        for table in _simulate_all(frames, packed_inputs, config):
            tables.append(table)
            advance(len(table))
    return pa.concat_tables(tables)


def _simulate_all(frames: pa.Table, packed_inputs: PackedInputs, config: ScribbleConfig) -> Iterable[pa.Table]:
    arguments = {"packed_inputs": packed_inputs, "config": config.model_dump()}
    if requested_workers() == 0:
        starts = range(0, max(1, len(frames)), FEWEST_ROWS)
        return (_simulate_batch(frames.slice(start, FEWEST_ROWS), **arguments) for start in starts)
    import ray

    rows = block_rows(len(frames), max(1, int(ray.cluster_resources().get("CPU", 1))))
    blocks = [frames.slice(start, rows) for start in range(0, max(1, len(frames)), rows)]
    dataset = (
        quiet_ray_data()
        .from_arrow(blocks)
        .map_batches(
            _simulate_batch,
            fn_kwargs=arguments,
            batch_format="pyarrow",
            batch_size=None,
            num_cpus=1,
        )
    )
    return dataset.iter_batches(batch_size=None, batch_format="pyarrow")


def block_rows(frames: int, cpus: int) -> int:
    """Return the number of frames per task.

    Several tasks per CPU let all CPUs end at about the same time. Small tasks would wait: Ray Data collects and starts
    tasks only five to ten times a second.
    """
    tasks_per_cpu = max(_TASKS_PER_CPU, ceil(frames / (_MOST_ROWS * cpus)))
    return max(FEWEST_ROWS, ceil(frames / (tasks_per_cpu * cpus)))


def _simulate_batch(batch: pa.Table, packed_inputs: PackedInputs, config: dict) -> pa.Table:
    cv2.setNumThreads(1)  # each core has its own worker
    settings, roots = ScribbleConfig(**config), unpack(packed_inputs).roots
    rows = [scribble_row(row, roots[row["dataset"]], settings) for row in batch.to_pylist()]
    return pa.Table.from_pylist(rows, schema=STORE_SCHEMA)


if __name__ == "__main__":
    run_stage(main)
