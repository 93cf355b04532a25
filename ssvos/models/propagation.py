"""Mask propagation (III-B): carries the object from the previous frame's mask and the initial frame to this one."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from ssvos.models.loop_conv import LoopConv

_DILATIONS = (1, 3, 6)


class Propagation(nn.Module):
    """1x1 convolution, a pyramid of three dilated 3x3 convolutions, 3x3 convolution; ReLU after each.

    The first convolution sees this frame's features, the initial frame's, the previous and the initial mask. It is
    linear, so what does not depend on the state is taken apart: `reduce_features` for all frames of a clip at once,
    `reduce_first` once an object; only the previous mask's part is left to `forward`.
    """

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.in_channels = in_channels
        self.reduce = nn.Conv2d(2 * in_channels + 4, channels, 1)
        self.pyramid = nn.ModuleList(LoopConv(channels, channels, 3, 1, d, d) for d in _DILATIONS)
        self.merge = LoopConv(len(_DILATIONS) * channels, channels, 3, 1, 1)

    def reduce_features(self, features: Tensor) -> Tensor:
        """This frame's share of the first convolution, (N, C, h, w) -> (N, channels, h, w)."""
        return conv2d(features, self.reduce.weight[:, : self.in_channels], self.reduce.bias)

    def reduce_first(self, first_features: Tensor, first_mask: Tensor) -> Tensor:
        """The initial frame's share: (N, C, h, w) and (N, 2, h, w) -> (N, channels, h, w)."""
        weight = self.reduce.weight
        of_features = conv2d(first_features, weight[:, self.in_channels : 2 * self.in_channels])
        return of_features + conv2d(first_mask, weight[:, -2:])

    def forward(self, reduced: Tensor, reduced_first: Tensor, mask: Tensor) -> Tensor:
        """Both shares (N, channels, h, w) and the previous coarse mask (N, 2, h, w) -> (N, channels, h, w)."""
        x = (reduced + reduced_first).add_(conv2d(mask, self.reduce.weight[:, -4:-2])).relu_()
        x = torch.cat([branch(x).relu_() for branch in self.pyramid], dim=1)
        return self.merge(x).relu_()
