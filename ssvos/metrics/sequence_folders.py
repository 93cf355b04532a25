"""Folders <sequence>/<frame>.png of annotations and predictions: listing, checking and reading them."""

from collections.abc import Collection, Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from ssvos.labels import read_labels


def find_sequences(gt_dir: Path, pred_dir: Path, sequences: Sequence[str] | None) -> tuple[str, ...]:
    """The sequences to score: `sequences`, or all folders of gt_dir. Hidden files are ignored.

    Raises FileNotFoundError for a missing folder. Raises ValueError if there is no sequence, if one is listed twice,
    for the folder of a single sequence or one above the sequences, and (without a list) for a file among the folders of
    gt_dir.
    """
    gt_dir, pred_dir = Path(gt_dir), Path(pred_dir)
    for folder, content in ((gt_dir, "annotations"), (pred_dir, "predictions")):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder of {content}; expected <sequence>/<frame>.png in it")
    names = _folder_names(gt_dir) if sequences is None else list(sequences)
    if not names:
        raise ValueError(f"{gt_dir}: no sequence to score; expected folders <sequence>/<frame>.png")
    for name in names:
        if "/" in name or name in (".", ".."):
            raise ValueError(f"{gt_dir}: sequence {name!r} is not the name of a folder; list names without /")
        if names.count(name) > 1:
            raise ValueError(f"{gt_dir}: sequence {name!r} is listed twice; list it once")
        if not (gt_dir / name).is_dir():
            _require_level(gt_dir)
            raise FileNotFoundError(f"{gt_dir / name}: no annotations of this sequence; correct the list of sequences")
        if not (pred_dir / name).is_dir():
            _require_level(gt_dir)
            _require_level(pred_dir)
            raise FileNotFoundError(f"{pred_dir / name}: no predictions of this sequence; predict it or do not list it")
    return tuple(names)


def _folder_names(gt_dir: Path) -> list[str]:
    entries = _visible(gt_dir)
    for entry in entries:
        if not entry.is_dir():
            _require_level(gt_dir)
            raise ValueError(f"{entry}: expected only folders <sequence>/ of annotations here; move this file away")
    return [entry.name for entry in entries]


def _require_level(folder: Path) -> None:
    """ValueError that names the right folder, if `folder` is the folder of a single sequence or above the sequences."""
    if next(folder.glob("*/*.png"), None):
        return
    if next(folder.glob("*.png"), None):
        raise ValueError(f"{folder}: holds frames, not sequences; give the folder above it")
    frame = next(folder.glob("*/*/*.png"), None) or next(folder.glob("*/*/*/*.png"), None)
    if frame:
        raise ValueError(f"{folder}: no sequences in this folder, but some in {frame.parent.parent}; give that folder")


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in Path(folder).iterdir() if not entry.name.startswith("."))


def annotated_frames(gt_dir: Path) -> tuple[str, ...]:
    """The names (stems) of the annotated frames of a sequence, in order. Hidden files are ignored.

    Raises FileNotFoundError if the folder is missing, ValueError if it holds no PNG or any other file.
    """
    if not Path(gt_dir).is_dir():
        raise FileNotFoundError(f"{gt_dir}: no such folder of annotations; expected <frame>.png in it")
    entries = _visible(gt_dir)
    for entry in entries:
        if entry.suffix != ".png" or not entry.is_file():
            raise ValueError(f"{entry}: expected only annotations <frame>.png here; rename it or move it away")
    if not entries:
        raise ValueError(f"{gt_dir}: no annotation in this folder; expected <frame>.png")
    return tuple(entry.stem for entry in entries)


def require_predictions(pred_dir: Path, frames: Iterable[str]) -> None:
    """FileNotFoundError if one of `frames` has no prediction; other files are ignored."""
    for frame in frames:
        path = Path(pred_dir) / f"{frame}.png"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no prediction for this annotated frame; predict every scored frame")


def unscored_notes(
    pred_dir: Path, sequences: Collection[str], is_listed: bool, outputs: Collection[Path] = ()
) -> list[str]:
    """At most two lines about files and folders among the predictions that are not scored.

    They name files that are no <frame>.png and, unless the sequences were listed by name, folders of other sequences.
    Predictions of frames that are not scored are normal, as the benchmarks want them. Hidden files are ignored.

    sequences: the scored ones.
    is_listed: whether a list named them.
    outputs: files that are ignored as well.
    """
    entries = _visible(pred_dir)
    inside = [entry for name in sorted(sequences) for entry in _visible(Path(pred_dir) / name)]
    files = [entry for entry in entries if entry.is_file()] + [entry for entry in inside if entry.suffix != ".png"]
    files = [entry for entry in files if entry.resolve() not in {path.resolve() for path in outputs}]
    folders = [entry for entry in entries if entry.is_dir() and entry.name not in sequences and not is_listed]
    return [
        f"{paths[0]}: {what}, not scored" + (f" (one of {len(paths)})" if len(paths) > 1 else "")
        for paths, what in ((files, "no mask of a sequence"), (folders, "a sequence without annotations"))
        if paths
    ]


def read_pair(gt_dir: Path, pred_dir: Path, frame: str, max_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Read annotation and prediction of one frame, both (H, W) uint8.

    Raises ValueError for a prediction of another size or with an id above `max_id`.
    """
    _keep_freed_memory()
    path = Path(pred_dir) / f"{frame}.png"
    gt, pred = read_labels(Path(gt_dir) / f"{frame}.png"), read_labels(path)
    if gt.shape != pred.shape:
        raise ValueError(
            f"{path}: prediction is {pred.shape[1]} x {pred.shape[0]} pixels, annotation is "
            f"{gt.shape[1]} x {gt.shape[0]}; predict at the annotation's size"
        )
    if pred.max() > max_id:
        raise ValueError(f"{path}: predicted id {pred.max()}, the largest id is {max_id}; use the annotation's ids")
    return gt, pred


@cache
def _keep_freed_memory() -> None:
    """Make the C library reuse the memory of a frame's images for the next frame.

    glibc returns blocks of their size to the system, and the page faults of new blocks take longer than decoding the
    PNG. After a larger block has been freed, glibc keeps blocks of up to 32 MiB (mallopt(3), M_MMAP_THRESHOLD). Other C
    libraries are not affected.
    """
    np.empty(2**24, dtype=np.uint8)
