"""Dense-CRF energy and scribble-supervised loss (Eqs. 12-18) of soft masks on an image."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ssvos.config import LossConfig
from ssvos.losses.exact_filter import exact_filter
from ssvos.losses.gaussian_filter import GaussianFilter
from ssvos.losses.permutohedral import LatticeFilter


def crf_features(frames: Tensor, sigma_xy: float, sigma_rgb: float) -> Tensor:
    """Features of the Gaussian affinity (13): position and color, each divided by its bandwidth.

    frames: (B, 3, H, W) in [0, 1]
    sigma_xy: bandwidth of position in pixels
    sigma_rgb: bandwidth of color on the scale 0 to 255
    returns: (B, 5, H*W)
    """
    height, width = frames.shape[-2:]
    y = torch.arange(height, device=frames.device, dtype=frames.dtype) / sigma_xy
    x = torch.arange(width, device=frames.device, dtype=frames.dtype) / sigma_xy
    position = torch.stack(torch.meshgrid(y, x, indexing="ij")).expand(len(frames), -1, -1, -1)
    return torch.cat([position, frames * (255.0 / sigma_rgb)], dim=1).flatten(2)


def region_weight(foreground: Tensor, beta: float, above: float, below: float) -> Tensor:
    """Eq. 18: 1 + beta where the foreground score is in [above, below], 1 elsewhere; no gradient."""
    foreground = foreground.detach()
    unreliable = (foreground >= above) & (foreground <= below)
    return 1.0 + beta * unreliable.to(foreground.dtype)


def crf_energy(
    probs: Tensor, weight: Tensor, kernel: GaussianFilter, normalization: str, sums_to_one: bool = False
) -> Tensor:
    """Sum over i of w_i sum_c P_c(i) sum over j != i of g(i, j) (1 - P_c(j)).

    probs: (B, C, N), any values
    weight: w, (B, N)
    kernel: multiplies by g of the B images
    normalization: `none` is the sum over ordered pairs; `pixel` divides it by N; `row` divides every row of g,
        diagonal included, by its sum, and takes the mean over i
    sums_to_one: the channels of probs sum to 1, as after a softmax; then one channel is not filtered. The gradient
        holds only for changes that keep the sum, and a softmax makes no others.
    returns: one value per image, (B,)
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
    # the sum excludes j = i: subtract the diagonal, g(i, i) = 1, from the row sums and from the filtered values
    disagreement = (probs * ((row_sums - 1.0) - (filtered - probs))).sum(dim=1)
    total = (weight * disagreement).sum(dim=1)
    return total / num_points if normalization == "pixel" else total


def regularizer(probs: Tensor, frames: Tensor, config: LossConfig) -> Tensor:
    """The configured energy of soft masks, averaged over images.

    Masks and frames are resized to `config.scale` of their size; sigma_xy is scaled by the same factor.

    probs: (B, C, H, W) from a softmax, channel 0 background
    frames: (B, 3, H, W) in [0, 1], without ImageNet normalisation
    returns: a scalar
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
