"""What all protocols share: the objects' scores in every frame of a sequence, their means, an evaluation's work."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ssvos.labels import BACKGROUND, UNLABELLED
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
    J, F:       (K, T) float, in [0, 1]; NaN where a frame does not count for an object
    present:    (K, T) bool, whether the object is visible in the annotation
    """

    frames: tuple[str, ...]
    object_ids: tuple[int, ...]
    J: np.ndarray
    F: np.ndarray
    present: np.ndarray

    @property
    def counted(self) -> np.ndarray:
        """(K, T) bool, the frames that count for an object."""
        return ~np.isnan(self.J)

    def rows(self) -> Iterator[tuple[int, str, float, float]]:
        """(object id, frame, J, F) of every frame that counts, object by object."""
        for k, object_id in enumerate(self.object_ids):
            for t in np.flatnonzero(self.counted[k]):
                yield object_id, self.frames[t], float(self.J[k, t]), float(self.F[k, t])


@dataclass(frozen=True)
class Task:
    """A sequence to score. score: takes a progress callback, or None; it may be sent to another process."""

    sequence: str
    num_frames: int
    score: Callable[[OnFrame | None], SequenceScores]


@dataclass(frozen=True)
class Evaluation:
    """The work of an evaluation, all that is given having been looked at but for the pixels.

    summarize: sequence -> scores to the benchmark's figures
    """

    tasks: tuple[Task, ...]
    summarize: Callable[[Mapping[str, SequenceScores]], dict]

    @property
    def num_frames(self) -> int:
        return sum(task.num_frames for task in self.tasks)

    def score(self, on_frame: OnFrame | None = None) -> dict[str, SequenceScores]:
        """The scores by sequence; nothing else of a sequence is kept. on_frame: called with 1 after each frame."""
        return {task.sequence: task.score(on_frame) for task in self.tasks}


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
        present_JF.append((sequence.J + sequence.F)[sequence.present & sequence.counted] / 2)
        absent_J.append(sequence.J[~sequence.present & sequence.counted])
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
    gt, pred = _cropped(gt, pred)
    return region_similarity(gt, pred), contour_accuracy(gt, pred, tolerance)


def score_objects(gt: np.ndarray, pred: np.ndarray, ids: Sequence[int]) -> tuple[list[float], list[float], list[bool]]:
    """J, F and presence of each of `ids` in one frame, whose labels are (H, W) uint8."""
    tolerance = contour_tolerance(*gt.shape)
    # Masks of whole frames would cost more in fresh memory than all the arithmetic.
    gt, pred = _cropped(gt, pred)
    J, F, present = [], [], []
    for object_id in ids:
        gt_mask = gt == object_id
        j, f = score_masks(gt_mask, pred == object_id, tolerance)
        J.append(j)
        F.append(f)
        present.append(bool(gt_mask.any()))
    return J, F, present


def score_foreground(gt: np.ndarray, pred: np.ndarray) -> tuple[list[float], list[float], list[bool]]:
    """`score_objects` of the one object that all labels make up; 255 is background in `gt`, an object in `pred`."""
    tolerance = contour_tolerance(*gt.shape)
    gt, pred = _cropped(gt, pred)
    gt, pred = (gt != BACKGROUND) & (gt != UNLABELLED), pred != BACKGROUND
    return [region_similarity(gt, pred)], [contour_accuracy(gt, pred, tolerance)], [bool(gt.any())]


def _cropped(gt: np.ndarray, pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part of two label images or masks (H, W) where either is not 0, and one pixel more on each side, where a
    boundary may lie."""
    boxes = np.array([cv2.boundingRect(image.view(np.uint8)) for image in (gt, pred)])
    boxes = boxes[boxes[:, 2] > 0]  # an empty image has the box 0, 0, 0, 0
    if not len(boxes):
        return gt[:0], pred[:0]
    left, top = np.maximum(boxes[:, :2].min(axis=0) - 1, 0)
    right, bottom = (boxes[:, :2] + boxes[:, 2:]).max(axis=0) + 1
    return gt[top:bottom, left:right], pred[top:bottom, left:right]


def stack_scores(
    frames: Sequence[str], ids: Sequence[int], rows: Sequence[tuple[list[float], list[float], list[bool]]]
) -> SequenceScores:
    """Put together what `score_objects` gave for each of T frames."""
    J, F, present = zip(*rows, strict=True)
    return SequenceScores(tuple(frames), tuple(ids), np.array(J).T, np.array(F).T, np.array(present, dtype=bool).T)
