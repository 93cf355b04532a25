"""Fusion to a coarse mask at stride 16, and up-sampling to the fine mask at stride 4 and full size (III-A)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, relu

from ssvos.models.appearance import NUM_COMPONENTS


class Fusion(nn.Module):
    """Joins propagation features and appearance scores into the coarse mask encoding and the coarse mask."""

    def __init__(self, propagation_channels: int, channels: int, encoding_channels: int):
        super().__init__()
        self.join = nn.Conv2d(propagation_channels + NUM_COMPONENTS, channels, 3, 1, 1)
        self.encode = nn.Conv2d(channels, encoding_channels, 1)
        self.classify = nn.Conv2d(encoding_channels, 2, 3, 1, 1)

    def forward(self, propagated: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """(N, P, h, w) and (N, 4, h, w) -> encoding (N, E, h, w), coarse logits (N, 2, h, w)."""
        x = relu(self.join(torch.cat([propagated, scores], dim=1)))
        encoding = relu(self.encode(x))
        return encoding, self.classify(encoding)


class Laterals(NamedTuple):
    """What an image adds at strides 8 and 4: (N, E, H/8, W/8), (N, E, H/4, W/4)."""

    s8: Tensor
    s4: Tensor


class Upsampling(nn.Module):
    """Refines the coarse encoding with the backbone's features at strides 8 and 4.

    Each refining convolution sees the encoding beside the projected features. It is linear, so the features' share
    (`lateral`) is computed once an image, whatever the number of its objects.
    """

    def __init__(self, encoding_channels: int, s8_channels: int, s4_channels: int):
        super().__init__()
        self.channels = encoding_channels
        self.lateral8 = nn.Conv2d(s8_channels, encoding_channels, 1)
        self.lateral4 = nn.Conv2d(s4_channels, encoding_channels, 1)
        self.refine8 = nn.Conv2d(2 * encoding_channels, encoding_channels, 3, 1, 1)
        self.refine4 = nn.Conv2d(2 * encoding_channels, encoding_channels, 3, 1, 1)
        self.classify = nn.Conv2d(encoding_channels, 2, 3, 1, 1)

    def lateral(self, s8: Tensor, s4: Tensor) -> Laterals:
        """The features' shares of both refining convolutions, biases included."""
        return Laterals(
            conv2d(self.lateral8(s8), self.refine8.weight[:, self.channels :], self.refine8.bias, padding=1),
            conv2d(self.lateral4(s4), self.refine4.weight[:, self.channels :], self.refine4.bias, padding=1),
        )

    def forward(self, encoding: Tensor, lateral: Laterals) -> Tensor:
        """encoding (N, E, h, w), at stride 16 or 8, and the shares of each one's image -> fine logits (N, 2, H, W)."""
        x = relu(
            lateral.s8 + conv2d(_resized(encoding, lateral.s8), self.refine8.weight[:, : self.channels], padding=1)
        )
        x = relu(lateral.s4 + conv2d(_resized(x, lateral.s4), self.refine4.weight[:, : self.channels], padding=1))
        # two channels are enlarged several times faster when each lies on its own
        return interpolate(self.classify(x).contiguous(), scale_factor=4, mode="bilinear", align_corners=False)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return x if x.shape[-2:] == like.shape[-2:] else interpolate(x, size=like.shape[-2:], mode="bilinear")
