"""Videos on disk: the paths of frames, masks and scribbles in each folder layout. No image is opened."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssvos.config import SourceConfig

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
ALL = "all"  # list name of a `folder` source that stands for every sequence and needs no file
_MAX_LISTED = 100  # faults listed in a message


class FaultyData(ValueError):
    """Invalid input data. The message lists up to 100 faults.

    faults: the faults, each one line `path: what is wrong; what to do`
    """

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        lines = "".join(f"\n  {fault}" for fault in self.faults[:_MAX_LISTED])
        lines += f"\n  and {len(self.faults) - _MAX_LISTED} more" if len(self.faults) > _MAX_LISTED else ""
        super().__init__(self.faults[0] if len(self.faults) == 1 else f"{len(self.faults)} faults in the data:{lines}")

    def __reduce__(self) -> tuple[type["FaultyData"], tuple[list[str]]]:
        return FaultyData, (self.faults,)


@dataclass(frozen=True)
class VideoFrame:
    """One frame of a video. Paths are relative to the source's root and have forward slashes.

    name: file name without suffix
    image_path: the image
    mask_path: the dense mask, if any
    scribble_path: the scribble, if any
    """

    name: str
    image_path: str
    mask_path: str | None
    scribble_path: str | None


@dataclass(frozen=True)
class Video:
    """One sequence of one list.

    dataset: name of the source
    split: name of the list
    sequence: name of the sequence
    frames: frames in natural order
    frame_dir: folder of the frames, relative to the source's root
    needs_masks: whether every frame must have a dense mask (DAVIS)
    categories: object id -> category (YouTube-VOS)
    object_frames: object id -> names of the frames that list it (YouTube-VOS)
    stray_paths: label images without a frame, and images that share a name with another image
    """

    dataset: str
    split: str
    sequence: str
    frames: tuple[VideoFrame, ...]
    frame_dir: str
    needs_masks: bool = False
    categories: dict[int, str] = field(default_factory=dict)
    object_frames: dict[int, tuple[str, ...]] = field(default_factory=dict)
    stray_paths: tuple[str, ...] = ()


def natural_key(name: str) -> list[str | int]:
    """A sort key that orders frame2 before frame10."""
    return [int(part) if idx % 2 else part for idx, part in enumerate(re.split(r"([0-9]+)", name))]


def read_source(source: SourceConfig, split: str) -> list[Video]:
    """Find the files of one list of a data set. An `embedded` source must already be rendered, in DAVIS layout.

    source: the data set
    split: the list
    returns: the videos of the list; `ssvos.data.validation.index_video` checks each of them
    Raises FaultyData for an unknown or unreadable list, or a missing folder.
    """
    root, is_folder = Path(source.root), source.layout == "folder"
    names = ("frames", "masks", "scribbles") if is_folder else ("JPEGImages", "Annotations", "Scribbles")
    if source.layout == "youtube-vos":
        sequences = read_sequences(source, split)
        _require_folders(source, root / split, names)
        return _read_youtube_vos(source, split, sequences)
    _require_folders(source, root, names)
    sequences = read_sequences(source, split)
    parents = [root / name if is_folder else _at_480p(root / name) for name in names]
    return [_read_video(source, split, name, parents, needs_masks=not is_folder) for name in sequences]


def _require_folders(source: SourceConfig, root: Path, names: Sequence[str]) -> None:
    """Report one fault for a folder that is not a data set, instead of one fault per video."""
    frames, masks, scribbles = names
    _require_root(source)
    if not (root / frames).is_dir():
        raise FaultyData([f"{root}: contains no {frames}/, so its layout is not {source.layout}; see docs/data.md"])
    if not ((root / masks).is_dir() or (root / scribbles).is_dir()):
        raise FaultyData([f"{root}: contains neither {masks}/ nor {scribbles}/; add one of them, see docs/data.md"])


def _require_root(source: SourceConfig) -> None:
    if not source.root or not Path(source.root).is_dir():
        raise FaultyData([f"{source.root or source.name}: no such folder; set the root of source {source.name}"])


def read_sequences(source: SourceConfig, split: str) -> list[str]:
    """The sequences of one list, in its order. Raises FaultyData for an unknown or unreadable list."""
    _require_root(source)
    root = Path(source.root)
    if source.layout == "youtube-vos":
        if not (root / split / "meta.json").is_file():
            lists = sorted(path.parent.name for path in root.glob("*/meta.json"))
            raise FaultyData([f"{root / split / 'meta.json'}: no such list; {_list_remedy(lists)}"])
        return sorted(_read_meta(root / split / "meta.json"))
    if source.layout == "folder" and split == ALL:
        names = [path.name for path in _visible(root / "frames") if path.is_dir()]
        if not names:
            raise FaultyData([f"{root / 'frames'}: contains no folder of frames; give each video its own folder"])
        return names
    folders = (
        [root] if source.layout == "folder" else [root / "ImageSets" / sub for sub in ("2017", "2016", "", "480p")]
    )
    paths = [folder / f"{split}.txt" for folder in folders if (folder / f"{split}.txt").is_file()]
    if not paths:
        lists = sorted({path.stem for folder in folders for path in folder.glob("*.txt")})
        lists += [ALL] if source.layout == "folder" else []
        raise FaultyData([f"{folders[0] / split}.txt: no such list; {_list_remedy(lists)}"])
    return read_list(paths[0])


def _list_remedy(lists: list[str]) -> str:
    return f"choose one of {', '.join(lists)}" if lists else "write a list with one sequence per line"


def read_list(path: Path) -> list[str]:
    """The sequences of a list file, without duplicates.

    path: text file; a line is a sequence, or an image path and a mask path as in the 2016 release of DAVIS
    Raises FaultyData for a file that is not a list, or a line that points outside the data set.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise FaultyData([f"{path}: not a text file; write one sequence per line"]) from error
    if not lines:
        raise FaultyData([f"{path}: the list is empty; write one sequence per line"])
    return list(dict.fromkeys(_sequence_of(line, path) for line in lines))


def _sequence_of(line: str, path: Path) -> str:
    first = Path(line.split()[0])
    is_image = "/" in line and first.suffix.lower() in IMAGE_SUFFIXES
    name = first.parent.name if is_image else line
    if "/" in name or name in ("", ".", ".."):
        raise FaultyData([f"{path}: {line!r} is not a sequence; write the name of a folder of frames"])
    return name


def _read_meta(path: Path) -> dict[str, dict[str, Any]]:
    try:
        videos: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["videos"]
        for video in videos.values():
            for object_id, entry in video["objects"].items():
                int(object_id), entry["category"], list(entry.get("frames", ()))
        invalid = [name for name in videos if "/" in name or name in ("", ".", "..")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise FaultyData([f"{path}: not a YouTube-VOS meta.json ({reason}); use the released one"]) from error
    if invalid:
        raise FaultyData([f"{path}: {invalid[0]!r} is not a sequence; write the name of a folder of frames"])
    if not videos:
        raise FaultyData([f"{path}: lists no video; use the released one"])
    return videos


def _read_youtube_vos(source: SourceConfig, split: str, sequences: list[str]) -> list[Video]:
    root = Path(source.root) / split
    meta = _read_meta(root / "meta.json")
    parents = [root / name for name in ("JPEGImages", "Annotations", "Scribbles")]
    videos = []
    for name in sequences:
        objects = {int(object_id): entry for object_id, entry in meta[name]["objects"].items()}
        categories = {object_id: str(entry["category"]) for object_id, entry in objects.items()}
        frames = {object_id: tuple(entry.get("frames", ())) for object_id, entry in objects.items()}
        videos.append(_read_video(source, split, name, parents, False, categories, frames))
    return videos


def _read_video(
    source: SourceConfig,
    split: str,
    sequence: str,
    parents: Sequence[Path],
    needs_masks: bool,
    categories: dict[int, str] | None = None,
    object_frames: dict[int, tuple[str, ...]] | None = None,
) -> Video:
    """parents: the folders of all sequences' frames, masks and scribbles."""
    root = Path(source.root)
    images, masks, scribbles = (
        _by_stem(root, parent / sequence, suffixes)
        for parent, suffixes in zip(parents, (IMAGE_SUFFIXES, (".png",), (".png",)), strict=True)
    )
    frames = tuple(
        VideoFrame(
            name,
            images[name][0],
            *(paths[name][0] if name in paths else None for paths in (masks, scribbles)),
        )
        for name in sorted(images, key=natural_key)
    )
    strays = [path for paths in (images, masks, scribbles) for same_name in paths.values() for path in same_name[1:]]
    strays += [paths[name][0] for paths in (masks, scribbles) for name in paths if name not in images]
    return Video(
        source.name,
        split,
        sequence,
        frames,
        frame_dir=(parents[0] / sequence).relative_to(root).as_posix(),
        # A sequence with scribbles drawn by people has no mask. A sequence with at least one mask needs all of them.
        needs_masks=needs_masks and bool(masks),
        categories=categories or {},
        object_frames=object_frames or {},
        stray_paths=tuple(strays),
    )


def _at_480p(folder: Path) -> Path:
    return folder / "480p" if (folder / "480p").is_dir() else folder


def _visible(folder: Path) -> list[Path]:
    """The files of a folder sorted by name, without hidden files such as `._00000.jpg` from macOS."""
    return sorted(path for path in folder.glob("*") if not path.name.startswith("."))


def _by_stem(root: Path, folder: Path, suffixes: tuple[str, ...]) -> dict[str, list[str]]:
    """Name without suffix -> paths relative to the root, for the images of a folder without its subfolders."""
    paths: dict[str, list[str]] = {}
    for path in _visible(folder):
        if path.suffix.lower() in suffixes:
            paths.setdefault(path.stem, []).append(path.relative_to(root).as_posix())
    return paths
