"""The scribble store: a Parquet file with one row per frame, which contains the scribble as a PNG."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssvos.config import ScribbleConfig
from ssvos.files import atomic_path
from ssvos.labels import decode_labels, encode_labels, object_ids, read_labels
from ssvos.scribbles.formats import read_scribble
from ssvos.scribbles.quality import check_against_mask, stroke_shares
from ssvos.scribbles.simulate import scribble_rng, simulate_scribble

ScribbleKey = tuple[str, str, str]  # dataset, sequence, frame

# seed is null for a scribble drawn by a person. The three counts are null for a frame without a dense mask.
STORE_SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("split", pa.string()),
        ("sequence", pa.string()),
        ("frame", pa.string()),
        ("png", pa.binary()),
        ("objects", pa.list_(pa.int32())),
        ("coverage", pa.float64()),
        ("foreground", pa.float64()),
        ("seed", pa.int64()),
        ("num_components", pa.int64()),
        ("num_bare_components", pa.int64()),
        ("num_misplaced", pa.int64()),
    ]
)
_ORDER = ("dataset", "split", "sequence", "frame")
_ROW_GROUP = 1024


def scribble_row(row: Mapping[str, Any], root: Path, config: ScribbleConfig) -> dict[str, Any]:
    """Make one row of the store from one row of the index. The function has no side effects.

    A frame's own scribble is stored unchanged. Without one, a scribble is simulated from the mask.

    row: row of the index (`ssvos.data.index`)
    root: root of its paths
    config: parameters of the scribble simulation
    returns: a row with STORE_SCHEMA
    Raises ValueError for a frame with neither a mask nor a scribble.
    """
    mask = read_labels(root / row["mask_path"]) if row["mask_path"] else None
    if row["scribble_path"]:
        seed, scribble = None, read_scribble(root / row["scribble_path"])
    elif mask is not None:
        seed = config.seed
        scribble = simulate_scribble(mask, scribble_rng(seed, row["sequence"], row["frame"]), config)
    else:
        raise ValueError(f"{root / row['image_path']}: neither a mask nor a scribble; give one or leave the frame out")
    coverage, foreground = stroke_shares(scribble)
    check = asdict(check_against_mask(scribble, mask)) if mask is not None else {}
    values = {
        **{key: row[key] for key in _ORDER},
        "png": encode_labels(scribble),
        "objects": list(object_ids(scribble)),
        "coverage": coverage,
        "foreground": foreground,
        "seed": seed,
        **check,
    }
    return {name: values.get(name) for name in STORE_SCHEMA.names}


def write_store(table: pa.Table, path: Path) -> None:
    """Write a store atomically. The same rows in any order and in any chunks give the same bytes."""
    table = table.select(STORE_SCHEMA.names).cast(STORE_SCHEMA).replace_schema_metadata(None)
    table = table.sort_by([(key, "ascending") for key in _ORDER]).combine_chunks()
    with atomic_path(Path(path)) as temporary:
        pq.write_table(table, temporary, row_group_size=_ROW_GROUP, compression="zstd", compression_level=3)


def read_store_table(path: Path) -> pa.Table:
    """Read a store: one Parquet file, or all Parquet files of a folder in the order of their names.

    Raises FileNotFoundError for a missing store, ValueError for a file that is not a store.
    """
    path = Path(path)
    shards = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not shards or not shards[0].is_file():
        raise FileNotFoundError(f"{path}: no scribble store; make the scribbles first")
    tables = []
    for shard in shards:
        try:
            tables.append(pq.read_table(shard, schema=STORE_SCHEMA))
        except pa.ArrowInvalid as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{shard}: not a scribble store ({reason}); make the scribbles again") from error
    return pa.concat_tables(tables)


class ScribbleStore(Mapping[ScribbleKey, np.ndarray]):
    """A mapping from (dataset, sequence, frame) to the scribble, (H, W) uint8. A look-up decodes the scribble."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        keys = zip(*(table[name].to_pylist() for name in ("dataset", "sequence", "frame")), strict=True)
        self._rows = {key: row for row, key in enumerate(keys)}

    def __getitem__(self, key: ScribbleKey) -> np.ndarray:
        return decode_labels(self.table["png"][self._rows[key]].as_py(), "/".join(key))

    def __iter__(self) -> Iterator[ScribbleKey]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def read_store(path: Path) -> ScribbleStore:
    """Read a store as a mapping; raises as `read_store_table`."""
    return ScribbleStore(read_store_table(path))
