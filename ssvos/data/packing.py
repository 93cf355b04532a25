"""Packing of training data: one folder with resized frames and masks, to train on another machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    """Write the training and held-out videos of an index to a pack, with `index.parquet` and `scribbles.parquet`.

    Scribbles are simulated on the masks at full size, so that strokes have the configured width.

    index: the index
    roots: source name -> root of its paths in the index
    config: parameters of the scribble simulation
    out: folder of the pack
    to: source name -> root of its paths in the pack
    height: largest height of packed frames and masks, pixels
    quality: JPEG quality of the frames
    tracked: shows progress: `with tracked(title, total) as advance`
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
            packed.append(_pack_frame(row, roots[row["dataset"]], to[row["dataset"]], height, quality))
            advance()
    write_store(pa.Table.from_pylist(scribbles, schema=STORE_SCHEMA), out / "scribbles.parquet")
    write_index(pa.Table.from_pylist(packed, schema=INDEX_SCHEMA), out / "index.parquet")


def _pack_frame(row: dict[str, Any], root: Path, out: Path, height: int, quality: int) -> dict[str, Any]:
    """Write a frame and its mask, and return its row of the pack's index. Scribbles are in the scribble store."""
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
