"""Fusion to a coarse mask at stride 16, and up-sampling to the fine mask at stride 4 and full size (III-A)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

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


class Upsampling(nn.Module):
    """Refines the coarse encoding with the backbone's features at strides 8 and 4."""

    def __init__(self, encoding_channels: int, s8_channels: int, s4_channels: int):
        super().__init__()
        self.lateral8 = nn.Conv2d(s8_channels, encoding_channels, 1)
        self.lateral4 = nn.Conv2d(s4_channels, encoding_channels, 1)
        self.refine8 = nn.Conv2d(2 * encoding_channels, encoding_channels, 3, 1, 1)
        self.refine4 = nn.Conv2d(2 * encoding_channels, encoding_channels, 3, 1, 1)
        self.classify = nn.Conv2d(encoding_channels, 2, 3, 1, 1)

    def forward(self, encoding: Tensor, s8: Tensor, s4: Tensor) -> Tensor:
        """encoding (N, E, H/16, W/16), s8 and s4 features -> fine logits (N, 2, H, W)."""
        x = relu(self.refine8(torch.cat([_double(encoding), self.lateral8(s8)], dim=1)))
        x = relu(self.refine4(torch.cat([_double(x), self.lateral4(s4)], dim=1)))
        return interpolate(self.classify(x), scale_factor=4, mode="bilinear", align_corners=False)


def _double(x: Tensor) -> Tensor:
    return interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
