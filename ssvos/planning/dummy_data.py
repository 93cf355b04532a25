"""Made-up frames and scribbles that cost a network and a loss about what real ones do."""

import numpy as np
import torch
from torch.nn.functional import interpolate

from ssvos.labels import UNLABELLED

FRAMES = 2  # of a clip: what a frame costs is the same on the second as on the tenth


def smooth_frames(size: tuple[int, int]) -> np.ndarray:
    """(FRAMES, H, W, 3) uint8, smooth with a little grain: in pure noise every pixel would be a lattice cell of its
    own, which no photograph is."""
    generator = torch.Generator().manual_seed(0)
    height, width = size
    coarse = torch.rand(FRAMES, 3, 4, 4, generator=generator)
    smooth = interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    grain = 0.02 * torch.randn(FRAMES, 3, height, width, generator=generator)
    return ((smooth + grain).clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def strokes(size: tuple[int, int], objects: int = 1) -> np.ndarray:
    """(H, W) uint8: a stroke across a third of the frame for each object, a line of background above them."""
    height, width = size
    scribble = np.full(size, UNLABELLED, np.uint8)
    scribble[height // 8 : height // 8 + 3, width // 8 : -width // 8] = 0
    for k in range(objects):
        row = height // 4 + (k * height) // (2 * objects)
        scribble[row : row + 3, width // 3 : 2 * width // 3] = k + 1
    return scribble
