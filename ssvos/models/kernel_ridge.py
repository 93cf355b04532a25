"""Kernel ridge regression from the cells of strokes to all cells: a classifier that needs no training.

Minimises sum_i v_i (f(x_i) - y_i)^2 + lambda |f|^2 over functions f of the RBF kernel's space, with y = 1 on the
object's strokes and -1 on the background's. The weights v give both classes the same total.
"""

from typing import NamedTuple

import torch
from torch import Tensor

GAMMA = 1.0  # of the kernel exp(-gamma |x - y|^2); keys are unit vectors
RIDGE = 0.3  # lambda
OUTSIDE = 0.3  # share of the background's weight for the cells that background strokes separate from the object
_MAX_OUTSIDE = 256  # of these cells, evenly chosen


class KernelRidge(NamedTuple):
    """One classifier per object.

    points: labelled cells, padded to the longest sample, (N, S, D)
    coefficients: 0 for the padding, (N, S)
    """

    points: Tensor
    coefficients: Tensor


def fit_ridge(keys: Tensor, shares: Tensor, outside: Tensor) -> KernelRidge:
    """Fit one classifier per object.

    keys: unit vectors, (N, D, h, w)
    shares: of background and foreground among a cell's labelled pixels, (N, 2, h, w); 0 in both for other cells
    outside: cells that background strokes separate from the object (`grid.outside_strokes`), (N, h, w) bool; they
        count as background
    """
    samples = [_fit_one(*sample) for sample in zip(keys.flatten(2), shares.flatten(2), outside.flatten(1), strict=True)]
    longest = max(len(points) for points, _ in samples)
    points = keys.new_zeros(len(keys), longest, keys.shape[1])
    coefficients = keys.new_zeros(len(keys), longest)
    for n, (own, values) in enumerate(samples):
        points[n, : len(own)], coefficients[n, : len(own)] = own, values
    return KernelRidge(points, coefficients)


def ridge_scores(ridge: KernelRidge, keys: Tensor) -> Tensor:
    """The classifiers' scores, about -1 for background and 1 for the object: keys (N, D, h, w) -> (N, 1, h, w)."""
    queries = keys.flatten(2).mT
    scores = (_kernel(queries, ridge.points) @ ridge.coefficients[..., None]).mT
    return scores.reshape(len(keys), 1, *keys.shape[-2:])


def _fit_one(keys: Tensor, shares: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
    """Points (S, D) and coefficients (S,) of keys (D, P), shares (2, P) and outside (P,) of one object."""
    labelled = shares.sum(dim=0) > 0
    others = (outside & ~labelled).nonzero()[:, 0]
    others = others[:: max(1, len(others) // _MAX_OUTSIDE)]
    target = torch.cat([(shares[1] - shares[0])[labelled], -shares.new_ones(len(others))])
    chosen = torch.cat([labelled.nonzero()[:, 0], others])
    if not len(chosen):
        return keys.new_zeros(1, len(keys)), keys.new_zeros(1)
    is_object, num_strokes = target > 0, int(labelled.sum())
    is_outside = torch.arange(len(target), device=keys.device) >= num_strokes
    weights = torch.zeros_like(target)
    for members, total in (
        (is_object, 1.0),
        (~is_object & ~is_outside, 1.0 - OUTSIDE if len(others) else 1.0),
        (is_outside, OUTSIDE),
    ):
        weights[members] = total / members.sum().clamp(min=1)
    points = keys[:, chosen].T
    # (K + lambda V^-1) a = y, the weights scaled to a mean of about 1
    ridge = RIDGE / (weights * len(target)).clamp(min=1e-6)
    return points, torch.linalg.solve(_kernel(points, points) + torch.diag(ridge), target)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """exp(-gamma |x - y|^2) of unit vectors (..., P, D) and (..., S, D) -> (..., P, S)."""
    squares = x.square().sum(dim=-1)[..., None] + y.square().sum(dim=-1)[..., None, :]
    return torch.exp(-GAMMA * (squares - 2 * x @ y.mT))
