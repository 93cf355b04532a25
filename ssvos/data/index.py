"""The index: one Parquet row a frame, made once after every file of the data has been opened and judged."""

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ssvos.config import SourceConfig
from ssvos.data.validation import index_video
from ssvos.data.videos import FaultyData, Video, read_source
from ssvos.files import atomic_path

# objects is null on an unlabelled frame, categories ({"id": "category"}) where the data set has none.
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
    """Open every frame and label of the lists and index them, in this process.

    splits: source name -> its lists; by default those it trains and judges on, where they are named.
    Raises FaultyData with every fault found. To work in parallel, map `index_video` over `list_videos` and
    pass what comes back to `index_table`.
    """
    videos, faults = list_videos(sources, splits)
    return index_table((index_video(root, video, on_frame) for root, video in videos), faults)


def list_videos(
    sources: Sequence[SourceConfig], splits: Mapping[str, Sequence[str]] | None = None
) -> tuple[list[tuple[Path, Video]], list[str]]:
    """The videos of the lists, each with the root of its paths, and the faults of the lists themselves."""
    videos: list[tuple[Path, Video]] = []
    faults: list[str] = []
    for source in sources:
        sequences: dict[str, set[str]] = {}
        for split in dict.fromkeys((splits or {}).get(source.name, (source.train, source.val))):
            if not split:
                continue
            try:
                found = read_source(source, split)
            except FaultyData as error:
                faults += [fault for fault in error.faults if fault not in faults]
                continue
            videos += [(Path(source.root), video) for video in found]
            sequences[split] = {video.sequence for video in found}
        faults += _leaks(source, sequences)
        if source.train == source.val:
            faults.append(f"{source.root}: {source.train!r} both trains and judges {source.name}; name two lists")
    names = [source.name for source in sources]
    faults += [
        f"{name}: two sources have this name; rename one" for name in sorted({n for n in names if names.count(n) > 1})
    ]
    return videos, faults


def _leaks(source: SourceConfig, sequences: Mapping[str, set[str]]) -> Iterable[str]:
    """A judged sequence may be in no other list."""
    judged = sequences.get(source.val, set())
    for split in sequences.keys() - {source.val}:
        for sequence in sorted(judged & sequences[split]):
            yield f"{source.root}: {sequence} is in both {split} and {source.val}; take it out of one list"


def index_table(indexed: Iterable[tuple[list[dict], list[str]]], faults: Collection[str] = ()) -> pa.Table:
    """Gather what `index_video` returned, in order. Raises FaultyData if there was any fault."""
    rows: list[dict] = []
    all_faults = list(faults)
    for video_rows, video_faults in indexed:
        rows += video_rows
        all_faults += video_faults
    if all_faults:
        raise FaultyData(all_faults)
    return pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)


def labelled_frames(table: pa.Table) -> pa.Table:
    """The rows that have a mask or a scribble."""
    return table.filter(pc.or_(pc.is_valid(table["mask_path"]), pc.is_valid(table["scribble_path"])))


def write_index(table: pa.Table, path: Path) -> None:
    """Write an index as one Parquet file, whole or not at all."""
    with atomic_path(Path(path)) as temporary:
        pq.write_table(table.cast(INDEX_SCHEMA).combine_chunks(), temporary, compression="zstd", compression_level=3)


def read_index(path: Path) -> pa.Table:
    """Read an index that `write_index` wrote."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such index; prepare the data first")
    try:
        return pq.read_table(path, schema=INDEX_SCHEMA)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: not an index ({str(error).splitlines()[0]}); prepare the data again") from error


@dataclass(frozen=True)
class IndexedFrame:
    """One row of the index: a VideoFrame with what decoding found; objects is None where unlabelled."""

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
    """The rows of one video, frames in order."""

    dataset: str
    split: str
    sequence: str
    frames: tuple[IndexedFrame, ...]
    categories: dict[int, str]

    @property
    def objects(self) -> tuple[int, ...]:
        """All object ids of the video, in order."""
        return tuple(sorted({object_id for frame in self.frames for object_id in frame.objects or ()}))


def videos_of(table: pa.Table) -> list[IndexedVideo]:
    """The videos of an index, in its order."""
    videos = []
    for key, group in groupby(table.to_pylist(), key=lambda row: (row["dataset"], row["split"], row["sequence"])):
        rows = sorted(group, key=lambda row: row["position"])
        categories = {int(k): v for k, v in json.loads(rows[0]["categories"] or "{}").items()}
        videos.append(IndexedVideo(*key, tuple(_indexed_frame(row) for row in rows), categories))
    return videos


def _indexed_frame(row: dict) -> IndexedFrame:
    objects = None if row["objects"] is None else tuple(row["objects"])
    same = ("image_path", "mask_path", "scribble_path", "height", "width", "fingerprint")
    return IndexedFrame(name=row["frame"], objects=objects, **{key: row[key] for key in same})


def fingerprint_listing(root: Path) -> str:
    """16 hex digits over the relative paths and sizes of all files below a folder; no file is opened."""
    if not Path(root).is_dir():
        raise FileNotFoundError(f"{root}: no such folder; set the root of the source")
    lines = []
    for folder, _, names in os.walk(root, followlinks=True):
        for name in names:
            path = Path(folder, name)
            lines.append(f"{path.relative_to(root).as_posix()}\t{path.stat().st_size}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()[:16]


def hold_out(sequences: Collection[str], fraction: float, seed: int) -> set[str]:
    """Choose sequences for judging checkpoints: the same whatever the order, at least one, never all."""
    if len(set(sequences)) < 2:
        raise ValueError(
            f"{', '.join(sequences) or 'no sequence'}: alone on the training list, none can be held out; "
            "add a second, or name a list in data.holdout_split"
        )
    ranked = sorted(set(sequences), key=lambda name: hashlib.sha256(f"{seed}\n{name}".encode()).hexdigest())
    return set(ranked[: min(max(1, round(fraction * len(ranked))), len(ranked) - 1)])
