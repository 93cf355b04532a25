"""The index of the data: a Parquet file with one row per frame, written after every file has been checked."""

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ssvos.config import SourceConfig
from ssvos.data.validation import index_video
from ssvos.data.videos import FaultyData, Video, read_source
from ssvos.files import atomic_path

# objects is null for an unlabelled frame. categories is JSON, {"id": "category"}, or null without categories.
INDEX_SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("split", pa.string()),
        ("sequence", pa.string()),
        ("frame", pa.string()),
        ("position", pa.int32()),
        ("image_path", pa.string()),
        ("mask_path", pa.string()),
        ("scribble_path", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("objects", pa.list_(pa.int32())),
        ("categories", pa.string()),
        ("fingerprint", pa.string()),
    ]
)


def build_index(
    sources: Sequence[SourceConfig],
    splits: Mapping[str, Sequence[str]] | None = None,
    on_frame: Callable[[], None] | None = None,
) -> pa.Table:
    """Check every frame and label of the lists and index them, in this process.

    For a parallel version, map `index_video` over the result of `list_videos`, and call `index_table`.

    sources: the data sets
    splits: source name -> its lists; by default its training list and its evaluation list, if any
    on_frame: called after every frame
    returns: a table with INDEX_SCHEMA
    Raises FaultyData with all faults.
    """
    videos, faults = list_videos(sources, splits)
    return index_table((index_video(root, video, on_frame) for root, video in videos), faults)


def list_videos(
    sources: Sequence[SourceConfig], splits: Mapping[str, Sequence[str]] | None = None
) -> tuple[list[tuple[Path, Video]], list[str]]:
    """Find the videos of the lists.

    sources: the data sets
    splits: as in `build_index`
    returns: root of the paths and video, for each video; and the faults of the lists themselves
    """
    videos: list[tuple[Path, Video]] = []
    faults: list[str] = []
    for source in sources:
        sequences: dict[str, set[str]] = {}
        for split in dict.fromkeys((splits or {}).get(source.name, (source.train, source.val))):
            if not split:
                continue
            try:
                listed = read_source(source, split)
            except FaultyData as error:
                faults += [fault for fault in error.faults if fault not in faults]
                continue
            videos += [(Path(source.root), video) for video in listed]
            sequences[split] = {video.sequence for video in listed}
        faults += _leaks(source, sequences)
        if source.train == source.val:
            faults.append(
                f"{source.root}: {source.train!r} is both the train and the val list of {source.name}; name two lists"
            )
    names = [source.name for source in sources]
    faults += [
        f"{name}: two sources have this name; rename one" for name in sorted({n for n in names if names.count(n) > 1})
    ]
    return videos, faults


def _leaks(source: SourceConfig, sequences: Mapping[str, set[str]]) -> Iterable[str]:
    """Faults for the evaluation sequences that another list contains."""
    evaluation = sequences.get(source.val, set())
    for split in sequences.keys() - {source.val}:
        for sequence in sorted(evaluation & sequences[split]):
            yield f"{source.root}: {sequence} is in both {split} and {source.val}; remove it from one list"


def index_table(indexed: Iterable[tuple[list[dict[str, Any]], list[str]]], faults: Collection[str] = ()) -> pa.Table:
    """Join the results of `index_video` in a table with INDEX_SCHEMA.

    indexed: the results, in the order of the videos
    faults: faults of the lists
    Raises FaultyData if there is any fault.
    """
    rows: list[dict[str, Any]] = []
    all_faults = list(faults)
    for video_rows, video_faults in indexed:
        rows += video_rows
        all_faults += video_faults
    if all_faults:
        raise FaultyData(all_faults)
    return pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)


def labelled_frames(table: pa.Table) -> pa.Table:
    """The rows with a mask or a scribble."""
    return table.filter(pc.or_(pc.is_valid(table["mask_path"]), pc.is_valid(table["scribble_path"])))


def write_index(table: pa.Table, path: Path) -> None:
    """Write an index as one Parquet file, atomically."""
    with atomic_path(Path(path)) as temporary:
        pq.write_table(table.cast(INDEX_SCHEMA).combine_chunks(), temporary, compression="zstd", compression_level=3)


def read_index(path: Path) -> pa.Table:
    """Read an index that `write_index` wrote.

    Raises FileNotFoundError for a missing file, ValueError for one that is not an index.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such index; prepare the data first")
    try:
        return pq.read_table(path, schema=INDEX_SCHEMA)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: not an index ({str(error).splitlines()[0]}); prepare the data again") from error


@dataclass(frozen=True)
class IndexedFrame:
    """One row of the index. Paths are relative to the source's root.

    name: file name without suffix
    image_path: the image
    mask_path: the dense mask, if any
    scribble_path: the scribble, if any
    height: height of the image, pixels
    width: width of the image, pixels
    objects: object ids in the mask, or in the scribble without a mask; None for an unlabelled frame
    fingerprint: digest of the frame's files
    """

    name: str
    image_path: str
    mask_path: str | None
    scribble_path: str | None
    height: int
    width: int
    objects: tuple[int, ...] | None
    fingerprint: str


@dataclass(frozen=True)
class IndexedVideo:
    """The rows of one video.

    dataset: name of the source
    split: role of the video, or name of its list
    sequence: name of the sequence
    frames: frames in order
    categories: object id -> category; empty without categories
    """

    dataset: str
    split: str
    sequence: str
    frames: tuple[IndexedFrame, ...]
    categories: dict[int, str]

    @property
    def objects(self) -> tuple[int, ...]:
        """All object ids of the video, in ascending order."""
        return tuple(sorted({object_id for frame in self.frames for object_id in frame.objects or ()}))


def videos_of(table: pa.Table) -> list[IndexedVideo]:
    """Group the rows of an index into videos, in the index's order."""
    videos = []
    for key, group in groupby(table.to_pylist(), key=lambda row: (row["dataset"], row["split"], row["sequence"])):
        rows = sorted(group, key=lambda row: row["position"])
        categories = {int(k): v for k, v in json.loads(rows[0]["categories"] or "{}").items()}
        videos.append(IndexedVideo(*key, tuple(_indexed_frame(row) for row in rows), categories))
    return videos


def _indexed_frame(row: dict[str, Any]) -> IndexedFrame:
    objects = None if row["objects"] is None else tuple(row["objects"])
    columns = ("image_path", "mask_path", "scribble_path", "height", "width", "fingerprint")
    return IndexedFrame(name=row["frame"], objects=objects, **{column: row[column] for column in columns})


def fingerprint_listing(root: Path) -> str:
    """A digest, 16 hex digits, of the relative paths and sizes of all files below a folder; no file is opened."""
    if not Path(root).is_dir():
        raise FileNotFoundError(f"{root}: no such folder; set the root of the source")
    lines = []
    for folder, _, names in os.walk(root, followlinks=True):
        for name in names:
            path = Path(folder, name)
            lines.append(f"{path.relative_to(root).as_posix()}\t{path.stat().st_size}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()[:16]


def hold_out(sequences: Collection[str], fraction: float, seed: int) -> set[str]:
    """Choose the sequences that are held out of training to choose the checkpoint.

    sequences: training sequences; their order has no effect
    fraction: share to hold out; at least one sequence is chosen, and never all
    seed: seed of the choice
    Raises ValueError for fewer than two sequences.
    """
    if len(set(sequences)) < 2:
        raise ValueError(
            f"{', '.join(sequences) or 'no sequence'}: too few training sequences to hold one out; "
            "add a second, or name a list in data.holdout_split"
        )
    ranked = sorted(set(sequences), key=lambda name: hashlib.sha256(f"{seed}\n{name}".encode()).hexdigest())
    return set(ranked[: min(max(1, round(fraction * len(ranked))), len(ranked) - 1)])
