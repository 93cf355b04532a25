"""Area and width of an object in its annotated mask, by which small and thin objects are found."""

from pathlib import Path

import cv2
import numpy as np

from ssvos.labels import read_labels
from ssvos.metrics.object_scores import SequenceScores


def object_shape(mask: np.ndarray) -> tuple[float, float]:
    """Area and width of a mask (H, W) bool; the area as a share of the frame, the width as a share of its height.

    The width is about the diameter of the largest disk in the mask: 2 d - 1 pixels, where d is the largest distance to
    a pixel outside the mask. Pixels beyond the image border count as outside. Both are 0 for an empty mask.
    """
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    if width == 0:
        return 0.0, 0.0
    box = np.pad(mask[y : y + height, x : x + width], 1).view(np.uint8)
    distance = cv2.distanceTransform(box, cv2.DIST_L2, cv2.DIST_MASK_5)
    return float(np.count_nonzero(box) / mask.size), float((2 * distance.max() - 1) / mask.shape[0])


def shapes_in(gt_dir: Path, scores: SequenceScores) -> np.ndarray:
    """`object_shape` of every object in every scored frame of a sequence, (2, K, T) float.

    gt_dir: the sequence's folder of annotations.
    """
    shapes = np.zeros((2, *scores.J.shape))
    for t, frame in enumerate(scores.frames):
        labels = read_labels(Path(gt_dir) / f"{frame}.png")
        for k, object_id in enumerate(scores.object_ids):
            shapes[:, k, t] = object_shape(labels == object_id)
    return shapes
