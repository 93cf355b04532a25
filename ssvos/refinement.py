"""Refinement of predicted masks: mean-field inference of the dense CRF whose energy trains them (12)-(16).

Training lowers this energy of the network's masks on average; here it is lowered for the one frame at hand, whose
outlines are then the image's and not those of a map at stride 4 (Krähenbühl & Koltun 2011, with the Potts model).
"""

from torch import Tensor

from ssvos.config import RefinementConfig
from ssvos.losses.dense_crf import crf_features
from ssvos.losses.permutohedral import LatticeFilter

_CLAMP = 1e-6


def refine(probs: Tensor, frame: Tensor, config: RefinementConfig) -> Tensor:
    """Probabilities of background and objects (C, H, W) on a frame (1, 3, H, W) in [0, 1] -> the same, refined.

    Each iteration: Q_c(i) ~ P_c(i) exp(weight sum_j K(i, j) Q_c(j) / sum_j K(i, j)), normalised over c; K is the
    Gaussian of position and colour. 0 iterations change nothing.
    """
    if not config.iterations:
        return probs
    kernel = LatticeFilter(crf_features(frame, config.sigma_xy * frame.shape[-2], config.sigma_rgb))
    unary = probs.clamp(min=_CLAMP).log().flatten(1)
    found = probs.flatten(1)
    for _ in range(config.iterations):
        filtered, row_sums = kernel.apply(found[None])
        found = (unary + config.weight * (filtered / row_sums)[0]).softmax(dim=0)
    return found.view_as(probs)
