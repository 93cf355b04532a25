"""Color model of the objects and the background of one video, learned from its first frame. It is not in the paper.

A network trained on few videos knows little about the colors of a new one. Like GrabCut (Rother et al. 2004), but with
histograms in place of Gaussian mixtures, the model takes the colors of each class from the frame's mask, and these
colors give a better mask.
"""

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv3d

from ssvos.config import ColorModelConfig

_SMOOTHING = 0.8  # standard deviation of the Gaussian over the histogram, in bins
_RADIUS = 3  # of the Gaussian, in bins
_FLOOR = 1e-5  # added to every bin, so that a color that the frame lacks is evidence for no class


class ColorModel:
    """One color histogram per class, background first. Its memory does not grow with the video."""

    def __init__(self, config: ColorModelConfig):
        self.config = config
        self._histograms = torch.zeros(0, config.bins**3)

    def learn(self, bins: Tensor, probs: Tensor, num_known: int) -> None:
        """Learn the histograms of the background and of the new objects from a frame's soft mask.

        bins: the color bin of each pixel (`color_bins`), (H, W).
        probs: the soft mask, (C, H, W).
        num_known: number of classes that the model knows. The histograms of the known objects do not change.
        """
        # on the CPU, where the order of summation is fixed: the same input gives the same masks
        bins, probs = bins.flatten().cpu(), probs.flatten(1).float().cpu()
        counts = torch.zeros(len(probs), self.config.bins**3).index_add_(1, bins, probs)
        counts = _smooth(counts.view(len(probs), *3 * [self.config.bins])).flatten(1)
        shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1e-9)
        self._histograms = torch.cat([shares[:1], self._histograms[1:num_known], shares[max(1, num_known) :]])

    def evidence(self, bins: Tensor) -> Tensor:
        """Evidence of the pixels' colors for each class: log-likelihoods relative to the most likely class, clamped to
        `-limit` and multiplied by `weight`.

        bins: (H, W).
        returns: (C, H, W), at most 0.
        """
        logs = (self._histograms + _FLOOR).log()
        logs = (logs - logs.amax(dim=0)).clamp(min=-self.config.limit) * self.config.weight
        return logs.to(bins.device)[:, bins]


def color_bins(image: np.ndarray, num_bins: int) -> Tensor:
    """The CIELAB histogram bin of each pixel.

    image: (H, W, 3) uint8 RGB.
    num_bins: number of bins per axis of CIELAB.
    returns: (H, W) int64, below num_bins^3.
    """
    level = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.int64) * num_bins // 256
    return torch.from_numpy((level[..., 0] * num_bins + level[..., 1]) * num_bins + level[..., 2])


def _smooth(counts: Tensor) -> Tensor:
    """Convolve histograms (C, b, b, b) with a Gaussian along each axis; bins beyond the border count as 0."""
    kernel = torch.exp(-0.5 * (torch.arange(-_RADIUS, _RADIUS + 1) / _SMOOTHING) ** 2)
    kernel = kernel / kernel.sum()
    smoothed = counts[:, None]
    for axis in range(3):
        shape, padding = [1] * 5, [0] * 3
        shape[2 + axis], padding[axis] = len(kernel), _RADIUS
        smoothed = conv3d(smoothed, kernel.view(shape), padding=padding)
    return smoothed[:, 0]
