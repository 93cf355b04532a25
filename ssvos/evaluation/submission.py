"""`ssvos submit`: check predicted masks against the requirements of a benchmark's server and write the zip.

docs/guides/submitting.md gives the sources of the layouts, and how certain they are.
"""

import hashlib
import os
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssvos.config import SourceConfig
from ssvos.data.videos import FaultyData, Video, read_source
from ssvos.files import atomic_path
from ssvos.labels import BACKGROUND, UNLABELLED, UNREADABLE, davis_palette, encode_labels, read_labels

# benchmark -> the folder of the sequences in the zip; empty: its root
TOP_FOLDERS = {"davis2017-testdev": "", "youtube-vos": "Annotations/"}
_COLOR_TOLERANCE = 1  # from index 9 on, some DAVIS palettes have 191 where the formula gives 192
_NO_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest time of the zip format


@dataclass(frozen=True)
class RequiredMasks:
    """The masks of one sequence that the server requires.

    frames: the frames whose masks go into the zip.
    known: all frames of the sequence; masks of the other frames are allowed and left out.
    size: (height, width).
    ids: the ids of the objects.
    ids_path: the file that defines the ids.
    palettes: the palettes that a mask may have, (256, 3) each: DAVIS's, and that of the first annotation.
    """

    sequence: str
    frames: tuple[str, ...]
    known: frozenset[str]
    size: tuple[int, int]
    ids: frozenset[int]
    ids_path: Path
    palettes: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class WrittenZip:
    """A written submission.

    num_left_out: number of masks in the folder that the server does not require.
    """

    num_sequences: int
    num_frames: int
    num_left_out: int
    num_bytes: int
    sha256: str


def required_masks(benchmark: str, data: Path) -> list[RequiredMasks]:
    """The masks that the server of a benchmark requires, by sequence name.

    benchmark: `davis2017-testdev` or `youtube-vos`.
    data: DAVIS's folder (JPEGImages, Annotations, ImageSets/2017/test-dev.txt); YouTube-VOS's `valid` or its parent.
    Raises FileNotFoundError or ValueError (FaultyData with every fault) for an incomplete data set.
    """
    data = Path(data)
    if not data.is_dir():
        raise FileNotFoundError(f"{data}: no such folder; name the benchmark's data set with --data")
    read = {"davis2017-testdev": _davis_videos, "youtube-vos": _youtube_videos}[benchmark]
    root, videos = read(data)
    faults = [
        f"{root / one.video.frame_dir}: its frames or its first annotation are missing; unpack the data set again"
        for one in videos
        if not (one.frames and _first_mask(one.video))
    ]
    if faults:
        raise FaultyData(faults)
    return sorted((_required(root, one) for one in videos), key=lambda required: required.sequence)


class _RequiredFrames(NamedTuple):
    """A video, its frames whose masks are required, and the meta.json that names its objects, if there is one."""

    video: Video
    frames: Sequence[str]
    meta: Path | None


def _davis_videos(data: Path) -> tuple[Path, list[_RequiredFrames]]:
    source = SourceConfig(name="davis", layout="davis", root=str(data))
    videos = read_source(source, "test-dev")
    return data, [_RequiredFrames(video, [frame.name for frame in video.frames], None) for video in videos]


def _youtube_videos(data: Path) -> tuple[Path, list[_RequiredFrames]]:
    folder = (data / "valid" if (data / "valid").is_dir() else data).resolve()
    meta = folder / "meta.json"
    if not meta.is_file():
        raise FileNotFoundError(f"{meta}: no such file; name YouTube-VOS's valid folder with --data")
    source = SourceConfig(name="youtube-vos", layout="youtube-vos", root=str(folder.parent))
    videos = read_source(source, folder.name)
    return folder.parent, [
        _RequiredFrames(video, sorted(set().union(*video.object_frames.values())), meta) for video in videos
    ]


def _first_mask(video: Video) -> str | None:
    """The annotation that the benchmark provides; in test-dev that of the first frame is the only one."""
    return next((frame.mask_path for frame in video.frames if frame.mask_path), None)


def _required(root: Path, one: _RequiredFrames) -> RequiredMasks:
    first_mask = _first_mask(one.video)
    assert first_mask is not None
    path = root / first_mask
    labels, palette = read_labels(path), _palette_of(path)
    height, width = labels.shape
    return RequiredMasks(
        one.video.sequence,
        tuple(one.frames),
        frozenset(one.frames) | {frame.name for frame in one.video.frames},
        (height, width),
        frozenset(one.video.categories) if one.meta else frozenset(_values(labels) - {BACKGROUND, UNLABELLED}),
        one.meta or path,
        (davis_palette(),) if palette is None else (davis_palette(), palette),
    )


def _values(labels: np.ndarray) -> set[int]:
    """All values that occur. Counting is much faster than np.unique, which sorts."""
    return set(np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist())


def _palette_of(path: Path) -> np.ndarray | None:
    """The colors of a palette image, (256, 3) int16, black if missing; None for an image without a palette."""
    with Image.open(path) as image:
        if image.mode != "P":
            return None
        colors = image.getpalette() or []
    palette = np.zeros(768, np.int16)  # signed, so that differences do not overflow
    palette[: len(colors)] = colors
    return palette.reshape(256, 3)


def find_faults(pred: Path, required: Sequence[RequiredMasks], on_frame: Callable[[], None] | None = None) -> list[str]:
    """Every fault of a folder <seq>/<frame>.png, one line each: `path: what is wrong; remedy`.

    pred: the folder.
    required: the masks that the server requires; each is decoded.
    on_frame: called after each mask.
    Raises FileNotFoundError if the folder is missing.
    """
    pred = Path(pred)
    if not pred.is_dir():
        raise FileNotFoundError(f"{pred}: no such folder; expected <seq>/<frame>.png below it")
    names = {video.sequence for video in required}
    faults = []
    root = _folder_of_sequences(pred, names)
    if root != pred:
        faults.append(f"{pred}: the sequences are in {root}; give that folder")
    faults += _other_files(root, names)
    for video in required:
        if (root / video.sequence).is_dir():
            faults += _faults_of_sequence(root / video.sequence, video, on_frame)
        else:
            faults.append(f"{root / video.sequence}: missing, the benchmark has this sequence; predict it")
    return faults


def _folder_of_sequences(pred: Path, names: Collection[str]) -> Path:
    """`pred` if it contains a sequence, else the first folder below it that does, else `pred`."""
    for folder, subfolders, _ in os.walk(pred):
        subfolders.sort()
        if any(name in names for name in subfolders):
            return Path(folder)
    return pred


def _other_files(root: Path, names: Collection[str]) -> Iterator[str]:
    """Faults of files and folders next to the sequences."""
    for path in sorted(root.iterdir()):
        if path.is_file() and path.suffix == ".png" and not path.name.startswith("."):
            yield f"{path}: is next to the sequences; put masks in folders <seq>/<frame>.png"
        elif path.is_file() or path.name not in names:
            yield f"{path}: is not part of a submission; remove it"


def _faults_of_sequence(folder: Path, required: RequiredMasks, on_frame: Callable[[], None] | None) -> Iterator[str]:
    mask_folder = _folder_of_masks(folder, required)
    present = _present(mask_folder, required)
    if mask_folder != folder:
        yield f"{mask_folder}: is an extra folder; move its masks to {folder}"
    entries = [path for level in sorted({folder, mask_folder}) for path in sorted(level.iterdir())]
    for path in [path for path in entries if path != mask_folder]:
        is_mask = path.is_file() and path.stem in required.known and path.suffix.lower() == ".png"
        if is_mask and path.suffix != ".png":
            yield f"{path}: the suffix must be .png; rename it to {path.stem}.png"
        elif not is_mask:
            yield f"{path}: is not part of a submission; remove it"
    if not present:
        yield f"{folder}: holds none of the {len(required.frames)} masks of this sequence; predict it"
        return
    for frame in required.frames:
        path = mask_folder / f"{frame}.png"
        if frame in present:
            yield from _faults_of_mask(path, required)
        else:
            yield f"{path}: missing, the benchmark requires this frame; predict it"
        if on_frame:
            on_frame()


def _folder_of_masks(folder: Path, required: RequiredMasks) -> Path:
    """The sequence's folder; if it contains no mask, the first folder in it that does."""
    inner = [] if _present(folder, required) else [path for path in sorted(folder.iterdir()) if path.is_dir()]
    return next((path for path in inner if _present(path, required)), folder)


def _present(folder: Path, required: RequiredMasks) -> set[str]:
    """The known frames that have a mask directly in the folder."""
    return {path.stem for path in folder.iterdir() if path.suffix == ".png" and path.is_file()} & required.known


def _faults_of_mask(path: Path, required: RequiredMasks) -> Iterator[str]:
    labels = None
    try:
        labels = read_labels(path)
    except ValueError as error:
        yield str(error)
    shape = _shape_of(path) if labels is None else labels.shape
    if shape and shape != required.size:
        yield "{}: mask is {}x{}, its frame {}x{}; resize it".format(path, *shape, *required.size)
    if labels is not None:
        yield from _faults_of_values(path, _values(labels), required)


def _shape_of(path: Path) -> tuple[int, ...] | None:
    """(height, width) of an image; None if it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except UNREADABLE:
        return None


def _faults_of_values(path: Path, values: set[int], required: RequiredMasks) -> Iterator[str]:
    palette, used = _palette_of(path), sorted(values)
    if palette is None:
        yield f"{path}: is a grey PNG, the benchmark requires palette PNGs; save it with the DAVIS palette"
    elif not any(np.allclose(palette[used], allowed[used], atol=_COLOR_TOLERANCE) for allowed in required.palettes):
        # another palette may come from a program that numbered the colors it found: its values are no object ids
        yield f"{path}: its palette is neither DAVIS's nor the data set's; save the object ids with one of them"
    unknown = values - required.ids - {BACKGROUND}
    if unknown:
        numbers, ids = (", ".join(map(str, sorted(group))) for group in (unknown, required.ids))
        yield f"{path}: unknown object {numbers}, this sequence has {ids}; use the ids of {required.ids_path}"


def write_zip(
    pred: Path,
    required: Sequence[RequiredMasks],
    out: Path,
    top_folder: str = "",
    on_frame: Callable[[], None] | None = None,
) -> WrittenZip:
    """Write the required masks of a folder without faults as a zip, atomically.

    Every mask is encoded again; entries are sorted, not compressed and without times. The same masks give the same
    bytes.

    top_folder: the folder of the sequences in the zip (`TOP_FOLDERS`).
    on_frame: called after each mask.
    """
    with atomic_path(out) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for video in required:
                for frame in video.frames:
                    name = f"{video.sequence}/{frame}.png"
                    archive.writestr(_entry(top_folder + name), encode_labels(read_labels(Path(pred) / name)))
                    if on_frame:
                        on_frame()
        with temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        num_bytes = temporary.stat().st_size
    num_frames = sum(len(video.frames) for video in required)
    num_present = sum(len(_present(Path(pred) / video.sequence, video)) for video in required)
    return WrittenZip(len(required), num_frames, num_present - num_frames, num_bytes, digest)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _NO_TIME)
    entry.create_system = 3  # Unix, on every system
    entry.external_attr = 0o644 << 16
    return entry
