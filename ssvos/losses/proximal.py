"""Cross-entropy to the network's own mask after mean-field inference of the dense CRF; not in the paper.

Gradient descent on (12) moves an outline by small steps. The energy decreases further when the problem is split in two
(Marin et al. 2019, "Beyond gradient descent for regularized segmentation losses"): find a mask of low energy near the
network's own prediction, with its strokes fixed, then train the network towards that mask.
"""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, interpolate

from ssvos.config import ProximalConfig
from ssvos.losses.dense_crf import crf_features
from ssvos.losses.exact_filter import ExactFilter
from ssvos.losses.mean_field import mean_field
from ssvos.losses.permutohedral import LatticeFilter

_STROKE_LOG_ODDS = 20.0


def proximal_loss(logits: Tensor, frames: Tensor, target: Tensor, config: ProximalConfig) -> Tensor:
    """Cross-entropy to the mask of lower energy, averaged over pixels and images. The mask has no gradient.

    Mean field starts from the network's own mask with `config.bias` subtracted from the object's log-odds.

    logits: (B, 2, H, W)
    frames: (B, 3, H, W) in [0, 1]
    target: (B, H, W) of 0, 1, 255
    returns: a scalar
    """
    log_probs = _shrink(logits, config).log_softmax(dim=1)
    return -(refined_mask(logits, frames, target, config) * log_probs).sum(dim=1).mean()


@torch.no_grad()
def refined_mask(logits: Tensor, frames: Tensor, target: Tensor, config: ProximalConfig) -> Tensor:
    """The mask of lower energy, with the strokes held: probabilities (B, 2, h, w), smaller by `config.scale`.

    Arguments as in `proximal_loss`.
    """
    small = _shrink(logits, config)
    size = [small.shape[-2], small.shape[-1]]
    bias = small.new_tensor([0.0, config.bias])[:, None, None]
    frames = interpolate(frames, size=size, mode="area").to(logits.dtype)
    features = crf_features(frames, config.sigma_xy * size[0], config.sigma_rgb)
    unary = _with_strokes((small - bias).log_softmax(dim=1).flatten(2), target, size)
    kernel = LatticeFilter(features) if config.filter == "lattice" else ExactFilter(features, store_matrix=True)
    return mean_field(unary, kernel, config.pull, config.iterations).view_as(small)


def _shrink(logits: Tensor, config: ProximalConfig) -> Tensor:
    size = [max(1, round(side * config.scale)) for side in logits.shape[-2:]]
    return interpolate(logits, size=size, mode="bilinear", align_corners=False, antialias=True)


def _with_strokes(log_probs: Tensor, target: Tensor, size: list[int]) -> Tensor:
    """Log-probabilities (B, 2, N) with the label of the stroke, almost certain, at pixels with strokes of one class."""
    planes = torch.stack([target == 0, target == 1], dim=1).to(log_probs.dtype)
    strokes = adaptive_max_pool2d(planes, size).flatten(2)
    log_odds = _STROKE_LOG_ODDS * (strokes[:, 1] - strokes[:, 0])
    stroke_log_probs = torch.stack([-log_odds, log_odds], dim=1).clamp(max=0.0)
    return torch.where((log_odds != 0)[:, None], stroke_log_probs, log_probs)
