"""Colours of an object and of its background, learnt from the first frame of the video at hand: beyond the paper.

A small network that has seen few videos knows little of this one's colours, GrabCut (Rother et al. 2004) nothing else.
Its two ideas are taken over, with histograms for its mixtures: what the frame's own mask holds tells the colours of the
classes, and the mask that these colours give tells them better.
"""

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv3d

from ssvos.config import ColorModelConfig

_SMOOTHING = 0.8  # bins, standard deviation
_REACH = 3  # bins to each side that are smoothed over
_RARE = 1e-5  # added to every bin: of a colour that was never seen nothing is known


class ColorModel:
    """A histogram of colours for each class, background first. The memory it takes does not grow with the video."""

    def __init__(self, config: ColorModelConfig):
        self.config = config
        self._histograms = torch.zeros(0, config.bins**3)

    def learn(self, cells: Tensor, probs: Tensor, num_known: int) -> None:
        """Take the colours of background and of objects from number `num_known` on from a frame's soft mask.

        cells: (H, W), each pixel's bin (`colour_cells`); probs: (C, H, W). Earlier objects keep what was learnt then.
        """
        # on the CPU, where sums have one order: the same input gives the same masks
        cells, probs = cells.flatten().cpu(), probs.flatten(1).float().cpu()
        counts = torch.zeros(len(probs), self.config.bins**3).index_add_(1, cells, probs)
        counts = _smoothed(counts.view(len(probs), *3 * [self.config.bins])).flatten(1)
        shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1e-9)
        self._histograms = torch.cat([shares[:1], self._histograms[1:num_known], shares[max(1, num_known) :]])

    def evidence(self, cells: Tensor) -> Tensor:
        """What a pixel's colour says of its class: log-likelihoods less the largest of them, `limit` below it at most,
        times `weight`. cells: (H, W) -> (C, H, W), never above 0."""
        logs = (self._histograms + _RARE).log()
        logs = (logs - logs.amax(dim=0)).clamp(min=-self.config.limit) * self.config.weight
        return logs.to(cells.device)[:, cells]


def colour_cells(image: np.ndarray, bins: int) -> Tensor:
    """The bin of every pixel's colour in CIELAB: (H, W, 3) uint8 RGB -> (H, W) int64 below bins^3."""
    level = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.int64) * bins // 256
    return torch.from_numpy((level[..., 0] * bins + level[..., 1]) * bins + level[..., 2])


def _smoothed(counts: Tensor) -> Tensor:
    """(C, b, b, b) under a Gaussian along each axis; nothing lies beyond the outermost bins."""
    kernel = torch.exp(-0.5 * (torch.arange(-_REACH, _REACH + 1) / _SMOOTHING) ** 2)
    kernel = kernel / kernel.sum()
    found = counts[:, None]
    for axis in range(3):
        shape, padding = [1] * 5, [0] * 3
        shape[2 + axis], padding[axis] = len(kernel), _REACH
        found = conv3d(found, kernel.view(shape), padding=padding)
    return found[:, 0]
