"""Mean-field inference of the dense CRF (12)-(16) with the Potts model (Krähenbühl & Koltun 2011)."""

from torch import Tensor

from ssvos.losses.gaussian_filter import GaussianFilter


def mean_field(log_probs: Tensor, kernel: GaussianFilter, weight: float, iterations: int) -> Tensor:
    """Probabilities of lower energy than those given: log-probabilities (B, C, N) -> (B, C, N), which sum to 1.

    Each iteration: Q_c(i) ~ P_c(i) exp(weight sum_j K(i, j) Q_c(j) / sum_j K(i, j)), normalised over c; K is the
    kernel's Gaussian of position and colour, the Q of the first iteration P.
    """
    found = log_probs.softmax(dim=1)
    for _ in range(iterations):
        filtered, row_sums = kernel.apply(found)
        found = (log_probs + weight * (filtered / row_sums)).softmax(dim=1)
    return found
