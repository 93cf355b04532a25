"""The grid of feature cells: padding of scribbles, labels of cells, and up-sampling from cells to pixels."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, avg_pool2d, grid_sample, interpolate, pad

from ssvos.labels import UNLABELLED

STRIDE = 16  # frames are padded to multiples of it
_ALONG = 0.25  # share of the object's strokes, in rows or columns; in training a part of all strokes is left out


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
    """Cells that background strokes separate from the object, (N, H/stride, W/stride) bool.

    On a side of the object's strokes where background strokes run along at least `_ALONG` of them, the object is
    unlikely to reach beyond the outermost of these; on other sides nothing is outside.

    scribble: (N, H, W) of 0, 1, 255
    """
    inside = torch.stack([_inside(plane) for plane in scribble])
    height, width = (side // stride for side in inside.shape[1:])
    return ~(adaptive_max_pool2d(inside.float()[:, None], (height, width))[:, 0] > 0)


def _inside(scribble: Tensor) -> Tensor:
    """Pixels that are not outside, (H, W) bool, for one scribble."""
    inside = torch.ones_like(scribble, dtype=torch.bool)
    own, background = scribble == 1, scribble == 0
    if not own.any():
        return inside
    for axis in (0, 1):  # above and below, then left and right
        along = own.any(dim=axis).nonzero()[:, 0]
        across = own.any(dim=1 - axis).nonzero()[:, 0]
        lines = background if axis == 0 else background.T
        beside = lines[:, int(along[0]) : int(along[-1]) + 1]
        before, after = beside[: int(across[0])], beside[int(across[-1]) + 1 :]
        view = inside if axis == 0 else inside.T
        if before.any(dim=0).float().sum() >= _ALONG * beside.shape[1]:
            view[: int(before.any(dim=1).nonzero()[0])] = False
        if after.any(dim=0).float().sum() >= _ALONG * beside.shape[1]:
            view[int(across[-1]) + 2 + int(after.any(dim=1).nonzero()[-1]) :] = False
    return inside


def upsample_coarse(coarse_logits: Tensor, height: int, width: int) -> Tensor:
    """Coarse logits (N, 2, h, w) -> (N, 2, height, width), without the padding."""
    stride = -(-height // STRIDE) * STRIDE // coarse_logits.shape[-2]
    full = interpolate(coarse_logits, scale_factor=stride, mode="bilinear", align_corners=False)
    return full[..., :height, :width]


class Move(NamedTuple):
    """Where a new view of a scene lies in the old one: a point at the share u of the new view's height is at the share
    scale[0] * u + offset[0] of the old view's; likewise for the width."""

    scale: tuple[float, float]
    offset: tuple[float, float]


def move_cells(maps: Tensor, size: Sequence[int], stride: int, move: Move) -> Tensor:
    """Resample maps of cells, (N, C, h, w), to a new view; what the old view does not show is 0.

    size: (height, width) of both views in pixels, without the padding
    """
    axes = []
    for side, cells, scale, offset in zip(size, maps.shape[-2:], *move, strict=True):
        new = (torch.arange(cells, device=maps.device, dtype=torch.float32) + 0.5) * stride / side
        axes.append(2 * (scale * new + offset) * side / (cells * stride) - 1)
    rows, columns = torch.meshgrid(*axes, indexing="ij")
    points = torch.stack([columns, rows], dim=-1).expand(len(maps), -1, -1, -1)
    return grid_sample(maps.float(), points, align_corners=False).to(maps.dtype)
