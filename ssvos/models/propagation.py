"""Mask propagation (III-B): predicts the object from the previous frame's mask and the initial frame."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from ssvos.models.loop_conv import LoopConv

_DILATIONS = (1, 3, 6)


class Propagation(nn.Module):
    """1x1 convolution, a pyramid of three dilated 3x3 convolutions, 3x3 convolution; ReLU after each.

    The inputs of the first convolution are the features of this frame and of the initial frame, the previous mask and
    the initial mask. The convolution is linear, so the parts that do not depend on the state are computed separately:
    `reduce_features` for all frames of a clip at once, `reduce_first` once per object. `forward` adds the part of the
    previous mask.
    """

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.in_channels = in_channels
        self.reduce = nn.Conv2d(2 * in_channels + 4, channels, 1)
        self.pyramid = nn.ModuleList(LoopConv(channels, channels, 3, 1, d, d) for d in _DILATIONS)
        self.merge = LoopConv(len(_DILATIONS) * channels, channels, 3, 1, 1)

    def reduce_features(self, features: Tensor) -> Tensor:
        """This frame's part of the first convolution, (N, C, h, w) -> (N, channels, h, w)."""
        return conv2d(features, self.reduce.weight[:, : self.in_channels], self.reduce.bias)

    def reduce_first(self, first_features: Tensor, first_mask: Tensor) -> Tensor:
        """The initial frame's part: (N, C, h, w) and (N, 2, h, w) -> (N, channels, h, w)."""
        weight = self.reduce.weight
        feature_part = conv2d(first_features, weight[:, self.in_channels : 2 * self.in_channels])
        return feature_part + conv2d(first_mask, weight[:, -2:])

    def forward(self, reduced: Tensor, reduced_first: Tensor, mask: Tensor) -> Tensor:
        """Both parts (N, channels, h, w) and the previous coarse mask (N, 2, h, w) -> (N, channels, h, w)."""
        x = (reduced + reduced_first).add_(conv2d(mask, self.reduce.weight[:, -4:-2])).relu_()
        x = torch.cat([branch(x).relu_() for branch in self.pyramid], dim=1)
        merged: Tensor = self.merge(x)
        return merged.relu_()
