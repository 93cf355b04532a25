"""The grid of feature cells: padding of scribbles, labels of cells, and up-sampling from cells to pixels."""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, avg_pool2d, interpolate, pad

from ssvos.labels import UNLABELLED

STRIDE = 16  # frames are padded to multiples of it


def pad_scribble(scribble: Tensor) -> Tensor:
    """Pad scribbles (N, H, W) to multiples of 16, as frames are; the padding is unlabelled."""
    bottom, right = -scribble.shape[-2] % STRIDE, -scribble.shape[-1] % STRIDE
    return pad(scribble, (0, right, 0, bottom), value=UNLABELLED)


def cell_shares(scribble: Tensor, stride: int = STRIDE) -> Tensor:
    """Shares of background and foreground among the labelled pixels of every cell.

    scribble: (N, H, W) of 0, 1, 255
    returns: (N, 2, H/stride, W/stride); 0 in both channels for a cell without a labelled pixel
    """
    planes = torch.stack([scribble == 0, scribble == 1], dim=1).float()
    shares = avg_pool2d(planes, stride)
    return shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-6)


def cells_with_stroke(scribble: Tensor, stride: int = STRIDE) -> Tensor:
    """Whether a cell contains a foreground stroke, (N, H/stride, W/stride). Max-pooling keeps the thinnest stroke."""
    height, width = scribble.shape[-2] // stride, scribble.shape[-1] // stride
    return adaptive_max_pool2d((scribble == 1).float()[:, None], (height, width))[:, 0] > 0


def upsample_coarse(coarse_logits: Tensor, height: int, width: int) -> Tensor:
    """Coarse logits (N, 2, h, w) -> (N, 2, height, width), without the padding."""
    stride = -(-height // STRIDE) * STRIDE // coarse_logits.shape[-2]
    full = interpolate(coarse_logits, scale_factor=stride, mode="bilinear", align_corners=False)
    return full[..., :height, :width]
