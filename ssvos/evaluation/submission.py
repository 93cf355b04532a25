"""A zip of predicted masks as a benchmark's server wants it, and every fault that the server would stumble over.

docs/guides/submitting.md says where the layouts come from, and how sure they are.
"""

import hashlib
import os
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ssvos.config import SourceConfig
from ssvos.data.videos import FaultyData, Video, read_source
from ssvos.files import atomic_path
from ssvos.labels import BACKGROUND, UNLABELLED, UNREADABLE, davis_palette, encode_labels, read_labels

# benchmark -> the folder of the zip that the sequences lie in; empty: its root
TOP_FOLDERS = {"davis2017-testdev": "", "youtube-vos": "Annotations/"}
_ROUNDED = 1  # between two colours of one kind: from 9 on, some DAVIS palettes have 191 for the formula's 192
_NO_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say


@dataclass(frozen=True)
class WantedMasks:
    """What the server wants of one sequence.

    frames:   names of the masks that go into the zip
    known:    names of all the sequence's frames; masks of the others may lie there, and are left out
    size:     (height, width); ids: its objects, named by ids_path
    palettes: (256, 3) colours that a mask may have, DAVIS's and those of the annotation that is given
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
    """A submission that was written; num_left_out: masks in the folder that the server does not ask for."""

    num_sequences: int
    num_frames: int
    num_left_out: int
    num_bytes: int
    sha256: str


def wanted_masks(benchmark: str, data: Path) -> list[WantedMasks]:
    """What a benchmark's server wants, sequences in order of names.

    data: DAVIS's folder (JPEGImages, Annotations, ImageSets/2017/test-dev.txt); YouTube-VOS's `valid`, or the
          folder above it
    Raises FileNotFoundError or ValueError (FaultyData with every fault) for a data set that is not whole.
    """
    data = Path(data)
    if not data.is_dir():
        raise FileNotFoundError(f"{data}: no such folder; name the benchmark's data set with --data")
    read = {"davis2017-testdev": _davis_videos, "youtube-vos": _youtube_videos}[benchmark]
    root, videos = read(data)
    faults = [
        f"{root / video.frame_dir}: its frames or its first annotation are missing; unpack the data set again"
        for video, frames, _ in videos
        if not (frames and _first_mask(video))
    ]
    if faults:
        raise FaultyData(faults)
    return sorted((_wanted(root, *found) for found in videos), key=lambda wanted: wanted.sequence)


# a video, the frames whose masks are wanted, and the meta.json that names its objects
_Found = tuple[Video, Sequence[str], Path | None]


def _davis_videos(data: Path) -> tuple[Path, list[_Found]]:
    source = SourceConfig(name="davis", layout="davis", root=str(data))
    return data, [(video, [frame.name for frame in video.frames], None) for video in read_source(source, "test-dev")]


def _youtube_videos(data: Path) -> tuple[Path, list[_Found]]:
    folder = (data / "valid" if (data / "valid").is_dir() else data).resolve()
    meta = folder / "meta.json"
    if not meta.is_file():
        raise FileNotFoundError(f"{meta}: no such file; name YouTube-VOS's valid folder with --data")
    source = SourceConfig(name="youtube-vos", layout="youtube-vos", root=str(folder.parent))
    videos = read_source(source, folder.name)
    return folder.parent, [(video, sorted(set().union(*video.object_frames.values())), meta) for video in videos]


def _first_mask(video: Video) -> str | None:
    """The annotation that the benchmark gives; DAVIS gives that of the first frame, the only one of test-dev."""
    return next((frame.mask_path for frame in video.frames if frame.mask_path), None)


def _wanted(root: Path, video: Video, frames: Sequence[str], meta: Path | None) -> WantedMasks:
    path = root / _first_mask(video)
    labels, palette = read_labels(path), _palette_of(path)
    return WantedMasks(
        video.sequence,
        tuple(frames),
        frozenset(frames) | {frame.name for frame in video.frames},
        labels.shape,
        frozenset(video.categories) if meta else frozenset(_values(labels) - {BACKGROUND, UNLABELLED}),
        meta or path,
        (davis_palette(),) if palette is None else (davis_palette(), palette),
    )


def _values(labels: np.ndarray) -> set[int]:
    """Every value that occurs, 255 too; counting is much faster here than np.unique, which sorts."""
    return set(np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist())


def _palette_of(path: Path) -> np.ndarray | None:
    """(256, 3) uint8 colours of a palette image, black where it names none; None for an image without a palette."""
    with Image.open(path) as image:
        if image.mode != "P":
            return None
        colours = image.getpalette()
    palette = np.zeros(768, np.int16)  # signed, to be compared
    palette[: len(colours)] = colours
    return palette.reshape(256, 3)


def find_faults(pred: Path, wanted: Sequence[WantedMasks], on_frame: Callable[[], None] | None = None) -> list[str]:
    """Every fault of a folder <seq>/<frame>.png, one line each: `path: what is wrong; remedy`.

    Every wanted mask is decoded; `on_frame` is called after each. Raises FileNotFoundError for no folder.
    """
    pred = Path(pred)
    if not pred.is_dir():
        raise FileNotFoundError(f"{pred}: no such folder; expected <seq>/<frame>.png below it")
    names = {video.sequence for video in wanted}
    faults = []
    root = _folder_of_sequences(pred, names)
    if root != pred:
        faults.append(f"{pred}: the sequences lie deeper, in {root}; give that folder")
    faults += _strays(root, names)
    for video in wanted:
        if (root / video.sequence).is_dir():
            faults += _faults_of_sequence(root / video.sequence, video, on_frame)
        else:
            faults.append(f"{root / video.sequence}: missing, the benchmark has this sequence; predict it")
    return faults


def _folder_of_sequences(pred: Path, names: Collection[str]) -> Path:
    """`pred`, or the first folder below it that holds a sequence where `pred` holds none."""
    for folder, subfolders, _ in os.walk(pred):
        subfolders.sort()
        if any(name in names for name in subfolders):
            return Path(folder)
    return pred


def _strays(root: Path, names: Collection[str]) -> Iterator[str]:
    """What lies beside the sequences."""
    for path in sorted(root.iterdir()):
        if path.is_file() and path.suffix == ".png" and not path.name.startswith("."):
            yield f"{path}: lies beside the sequences; put masks in folders <seq>/<frame>.png"
        elif path.is_file() or path.name not in names:
            yield f"{path}: is nothing that the benchmark asks for; remove it"


def _faults_of_sequence(folder: Path, wanted: WantedMasks, on_frame: Callable[[], None] | None) -> Iterator[str]:
    place = _folder_of_masks(folder, wanted)
    present = _present(place, wanted)
    if place != folder:
        yield f"{place}: is a folder too many; move its masks to {folder}"
    for path in [path for level in sorted({folder, place}) for path in sorted(level.iterdir()) if path != place]:
        is_mask = path.is_file() and path.stem in wanted.known and path.suffix.lower() == ".png"
        if is_mask and path.suffix != ".png":
            yield f"{path}: would be left out; rename it to {path.stem}.png"
        elif not is_mask:
            yield f"{path}: is nothing that the benchmark asks for; remove it"
    if not present:
        yield f"{folder}: holds none of the {len(wanted.frames)} masks of this sequence; predict it"
        return
    for frame in wanted.frames:
        path = place / f"{frame}.png"
        if frame in present:
            yield from _faults_of_mask(path, wanted)
        else:
            yield f"{path}: missing, the benchmark wants this frame; predict it"
        if on_frame:
            on_frame()


def _folder_of_masks(folder: Path, wanted: WantedMasks) -> Path:
    """The sequence's folder, or one in it that holds masks where it holds none itself."""
    inner = [] if _present(folder, wanted) else [path for path in sorted(folder.iterdir()) if path.is_dir()]
    return next((path for path in inner if _present(path, wanted)), folder)


def _present(folder: Path, wanted: WantedMasks) -> set[str]:
    """The known frames that have a mask directly in the folder."""
    return {path.stem for path in folder.iterdir() if path.suffix == ".png" and path.is_file()} & wanted.known


def _faults_of_mask(path: Path, wanted: WantedMasks) -> Iterator[str]:
    labels = None
    try:
        labels = read_labels(path)
    except ValueError as error:
        yield str(error)
    shape = _shape_of(path) if labels is None else labels.shape
    if shape and shape != wanted.size:
        yield "{}: mask is {}x{}, its frame {}x{}; resize it".format(path, *shape, *wanted.size)
    if labels is not None:
        yield from _faults_of_values(path, _values(labels), wanted)


def _shape_of(path: Path) -> tuple[int, int] | None:
    """(height, width) of an image that holds no labels; None if it is none."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except UNREADABLE:
        return None


def _faults_of_values(path: Path, values: set[int], wanted: WantedMasks) -> Iterator[str]:
    palette, used = _palette_of(path), sorted(values)
    if palette is None:
        yield f"{path}: is a grey PNG, the benchmark wants palette PNGs; save it with the DAVIS palette"
    elif not any(np.allclose(palette[used], allowed[used], atol=_ROUNDED) for allowed in wanted.palettes):
        # other colours may mean that a program numbered the colours it found, and the values are no object ids
        yield f"{path}: its palette is neither DAVIS's nor the data set's; save the object ids with one of them"
    unknown = values - wanted.ids - {BACKGROUND}
    if unknown:
        numbers, ids = (", ".join(map(str, sorted(found))) for found in (unknown, wanted.ids))
        yield f"{path}: unknown object {numbers}, this sequence has {ids}; use the ids of {wanted.ids_path}"


def write_zip(
    pred: Path,
    wanted: Sequence[WantedMasks],
    out: Path,
    top_folder: str = "",
    on_frame: Callable[[], None] | None = None,
) -> WrittenZip:
    """Write the wanted masks of a folder without faults as a zip, whole or not at all.

    Every mask is encoded anew, and entries are sorted, stored and without times: the same masks give the same bytes.
    """
    with atomic_path(out) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for video in wanted:
                for frame in video.frames:
                    name = f"{video.sequence}/{frame}.png"
                    archive.writestr(_entry(top_folder + name), encode_labels(read_labels(Path(pred) / name)))
                    if on_frame:
                        on_frame()
        with temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        num_bytes = temporary.stat().st_size
    num_frames = sum(len(video.frames) for video in wanted)
    num_present = sum(len(_present(Path(pred) / video.sequence, video)) for video in wanted)
    return WrittenZip(len(wanted), num_frames, num_present - num_frames, num_bytes, digest)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _NO_TIME)
    entry.create_system = 3  # Unix, on whichever system it is written
    entry.external_attr = 0o644 << 16
    return entry
