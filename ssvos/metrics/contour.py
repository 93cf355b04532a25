"""Contour accuracy F (Perazzi et al., CVPR 2016): F-measure of two masks' boundaries within a tolerance."""

import math

import numpy as np

TOLERANCE_SHARE = 0.008  # of the image's diagonal


def contour_tolerance(height: int, width: int) -> int:
    """The largest distance at which two boundary pixels match, in pixels of a height x width image."""
    return math.ceil(TOLERANCE_SHARE * math.sqrt(height**2 + width**2))


def boundary_map(mask: np.ndarray) -> np.ndarray:
    """Boundary pixels of a mask, both (H, W) bool: those that differ from their right, lower or lower-right neighbour.

    The boundary is one pixel wide, half a pixel up-left of the true edge. The image border is not a boundary: a mask
    that fills the image has none.
    """
    boundary = np.zeros_like(mask)
    boundary[:, :-1] = mask[:, :-1] ^ mask[:, 1:]
    boundary[:-1] |= mask[:-1] ^ mask[1:]
    boundary[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return boundary


def contour_accuracy(gt: np.ndarray, pred: np.ndarray, tolerance: int | None = None) -> float:
    """F of an annotated and a predicted mask, both (H, W) bool; in [0, 1].

    Precision P is the share of predicted boundary pixels with an annotated one within `tolerance` pixels, recall R the
    reverse; F = 2PR / (P + R). F is 1 if neither mask has a boundary, and 0 if only one has.

    tolerance: in pixels; None: `contour_tolerance` of H and W.
    """
    assert gt.dtype == pred.dtype == bool and gt.shape == pred.shape, (
        gt.dtype,
        pred.dtype,
        gt.shape,
        pred.shape,
    )
    tolerance = contour_tolerance(*gt.shape) if tolerance is None else tolerance
    stride = gt.shape[1] + tolerance
    gt_points, pred_points = (pack_bits(boundary_map(mask), stride) for mask in (gt, pred))
    num_gt, num_pred = gt_points.bit_count(), pred_points.bit_count()
    if num_gt == 0 or num_pred == 0:
        return float(num_gt == num_pred)
    precision = (pred_points & dilate(gt_points, tolerance, stride)).bit_count() / num_pred
    recall = (gt_points & dilate(pred_points, tolerance, stride)).bit_count() / num_gt
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def pack_bits(image: np.ndarray, stride: int) -> int:
    """The set pixels of an (H, W) bool image as bits of one integer: pixel (y, x) is bit y * stride + x.

    One shift by dy * stride + dx moves all pixels, many per machine word.
    """
    rows = np.zeros((image.shape[0], stride), dtype=bool)
    rows[:, : image.shape[1]] = image
    return int.from_bytes(np.packbits(rows, bitorder="little").tobytes(), "little")


def dilate(points: int, radius: int, stride: int) -> int:
    """Dilate with a disk: all pixels at most `radius` from one of the points, dx^2 + dy^2 <= radius^2.

    points: from `pack_bits`. Its stride must exceed the image's width by `radius`: pixels that leave a row go there.
    """
    widened, reach = points, 0  # the points, dilated by `reach` along the rows
    above = below = 0
    for dy in range(radius, -1, -1):
        while reach < math.isqrt(radius**2 - dy**2):
            reach += 1
            widened |= points << reach | points >> reach
        if dy:
            # each further iteration moves these rows one row outwards
            above, below = (above | widened) >> stride, (below | widened) << stride
    return above | widened | below
