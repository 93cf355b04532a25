"""Synthetic frames and scribbles on which a network and a loss take about the time and memory of real ones."""

import numpy as np
import torch
from torch.nn.functional import interpolate

from ssvos.labels import UNLABELLED

FRAMES = 2  # of a clip; the cost of a frame is the same at every position of a clip


def dummy_frames(size: tuple[int, int]) -> np.ndarray:
    """Smooth frames with a little noise, (FRAMES, H, W, 3) uint8.

    In frames of pure noise every pixel would have its own lattice cell, which no photograph has.
    """
    generator = torch.Generator().manual_seed(0)
    height, width = size
    coarse = torch.rand(FRAMES, 3, 4, 4, generator=generator)
    smooth = interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    noise = 0.02 * torch.randn(FRAMES, 3, height, width, generator=generator)
    frames: np.ndarray = ((smooth + noise).clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
    return frames


def dummy_scribble(size: tuple[int, int], objects: int = 1) -> np.ndarray:
    """A stroke over a third of the frame for each object, and a line of background above them, (H, W) uint8."""
    height, width = size
    scribble = np.full(size, UNLABELLED, np.uint8)
    scribble[height // 8 : height // 8 + 3, width // 8 : -width // 8] = 0
    for k in range(objects):
        row = height // 4 + (k * height) // (2 * objects)
        scribble[row : row + 3, width // 3 : 2 * width // 3] = k + 1
    return scribble
