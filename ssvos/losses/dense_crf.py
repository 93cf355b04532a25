"""Dense-CRF energy and scribble-supervised loss (Eqs. 12-18) of soft masks on an image."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ssvos.config import LossConfig
from ssvos.losses.exact_filter import exact_filter
from ssvos.losses.gaussian_filter import GaussianFilter
from ssvos.losses.permutohedral import LatticeFilter


def crf_features(frames: Tensor, sigma_xy: float, sigma_rgb: float) -> Tensor:
    """Position and colour over their bandwidths (13): frames (B, 3, H, W) in [0, 1] -> (B, 5, H*W)."""
    height, width = frames.shape[-2:]
    y = torch.arange(height, device=frames.device, dtype=frames.dtype) / sigma_xy
    x = torch.arange(width, device=frames.device, dtype=frames.dtype) / sigma_xy
    position = torch.stack(torch.meshgrid(y, x, indexing="ij")).expand(len(frames), -1, -1, -1)
    return torch.cat([position, frames * (255.0 / sigma_rgb)], dim=1).flatten(2)


def region_weight(foreground: Tensor, beta: float, above: float, below: float) -> Tensor:
    """Eq. 18: 1 + beta where the foreground score lies in [above, below], 1 elsewhere; no gradient."""
    foreground = foreground.detach()
    unreliable = (foreground >= above) & (foreground <= below)
    return 1.0 + beta * unreliable.to(foreground.dtype)


def crf_energy(
    probs: Tensor, weight: Tensor, kernel: GaussianFilter, normalization: str, sums_to_one: bool = False
) -> Tensor:
    """Sum over i of w_i sum_c P_c(i) sum over j != i of g(i, j) (1 - P_c(j)), one value an image, (B,).

    probs: (B, C, N), any values; weight: (B, N). `none` is the double sum of ordered pairs, `pixel` that over N; `row`
    is the mean over i with every row of g, diagonal included, divided by its sum.
    sums_to_one: the channels do, as a softmax's; one of them need not be filtered. The gradient then holds for changes
    that keep the sum, which is all that a softmax makes.
    """
    num_points = probs.shape[-1]
    if sums_to_one:
        others, row_sums = kernel.apply(probs[:, 1:])
        filtered = torch.cat([row_sums - others.sum(dim=1, keepdim=True), others], dim=1)
    else:
        filtered, row_sums = kernel.apply(probs)
    if normalization == "row":
        disagreement = (probs * (1.0 - filtered / row_sums)).sum(dim=1)
        return (weight * disagreement).mean(dim=1)
    # the diagonal, g(i, i) = 1, is no pair: take it out of the row sums and of the filtered values
    disagreement = (probs * ((row_sums - 1.0) - (filtered - probs))).sum(dim=1)
    total = (weight * disagreement).sum(dim=1)
    return total / num_points if normalization == "pixel" else total


def regularizer(probs: Tensor, frames: Tensor, config: LossConfig) -> Tensor:
    """The configured energy of soft masks, a mean over images; a scalar.

    probs: (B, C, H, W), a softmax's, channel 0 background; frames: (B, 3, H, W) in [0, 1], not normalised. Both are
    brought to `config.scale` of their size by averaging, and sigma_xy with them.
    """
    if config.scale < 1.0:
        size = [max(1, round(side * config.scale)) for side in frames.shape[-2:]]
        frames = interpolate(frames, size=size, mode="area")
        probs = interpolate(probs, size=size, mode="bilinear", align_corners=False, antialias=True)
    probs = probs.flatten(2)
    beta = config.beta if config.regularizer == "scribble_supervised" else 0.0
    weight = region_weight(probs[:, 1:].sum(dim=1), beta, config.unreliable_above, config.unreliable_below)
    with torch.no_grad():
        features = crf_features(frames.to(probs.dtype), config.sigma_xy * config.scale, config.sigma_rgb)
        kernel = exact_filter(features) if config.filter == "exact" else LatticeFilter(features)
    return crf_energy(probs, weight, kernel, config.normalization, sums_to_one=True).mean()
