"""Stage `scribbles`: simulate a scribble for every labelled frame with Ray Data, or take the drawn ones."""

from pathlib import Path

import pyarrow as pa

from pipelines import tracking
from pipelines.cluster import cluster, quiet_data
from pipelines.params import Layout, flatten, read_params, write_json
from pipelines.stage import run_stage
from ssvos.config import Config, ScribbleConfig
from ssvos.data.index import labelled_frames, read_index
from ssvos.scribbles.quality import summarise_store
from ssvos.scribbles.store import STORE_SCHEMA, read_store_table, scribble_row, write_store

_BLOCK_ROWS = 64


def main() -> None:
    config = read_params().base
    layout = Layout(config.data.name)
    index = read_index(layout.index)
    with cluster():
        table = simulate(labelled_frames(index), layout.roots(config), config.scribbles)
    path = layout.scribbles / "scribbles.parquet"
    write_store(table, path)
    summary = summarise_store(read_store_table(path))
    write_json(layout.scribbles / "summary.json", summary)
    _track(config, index, summary, layout.scribbles / "summary.json")
    print(f"{path}: {len(table)} scribbles")


def simulate(frames: pa.Table, roots: dict[str, Path], config: ScribbleConfig) -> pa.Table:
    """One store row for each labelled frame; a pure function of its row, so that workers and blocks do not matter."""
    import ray

    data = quiet_data()
    blocks = max(1, len(frames) // _BLOCK_ROWS)
    dataset = (
        data.from_arrow(frames)
        .repartition(blocks)
        .map_batches(
            _simulate_batch,
            fn_kwargs={
                "roots": {name: str(root) for name, root in roots.items()},
                "config": config.model_dump(),
            },
            batch_format="pyarrow",
            batch_size=_BLOCK_ROWS,
            num_cpus=1,
        )
    )
    return pa.concat_tables([ray.get(ref) for ref in dataset.to_arrow_refs()])


def _simulate_batch(batch: pa.Table, roots: dict[str, str], config: dict) -> pa.Table:
    settings = ScribbleConfig(**config)
    rows = [scribble_row(row, Path(roots[row["dataset"]]), settings) for row in batch.to_pylist()]
    return pa.Table.from_pylist(rows, schema=STORE_SCHEMA)


def _track(config: Config, index: pa.Table, summary: dict, path: Path) -> None:
    digest = tracking.data_digest(index)
    tags = {"stage": "scribbles", "data": config.data.name, "data.digest": digest}
    run_id = tracking.open_run(f"scribbles {config.data.name}", tags, flatten(config))
    tracking.log_input(run_id, config.data.name, digest, str(path.parent), "scribbles", {"frames": len(index)})
    tracking.log_metrics(run_id, tracking.numbers(summary))
    tracking.log_files(run_id, [path])
    tracking.close_run(run_id)


if __name__ == "__main__":
    run_stage(main)
