"""Fusion to the coarse mask (III-A), and up-sampling to the fine mask at stride 4 and to full size."""

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, conv2d, interpolate, relu

from ssvos.models.appearance import NUM_COMPONENTS
from ssvos.models.loop_conv import LoopConv

_FIRST_EVIDENCE = (2.0, 2.0)  # of a score of 1 and of a label of 1: half the log-odds of the object


class Fusion(nn.Module):
    """Combines propagation features and appearance scores into the coarse mask encoding and the coarse mask.

    shallow: whether there are appearance scores at stride 4 as well
    readouts: number of channels that a memory adds. They are also evidence of their own: a weighted sum of them, at
        first of the classifier's score and of the labels read, is added to the object's logits
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
        if readouts:
            self.evidence = nn.Linear(readouts, 1)  # an untrained network propagates labels
            nn.init.zeros_(self.evidence.bias)
            nn.init.zeros_(self.evidence.weight)
            self.evidence.weight.data[0, :2] = torch.tensor(_FIRST_EVIDENCE)

    def forward(
        self,
        propagated: Tensor,
        scores: Tensor,
        shallow_scores: Tensor | None = None,
        readouts: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Fuse the cues of one frame.

        propagated: (N, P, h, w)
        scores: (N, 4, h, w)
        shallow_scores: (N, 4, H/4, W/4)
        readouts: (N, R, h, w)
        returns: mask encoding (N, E, h, w) and coarse logits (N, 2, h, w)
        """
        parts = [propagated, scores]
        if shallow_scores is not None:
            height, width = propagated.shape[-2:]
            parts.append(adaptive_avg_pool2d(shallow_scores, (height, width)))
        if readouts is not None:
            parts.append(readouts)
        x = relu(self.join(torch.cat(parts, dim=1)))
        encoding = relu(self.encode(x))
        coarse = self.classify(encoding)
        if readouts is not None:
            odds = self.evidence(readouts.movedim(1, -1)).movedim(-1, 1)
            coarse = coarse + torch.cat([-odds, odds], dim=1)
        return encoding, coarse


class Upsampling(nn.Module):
    """Refines the coarse encoding with the backbone's features at strides 8 and 4.

    The input of each refining convolution is the encoding and the projected features. The convolution is linear, so the
    part of the features (`lateral`) is computed once per image, for any number of objects.
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
        """The features' parts of both refining convolutions, with bias: (N, E, H/8, W/8) and (N, E, H/4, W/4)."""
        return (
            conv2d(self.lateral8(s8), self.refine8.weight[:, self.channels :], self.refine8.bias, padding=1),
            conv2d(self.lateral4(s4), self.refine4.weight[:, self.channels :], self.refine4.bias, padding=1),
        )

    def forward(
        self,
        encoding: Tensor,
        s8: Tensor,
        s4: Tensor,
        shallow_scores: Tensor | None = None,
        coarse: Tensor | None = None,
    ) -> Tensor:
        """Up-sample a mask encoding.

        encoding: (N, E, h, w), at stride 16 or 8
        s8, s4: `lateral` of each object's image, (N, E, H/8, W/8) and (N, E, H/4, W/4)
        shallow_scores: appearance scores, (N, 4, H/4, W/4)
        coarse: logits (N, 2, h, w) to which the result is added; None: nothing
        returns: fine logits (N, 2, H, W)
        """
        # in place: allocating a map of this size takes as long as the operation on it
        x = conv2d(_resize(encoding, s8), self.refine8.weight[:, : self.channels], padding=1).add_(s8).relu_()
        x = conv2d(_resize(x, s4), self.refine4.weight[:, : self.channels], padding=1).add_(s4)
        if shallow_scores is not None:
            x.add_(self.judge(shallow_scores))
        # two channels are interpolated several times faster when each is contiguous
        logits = self.classify(x.relu_()).contiguous()
        if coarse is not None:
            logits = logits + _resize(coarse, logits)
        return interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return x if x.shape[-2:] == like.shape[-2:] else interpolate(x, size=like.shape[-2:], mode="bilinear")
