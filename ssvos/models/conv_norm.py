"""A convolution followed by a normalisation, with frozen statistics folded into the weights of the convolution."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from ssvos.models import winograd

GROUPS = 8  # of group normalisation; the number of channels must be a multiple of it


class FrozenBatchNorm(nn.BatchNorm2d):
    """Batch normalisation with constant statistics: batches of 2-4 clips are too small to estimate them."""

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__(channels, eps)
        self.training = False

    def train(self, mode: bool = True) -> "FrozenBatchNorm":
        return super().train(False)


def make_norm(kind: str, channels: int, eps: float = 1e-5) -> nn.Module:
    """The normalisation that `model.backbone.norm` names.

    eps: added to the variance; published networks differ in it.
    """
    return FrozenBatchNorm(channels, eps) if kind == "frozen_batch" else nn.GroupNorm(GROUPS, channels)


def conv_norm(conv: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """norm(conv(x)). Frozen statistics are folded into the weights: one pass over the features instead of two."""
    if not isinstance(norm, FrozenBatchNorm):
        y: Tensor = norm(conv(x))
        return y
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    weight = conv.weight * scale[:, None, None, None]
    is_plain = conv.stride == (1, 1) and conv.groups == 1
    if is_plain and winograd.is_faster(x, weight, conv.dilation[0]):
        filters = winograd.cached_filters(conv, weight, conv.weight, norm.weight, norm.running_var)
        return winograd.convolve(x, weight, shift[:, None, None], conv.dilation[0], filters)
    # dilation has no effect on 1x1, but on one CPU thread PyTorch selects its fast kernel only for dilation above 1
    dilation = 2 if conv.kernel_size == (1, 1) and x.device.type == "cpu" else conv.dilation
    return conv2d(x, weight, shift, conv.stride, conv.padding, dilation, conv.groups)
