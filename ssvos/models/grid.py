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


def outside_strokes(scribble: Tensor, stride: int) -> Tensor:
    """Cells outside the rectangle around all strokes, (N, H/stride, W/stride) bool: background strokes surround an
    object, so it is unlikely to reach out of it. No cell of an object without background strokes is outside."""
    labelled = scribble != UNLABELLED
    rows, columns = labelled.any(dim=2), labelled.any(dim=1)
    inside = _between(rows)[:, :, None] & _between(columns)[:, None, :]
    inside |= ~(scribble == 0).flatten(1).any(dim=1)[:, None, None]
    return ~(adaptive_max_pool2d(inside.float()[:, None], [s // stride for s in inside.shape[1:]])[:, 0] > 0)


def _between(present: Tensor) -> Tensor:
    """Whether a position lies between the first and the last that is present: (N, L) bool -> (N, L) bool."""
    forward = present.int().cummax(dim=1).values
    backward = present.flip(1).int().cummax(dim=1).values.flip(1)
    return (forward & backward) > 0


def upsample_coarse(coarse_logits: Tensor, height: int, width: int) -> Tensor:
    """Coarse logits (N, 2, h, w) -> (N, 2, height, width), without the padding."""
    stride = -(-height // STRIDE) * STRIDE // coarse_logits.shape[-2]
    full = interpolate(coarse_logits, scale_factor=stride, mode="bilinear", align_corners=False)
    return full[..., :height, :width]
