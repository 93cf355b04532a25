"""Scores of the objects in every frame of a sequence, their means, and the tasks of an evaluation, for all
protocols."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ssvos.labels import BACKGROUND, UNLABELLED
from ssvos.metrics.contour import contour_accuracy, contour_tolerance
from ssvos.metrics.region import region_similarity

OnFrame = Callable[[int], None]
Figures = dict[str, Any]  # of a benchmark: its global figures, and those of each object


def count_frame(on_frame: OnFrame | None) -> None:
    """Call a progress callback, if there is one, after one more frame."""
    if on_frame is not None:
        on_frame(1)


@dataclass(frozen=True)
class SequenceScores:
    """J and F of K objects in the T scored frames of one sequence.

    frames: names (file stems) of the T frames, in order.
    object_ids: the K ids.
    J, F: (K, T) float, in [0, 1]; NaN if the frame does not count for the object.
    present: (K, T) bool, whether the object is visible in the annotation.
    """

    frames: tuple[str, ...]
    object_ids: tuple[int, ...]
    J: np.ndarray
    F: np.ndarray
    present: np.ndarray

    @property
    def counted(self) -> np.ndarray:
        """(K, T) bool, whether a frame counts for an object."""
        counted: np.ndarray = ~np.isnan(self.J)
        return counted

    def rows(self) -> Iterator[tuple[int, str, float, float]]:
        """(object id, frame, J, F) of every frame that counts, object by object."""
        for k, object_id in enumerate(self.object_ids):
            for t in np.flatnonzero(self.counted[k]):
                yield object_id, self.frames[t], float(self.J[k, t]), float(self.F[k, t])


@dataclass(frozen=True)
class Task:
    """A sequence to score.

    score: takes a progress callback or None; it can be pickled and run in another process.
    """

    sequence: str
    num_frames: int
    score: Callable[[OnFrame | None], SequenceScores]


@dataclass(frozen=True)
class Evaluation:
    """The tasks of an evaluation. All its input has been checked except for the contents of the images.

    summarize: from the scores by sequence to the benchmark's figures.
    """

    tasks: tuple[Task, ...]
    summarize: Callable[[Mapping[str, SequenceScores]], Figures]

    @property
    def num_frames(self) -> int:
        """The number of frames to score."""
        return sum(task.num_frames for task in self.tasks)

    def score(self, on_frame: OnFrame | None = None) -> dict[str, SequenceScores]:
        """The scores by sequence. on_frame: called with 1 after each frame."""
        return {task.sequence: task.score(on_frame) for task in self.tasks}


@dataclass(frozen=True)
class PresenceMeans:
    """Scores over object-frames, separately for those with and those without the object; None if there are none.

    present_JF: mean of (J + F) / 2 if the object is visible.
    absent_empty_share: if it is absent, the share of predictions that are empty, as they should be.
    """

    present_JF: float | None
    absent_empty_share: float | None
    num_present: int
    num_absent: int


def present_absent_means(scores: Iterable[SequenceScores]) -> PresenceMeans:
    """Average visible and absent objects separately; a benchmark's mean counts an absent one as 1 or 0.

    Every object-frame has the same weight, whatever its sequence.
    """
    present_JF, absent_J = [np.empty(0)], [np.empty(0)]
    for sequence in scores:
        present_JF.append((sequence.J + sequence.F)[sequence.present & sequence.counted] / 2)
        absent_J.append(sequence.J[~sequence.present & sequence.counted])
    visible, absent = np.concatenate(present_JF), np.concatenate(absent_J)
    return PresenceMeans(
        present_JF=float(visible.mean()) if visible.size else None,
        # without an annotated pixel J is 1 if the prediction is empty, otherwise 0
        absent_empty_share=float((absent == 1).mean()) if absent.size else None,
        num_present=visible.size,
        num_absent=absent.size,
    )


def score_masks(gt: np.ndarray, pred: np.ndarray, tolerance: int | None = None) -> tuple[float, float]:
    """J and F of one object in one frame.

    gt, pred: (H, W) bool.
    tolerance: of F, as in `contour_accuracy`.
    """
    tolerance = contour_tolerance(*gt.shape) if tolerance is None else tolerance
    gt, pred = _cropped(gt, pred)
    return region_similarity(gt, pred), contour_accuracy(gt, pred, tolerance)


def score_objects(gt: np.ndarray, pred: np.ndarray, ids: Sequence[int]) -> tuple[list[float], list[float], list[bool]]:
    """J, F and presence of each object of `ids` in one frame. gt, pred: labels, (H, W) uint8."""
    tolerance = contour_tolerance(*gt.shape)
    # allocating masks of whole frames would take longer than the computation
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
    """`score_objects` of all labels as one object; 255 is background in `gt` and object in `pred`."""
    tolerance = contour_tolerance(*gt.shape)
    gt, pred = _cropped(gt, pred)
    gt, pred = (gt != BACKGROUND) & (gt != UNLABELLED), pred != BACKGROUND
    return [region_similarity(gt, pred)], [contour_accuracy(gt, pred, tolerance)], [bool(gt.any())]


def _cropped(gt: np.ndarray, pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Crop two label images or masks (H, W) to the box where either is not 0, plus a margin of one pixel for
    boundaries."""
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
    """Combine the results of `score_objects` for T frames."""
    J, F, present = zip(*rows, strict=True)
    return SequenceScores(tuple(frames), tuple(ids), np.array(J).T, np.array(F).T, np.array(present, dtype=bool).T)
