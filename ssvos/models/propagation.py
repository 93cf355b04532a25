"""Mask propagation (III-B): carries the object from the previous frame's mask and the initial frame to this one."""

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

_DILATIONS = (1, 3, 6)


class Propagation(nn.Module):
    """1x1 convolution, a pyramid of three dilated 3x3 convolutions, 3x3 convolution; ReLU after each."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.reduce = nn.Conv2d(2 * in_channels + 4, channels, 1)
        self.pyramid = nn.ModuleList(nn.Conv2d(channels, channels, 3, 1, d, d) for d in _DILATIONS)
        self.merge = nn.Conv2d(len(_DILATIONS) * channels, channels, 3, 1, 1)

    def forward(self, features: Tensor, first_features: Tensor, mask: Tensor, first_mask: Tensor) -> Tensor:
        """features of this and of the initial frame (N, C, h, w), previous coarse and initial mask (N, 2, h, w)
        -> (N, channels, h, w)."""
        x = relu(self.reduce(torch.cat([features, first_features, mask, first_mask], dim=1)))
        x = torch.cat([relu(branch(x)) for branch in self.pyramid], dim=1)
        return relu(self.merge(x))
