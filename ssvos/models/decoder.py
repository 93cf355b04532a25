"""Fusion to the coarse mask (III-A), and up-sampling to the fine mask at stride 4 and to full size."""

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, conv2d, interpolate, relu

from ssvos.models.appearance import NUM_COMPONENTS
from ssvos.models.loop_conv import LoopConv


class Fusion(nn.Module):
    """Joins propagation features and appearance scores into the coarse mask encoding and the coarse mask.

    shallow: whether there are appearance scores at stride 4 as well. readouts: channels of what a memory says.
    """

    def __init__(
        self,
        propagation_channels: int,
        channels: int,
        encoding_channels: int,
        shallow: bool = False,
        readouts: int = 0,
    ):
        super().__init__()
        num_scores = NUM_COMPONENTS * (2 if shallow else 1) + readouts
        self.join = LoopConv(propagation_channels + num_scores, channels, 3, 1, 1)
        self.encode = nn.Conv2d(channels, encoding_channels, 1)
        self.classify = nn.Conv2d(encoding_channels, 2, 3, 1, 1)

    def forward(
        self,
        propagated: Tensor,
        scores: Tensor,
        shallow_scores: Tensor | None = None,
        readouts: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(N, P, h, w), (N, 4, h, w), maybe (N, 4, H/4, W/4) and (N, R, h, w) -> encoding (N, E, h, w), coarse logits
        (N, 2, h, w)."""
        parts = [propagated, scores]
        if shallow_scores is not None:
            parts.append(adaptive_avg_pool2d(shallow_scores, propagated.shape[-2:]))
        if readouts is not None:
            parts.append(readouts)
        x = relu(self.join(torch.cat(parts, dim=1)))
        encoding = relu(self.encode(x))
        return encoding, self.classify(encoding)


class Upsampling(nn.Module):
    """Refines the coarse encoding with the backbone's features at strides 8 and 4.

    Each refining convolution sees the encoding beside the projected features. It is linear, so the features' share
    (`lateral`) is computed once an image, whatever the number of its objects.
    """

    def __init__(self, encoding_channels: int, s8_channels: int, s4_channels: int, shallow: bool = False):
        super().__init__()
        self.channels = encoding_channels
        self.lateral8 = nn.Conv2d(s8_channels, encoding_channels, 1)
        self.lateral4 = nn.Conv2d(s4_channels, encoding_channels, 1)
        self.refine8 = nn.Conv2d(2 * encoding_channels, encoding_channels, 3, 1, 1)
        self.refine4 = nn.Conv2d(2 * encoding_channels, encoding_channels, 3, 1, 1)
        if shallow:
            self.judge = nn.Conv2d(NUM_COMPONENTS, encoding_channels, 3, 1, 1)
        self.classify = nn.Conv2d(encoding_channels, 2, 3, 1, 1)

    def lateral(self, s8: Tensor, s4: Tensor) -> tuple[Tensor, Tensor]:
        """The features' shares of both refining convolutions, biases included: (N, E, H/8, W/8), (N, E, H/4, W/4)."""
        return (
            conv2d(self.lateral8(s8), self.refine8.weight[:, self.channels :], self.refine8.bias, padding=1),
            conv2d(self.lateral4(s4), self.refine4.weight[:, self.channels :], self.refine4.bias, padding=1),
        )

    def forward(self, encoding: Tensor, s8: Tensor, s4: Tensor, shallow_scores: Tensor | None = None) -> Tensor:
        """encoding (N, E, h, w), at stride 16 or 8, the shares of each one's image, maybe appearance scores
        (N, 4, H/4, W/4) -> fine logits (N, 2, H, W)."""
        # in place: a map of this size in new memory takes as long as what is done to it
        x = conv2d(_resized(encoding, s8), self.refine8.weight[:, : self.channels], padding=1).add_(s8).relu_()
        x = conv2d(_resized(x, s4), self.refine4.weight[:, : self.channels], padding=1).add_(s4)
        if shallow_scores is not None:
            x.add_(self.judge(shallow_scores))
        # two channels are enlarged several times faster when each lies on its own
        return interpolate(self.classify(x.relu_()).contiguous(), scale_factor=4, mode="bilinear", align_corners=False)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return x if x.shape[-2:] == like.shape[-2:] else interpolate(x, size=like.shape[-2:], mode="bilinear")
