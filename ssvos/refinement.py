"""Refinement of predicted masks: mean-field inference of the dense CRF whose energy trains them (12)-(16).

Training lowers this energy of the network's masks on average; here it is lowered for the one frame at hand, whose
outlines are then the image's and not those of a map at stride 4 (Krähenbühl & Koltun 2011, with the Potts model).
"""

from torch import Tensor

from ssvos.config import RefinementConfig
from ssvos.losses.dense_crf import crf_features
from ssvos.losses.mean_field import mean_field
from ssvos.losses.permutohedral import LatticeFilter

_CLAMP = 1e-6


def refine(probs: Tensor, frame: Tensor, config: RefinementConfig) -> Tensor:
    """Probabilities of background and objects (C, H, W) on a frame (1, 3, H, W) in [0, 1] -> the same, refined.

    0 iterations change nothing (ssvos.losses.mean_field).
    """
    if not config.iterations:
        return probs
    kernel = LatticeFilter(crf_features(frame, config.sigma_xy * frame.shape[-2], config.sigma_rgb))
    unary = probs.clamp(min=_CLAMP).log().flatten(1)
    return mean_field(unary[None], kernel, config.weight, config.iterations)[0].view_as(probs)
