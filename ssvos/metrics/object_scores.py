"""What all protocols share: a sequence's label images, its objects' scores in every frame, their means."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ssvos.labels import read_labels
from ssvos.metrics.contour import contour_accuracy, contour_tolerance
from ssvos.metrics.region import region_similarity

OnFrame = Callable[[int], None]


def advance(on_frame: OnFrame | None) -> None:
    """Tell a progress callback, if there is one, that one more frame is scored."""
    if on_frame is not None:
        on_frame(1)


@dataclass(frozen=True)
class SequenceScores:
    """J and F of K objects in the T scored frames of one sequence.

    frames:     the T frames' names (file stems), in order
    object_ids: the K ids
    J, F:       (K, T) float, in [0, 1]
    present:    (K, T) bool, whether the object is visible in the annotation
    """

    frames: tuple[str, ...]
    object_ids: tuple[int, ...]
    J: np.ndarray
    F: np.ndarray
    present: np.ndarray


@dataclass(frozen=True)
class PresenceMeans:
    """Scores over object-frames, those with and those without the object told apart; None without any.

    present_JF:         mean of (J + F) / 2 where the object is visible
    absent_empty_share: where it is absent, the share of predictions that are rightly empty
    """

    present_JF: float | None
    absent_empty_share: float | None
    num_present: int
    num_absent: int


def present_absent_means(scores: Iterable[SequenceScores]) -> PresenceMeans:
    """Score visible objects apart from absent ones, which a benchmark's mean counts as plain 1 or 0.

    Every object-frame counts the same, whatever its sequence.
    """
    present_JF, absent_J = [np.empty(0)], [np.empty(0)]
    for sequence in scores:
        present_JF.append((sequence.J + sequence.F)[sequence.present] / 2)
        absent_J.append(sequence.J[~sequence.present])
    visible, absent = np.concatenate(present_JF), np.concatenate(absent_J)
    return PresenceMeans(
        present_JF=float(visible.mean()) if visible.size else None,
        # Without an annotated pixel J is 1 if the prediction is empty, otherwise 0.
        absent_empty_share=float((absent == 1).mean()) if absent.size else None,
        num_present=visible.size,
        num_absent=absent.size,
    )


def score_masks(gt: np.ndarray, pred: np.ndarray, tolerance: int | None = None) -> tuple[float, float]:
    """J and F of one object in one frame, whose masks are (H, W) bool; `tolerance` is that of F."""
    tolerance = contour_tolerance(*gt.shape) if tolerance is None else tolerance
    window = _window((gt | pred).view(np.uint8))
    gt, pred = gt[window], pred[window]
    return region_similarity(gt, pred), contour_accuracy(gt, pred, tolerance)


def score_objects(gt: np.ndarray, pred: np.ndarray, ids: Sequence[int]) -> tuple[list[float], list[float], list[bool]]:
    """J, F and presence of each of `ids` in one frame, whose labels are (H, W) uint8."""
    tolerance = contour_tolerance(*gt.shape)
    # Masks of whole frames would cost more in fresh memory than all the arithmetic.
    window = _window(gt | pred)
    gt, pred = gt[window], pred[window]
    J, F, present = [], [], []
    for object_id in ids:
        gt_mask = gt == object_id
        j, f = score_masks(gt_mask, pred == object_id, tolerance)
        J.append(j)
        F.append(f)
        present.append(bool(gt_mask.any()))
    return J, F, present


def _window(labels: np.ndarray) -> tuple[slice, slice]:
    """Bounding box of what is not 0, and one pixel more on each side, where a boundary may lie."""
    x, y, width, height = cv2.boundingRect(labels)
    return slice(max(y - 1, 0), y + height + 1), slice(max(x - 1, 0), x + width + 1)


def stack_scores(
    frames: Sequence[str], ids: Sequence[int], rows: Sequence[tuple[list[float], list[float], list[bool]]]
) -> SequenceScores:
    """Put together what `score_objects` gave for each of T frames."""
    J, F, present = zip(*rows, strict=True)
    return SequenceScores(tuple(frames), tuple(ids), np.array(J).T, np.array(F).T, np.array(present, dtype=bool).T)


def find_sequences(gt_dir: Path, pred_dir: Path, sequences: Sequence[str] | None) -> tuple[str, ...]:
    """The sequences to score: `sequences`, or all folders of gt_dir, each with a folder in pred_dir.

    Raises FileNotFoundError for a missing folder, ValueError for none to score, one listed twice, or (without
    a list) a plain file among the folders of gt_dir; hidden files are passed over.
    """
    for folder, content in ((gt_dir, "annotations"), (pred_dir, "predictions")):
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"{folder}: no such folder of {content}; expected <sequence>/<frame>.png in it")
    names = _folder_names(gt_dir) if sequences is None else list(sequences)
    if not names:
        raise ValueError(f"{gt_dir}: no sequence to score; expected folders <sequence>/<frame>.png and a filled list")
    for name in names:
        if "/" in name or name in (".", ".."):
            raise ValueError(f"{gt_dir}: sequence {name!r} leads elsewhere; list the names of folders in it")
        if names.count(name) > 1:
            raise ValueError(f"{gt_dir}: sequence {name!r} is listed twice; list it once")
        if not (Path(gt_dir) / name).is_dir():
            raise FileNotFoundError(
                f"{Path(gt_dir) / name}: no annotations of this sequence; correct the list of sequences"
            )
        if not (Path(pred_dir) / name).is_dir():
            raise FileNotFoundError(
                f"{Path(pred_dir) / name}: no predictions of this sequence; predict it or do not list it"
            )
    return tuple(names)


def _folder_names(gt_dir: Path) -> list[str]:
    entries = sorted(entry for entry in Path(gt_dir).iterdir() if not entry.name.startswith("."))
    for entry in entries:
        if not entry.is_dir():
            raise ValueError(f"{entry}: expected only folders <sequence>/ of annotations here; move this file away")
    return [entry.name for entry in entries]


def annotated_frames(gt_dir: Path) -> tuple[str, ...]:
    """The names (stems) of a sequence's annotated frames, in order; hidden files are passed over.

    Raises FileNotFoundError without the folder, ValueError if it holds no PNG, or something else among them.
    """
    if not Path(gt_dir).is_dir():
        raise FileNotFoundError(f"{gt_dir}: no such folder of annotations; expected <frame>.png in it")
    entries = sorted(entry for entry in Path(gt_dir).iterdir() if not entry.name.startswith("."))
    for entry in entries:
        if entry.suffix != ".png" or not entry.is_file():
            raise ValueError(f"{entry}: expected only annotations <frame>.png here; rename it or move it away")
    if not entries:
        raise ValueError(f"{gt_dir}: no annotation in this folder; expected <frame>.png")
    return tuple(entry.stem for entry in entries)


def require_predictions(pred_dir: Path, frames: Iterable[str]) -> None:
    """Raise FileNotFoundError unless each of `frames` has a prediction; other files do not matter."""
    for frame in frames:
        path = Path(pred_dir) / f"{frame}.png"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no prediction for this annotated frame; predict every scored frame")


def read_pair(gt_dir: Path, pred_dir: Path, frame: str, max_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Annotation and prediction of one frame, both (H, W) uint8.

    Raises ValueError for a prediction of another size, or with an id above `max_id`.
    """
    path = Path(pred_dir) / f"{frame}.png"
    gt, pred = read_labels(Path(gt_dir) / f"{frame}.png"), read_labels(path)
    if gt.shape != pred.shape:
        raise ValueError(
            f"{path}: prediction is {pred.shape[1]} x {pred.shape[0]} pixels, annotation is "
            f"{gt.shape[1]} x {gt.shape[0]}; predict at the annotation's size"
        )
    if pred.max() > max_id:
        raise ValueError(f"{path}: predicted id {pred.max()}, but ids end at {max_id} here; use the annotation's ids")
    return gt, pred
