"""Packing what a training reads into one small folder: frames at training size, for a machine that has little else."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import pyarrow as pa

from ssvos.config import ScribbleConfig
from ssvos.data.clip_sources import read_frame, resize_mask
from ssvos.data.index import INDEX_SCHEMA, labelled_frames, write_index
from ssvos.data.preparation import Tracked
from ssvos.files import write_bytes
from ssvos.labels import encode_labels, read_labels
from ssvos.scribbles.store import STORE_SCHEMA, scribble_row, write_store


def pack(
    index: pa.Table,
    roots: Mapping[str, Path],
    config: ScribbleConfig,
    out: Path,
    to: Mapping[str, Path],
    height: int,
    quality: int,
    tracked: Tracked,
) -> None:
    """Write the videos of an index that train and choose, frames and masks no higher than `height`, frames as JPEG of
    this quality.

    roots, to: by data set, the folder that its paths start from now, and in the pack. `out` gets `index.parquet`, and
    `scribbles.parquet` of the masks as they were, at their full size, where a stroke is as wide as it is meant to be.
    """
    rows = [row for row in index.to_pylist() if row["split"] != "val"]
    labelled = labelled_frames(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)).to_pylist()
    with tracked("packing", len(rows) + len(labelled)) as advance:
        scribbles = []
        for row in labelled:
            scribbles.append(scribble_row(row, roots[row["dataset"]], config))
            advance()
        packed = []
        for row in rows:
            packed.append(_packed(row, roots[row["dataset"]], to[row["dataset"]], height, quality))
            advance()
    write_store(pa.Table.from_pylist(scribbles, schema=STORE_SCHEMA), out / "scribbles.parquet")
    write_index(pa.Table.from_pylist(packed, schema=INDEX_SCHEMA), out / "index.parquet")


def _packed(row: dict, root: Path, out: Path, height: int, quality: int) -> dict:
    """Write a frame and its mask -> its row of the index. A scribble that a person drew is in the store."""
    size = (row["height"], row["width"])
    if height < size[0]:
        size = (height, round(height * row["width"] / row["height"]))
    image_path = str(Path(row["image_path"]).with_suffix(".jpg"))
    frame = read_frame(root / row["image_path"], *size)
    _, data = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    write_bytes(out / image_path, data.tobytes())
    if row["mask_path"]:
        write_bytes(out / row["mask_path"], encode_labels(resize_mask(read_labels(root / row["mask_path"]), *size)))
    return row | {"image_path": image_path, "scribble_path": None, "height": size[0], "width": size[1]}
