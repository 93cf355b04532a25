"""Cross-entropy to the network's own mask once the dense CRF has been lowered from it: beyond the paper.

Following the gradient of (12) moves an outline a little at a time. The same energy is lowered further when it is split
in two (Marin et al. 2019, "Beyond gradient descent for regularized segmentation losses"): first find the mask of low
energy near the network's own, its strokes held, then let the network follow that mask.
"""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, interpolate

from ssvos.config import ProximalConfig
from ssvos.losses.dense_crf import crf_features
from ssvos.losses.exact_filter import ExactFilter
from ssvos.losses.mean_field import mean_field
from ssvos.losses.permutohedral import LatticeFilter

_SURE = 20.0  # log-odds of a pixel under a stroke


def proximal_loss(logits: Tensor, frames: Tensor, target: Tensor, config: ProximalConfig) -> Tensor:
    """Mean over pixels and images of the cross-entropy to the mask of lower energy, a constant for the gradient.

    The mask is looked for near the network's own with `config.bias` taken off the object's log-odds.

    logits: (B, 2, H, W); frames: (B, 3, H, W) in [0, 1]; target: (B, H, W) of 0, 1, 255.
    """
    size = [max(1, round(side * config.scale)) for side in frames.shape[-2:]]
    small = interpolate(logits, size=size, mode="bilinear", align_corners=False, antialias=True)
    log_probs = small.log_softmax(dim=1).flatten(2)
    less = small.new_tensor([0.0, config.bias])[:, None]
    with torch.no_grad():
        frames = interpolate(frames, size=size, mode="area").to(logits.dtype)
        features = crf_features(frames, config.sigma_xy * size[0], config.sigma_rgb)
        held = _held((log_probs - less).log_softmax(dim=1), target, size)
        kernel = LatticeFilter(features) if config.filter == "lattice" else ExactFilter(features, kept=True)
        mask = mean_field(held, kernel, config.pull, config.iterations)
    return -(mask * log_probs).sum(dim=1).mean()


def _held(log_probs: Tensor, target: Tensor, size: list[int]) -> Tensor:
    """Log-probabilities (B, 2, N) that are sure of what lies under a stroke of one class."""
    planes = torch.stack([target == 0, target == 1], dim=1).to(log_probs.dtype)
    strokes = adaptive_max_pool2d(planes, size).flatten(2)
    odds = _SURE * (strokes[:, 1] - strokes[:, 0])
    sure = torch.stack([-odds, odds], dim=1).clamp(max=0.0)
    return torch.where((odds != 0)[:, None], sure, log_probs)
