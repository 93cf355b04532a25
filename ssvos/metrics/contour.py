"""Contour accuracy F (Perazzi et al., CVPR 2016): F-measure of two masks' boundaries within a tolerance."""

import math
from functools import cache

import cv2
import numpy as np

TOLERANCE_SHARE = 0.008  # of the image's diagonal


def contour_tolerance(height: int, width: int) -> int:
    """How far apart two boundary pixels may lie and still match, in pixels of a height x width image."""
    return math.ceil(TOLERANCE_SHARE * math.sqrt(height**2 + width**2))


def boundary_map(mask: np.ndarray) -> np.ndarray:
    """Boundary pixels of a mask, both (H, W) bool: those unlike their right, lower or lower-right neighbour.

    The boundary is one pixel wide and lies half a pixel up-left of the true edge. The image border is none:
    a mask that fills the image has no boundary.
    """
    boundary = np.zeros_like(mask)
    boundary[:, :-1] = mask[:, :-1] ^ mask[:, 1:]
    boundary[:-1] |= mask[:-1] ^ mask[1:]
    boundary[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return boundary


def contour_accuracy(gt: np.ndarray, pred: np.ndarray, tolerance: int | None = None) -> float:
    """F of an annotated and a predicted mask, both (H, W) bool; in [0, 1].

    Precision is the share of predicted boundary pixels with an annotated one within `tolerance` pixels (by
    default `contour_tolerance` of H and W), recall the reverse; F = 2PR / (P + R). Without any boundary F is
    1; with one in a single mask it is 0.
    """
    assert gt.dtype == pred.dtype == bool and gt.shape == pred.shape, (
        gt.dtype,
        pred.dtype,
        gt.shape,
        pred.shape,
    )
    tolerance = contour_tolerance(*gt.shape) if tolerance is None else tolerance
    gt_boundary, pred_boundary = boundary_map(gt), boundary_map(pred)
    num_gt, num_pred = np.count_nonzero(gt_boundary), np.count_nonzero(pred_boundary)
    if num_gt == 0 or num_pred == 0:
        return float(num_gt == num_pred)
    precision = np.count_nonzero(pred_boundary & dilate(gt_boundary, tolerance)) / num_pred
    recall = np.count_nonzero(gt_boundary & dilate(pred_boundary, tolerance)) / num_gt
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def dilate(points: np.ndarray, radius: int) -> np.ndarray:
    """The pixels no farther than `radius` from a set one, both (H, W) bool."""
    points = points.view(np.uint8)
    grown = np.zeros_like(points)
    for rectangle in _disk_rectangles(radius):
        cv2.max(grown, cv2.dilate(points, rectangle), dst=grown)
    return grown.view(bool)


@cache
def _disk_rectangles(radius: int) -> tuple[np.ndarray, ...]:
    """Rectangles whose union is the disk dx^2 + dy^2 <= radius^2.

    OpenCV dilates by a rectangle in two passes, by all of these together faster than by the disk.
    """
    tallest = {math.isqrt(radius**2 - dy**2): dy for dy in range(radius + 1)}
    return tuple(np.ones((2 * dy + 1, 2 * dx + 1), dtype=np.uint8) for dx, dy in tallest.items())
