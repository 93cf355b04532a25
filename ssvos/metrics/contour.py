"""Contour accuracy F (Perazzi et al., CVPR 2016): F-measure of two masks' boundaries within a tolerance."""

import math

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
    stride = gt.shape[1] + tolerance
    gt_points, pred_points = (points_of(boundary_map(mask), stride) for mask in (gt, pred))
    num_gt, num_pred = gt_points.bit_count(), pred_points.bit_count()
    if num_gt == 0 or num_pred == 0:
        return float(num_gt == num_pred)
    precision = (pred_points & dilate(gt_points, tolerance, stride)).bit_count() / num_pred
    recall = (gt_points & dilate(pred_points, tolerance, stride)).bit_count() / num_gt
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def points_of(image: np.ndarray, stride: int) -> int:
    """The set pixels of an (H, W) bool image as the bits of one integer: pixel (y, x) is bit y * stride + x.

    A shift by dy * stride + dx moves all of them at once, many to a machine word.
    """
    rows = np.zeros((image.shape[0], stride), dtype=bool)
    rows[:, : image.shape[1]] = image
    return int.from_bytes(np.packbits(rows, bitorder="little").tobytes(), "little")


def dilate(points: int, radius: int, stride: int) -> int:
    """The pixels no farther than `radius` from one of the points (`points_of`), dx^2 + dy^2 <= radius^2.

    Between the ends of the rows there must be `radius` pixels that do not count: what leaves a row lands there.
    """
    grown, reach = points, 0  # to both sides, along the rows
    above = below = 0
    for dy in range(radius, -1, -1):
        while reach < math.isqrt(radius**2 - dy**2):
            reach += 1
            grown |= points << reach | points >> reach
        if dy:
            # every further turn takes these rows one row outwards
            above, below = (above | grown) >> stride, (below | grown) << stride
    return above | grown | below
