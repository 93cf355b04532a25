"""Mean-field inference of the dense CRF (12)-(16) with the Potts model (Krähenbühl & Koltun 2011)."""

import torch
from torch import Tensor

from ssvos.losses.gaussian_filter import GaussianFilter


def mean_field(log_probs: Tensor, kernel: GaussianFilter, weight: float, iterations: int) -> Tensor:
    """Probabilities of lower CRF energy than the input, without gradient.

    Each iteration computes Q_c(i) ~ P_c(i) exp(weight sum_j K(i, j) Q_c(j) / sum_j K(i, j)), normalised over c. K is
    the Gaussian of position and color that `kernel` multiplies by; the first iteration uses Q = P.

    log_probs: log P, (B, C, N)
    weight: weight of the pairwise term
    returns: Q, (B, C, N), which sums to 1 over C
    """
    probs = log_probs.softmax(dim=1)
    row_sums = kernel.multiply(torch.ones_like(probs[:, :1]))
    for _ in range(iterations):
        # Q sums to 1 over c, so the sum of a pixel's row contains one class
        others = kernel.multiply(probs[:, 1:])
        filtered = torch.cat([row_sums - others.sum(dim=1, keepdim=True), others], dim=1)
        probs = (log_probs + weight * (filtered / row_sums)).softmax(dim=1)
    return probs
