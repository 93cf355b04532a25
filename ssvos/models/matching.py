"""Matching of feature cells between frames: the most similar cells, in a window or everywhere.

The affinity of all pairs of cells is never stored: queries are compared in tiles with the cells around their tile, or
in parts with all cells, and only the best matches of every query are kept.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize, pad

from ssvos.models.backbone import Trunk
from ssvos.models.grid import Move, move_cells

_TILE = 8  # rows and columns of a tile of queries
_PAIRS_AT_ONCE = 2**22  # pairs of cells whose affinity is computed at a time


class StoredFrame(NamedTuple):
    """A frame whose labels are read.

    keys: `cell_keys` of M images, (M, D, h, w)
    labels: of its cells, (N, C, h, w); N is M, or the number of objects if these are of one image
    number: of the frame, from 0
    """

    keys: Tensor
    labels: Tensor
    number: int


class Matches(NamedTuple):
    """The best matches of every cell of N frames.

    affinity: cosines, falling, (N, h*w, k); minus infinity where there are fewer than k candidates
    labels: labels of the matched cells, (N, h*w, k, C)
    """

    affinity: Tensor
    labels: Tensor


class KeyStatistics(NamedTuple):
    """What the features of layer2 and layer3 are compared by, for M images.

    means: of each feature, (M, C, 1, 1) per layer
    lengths: mean length of the centred features, (M, 1, 1, 1) per layer
    """

    means: tuple[Tensor, Tensor]
    lengths: tuple[Tensor, Tensor]


def key_statistics(trunk: Trunk) -> KeyStatistics:
    """The statistics of images, usually of a video's first frame: keys of all its frames are then comparable, whatever
    part of the scene a frame shows."""
    layers = _key_layers(trunk)
    means = [features.mean(dim=(2, 3), keepdim=True) for features in layers]
    lengths = [
        (features - mean).norm(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True).clamp(min=1e-6)
        for features, mean in zip(layers, means, strict=True)
    ]
    return KeyStatistics((means[0], means[1]), (lengths[0], lengths[1]))


def cell_keys(trunk: Trunk, statistics: KeyStatistics) -> Tensor:
    """Unit vectors of the cells of M images, (M, D, h, w), by which cells are compared.

    Features of layer2 and layer3 are centred, scaled to a mean length of 1, and concatenated.
    """
    parts = [
        (features - mean) / length
        for features, mean, length in zip(_key_layers(trunk), statistics.means, statistics.lengths, strict=True)
    ]
    return normalize(torch.cat(parts, dim=1), dim=1)


def move_frame(frame: StoredFrame, size: Sequence[int], stride: int, move: Move) -> StoredFrame:
    """A frame in a new view; cells that it does not show match nothing. Arguments as for `grid.move_cells`."""
    keys, labels = (move_cells(maps, size, stride, move) for maps in (frame.keys, frame.labels))
    return StoredFrame(keys, labels, frame.number)


def with_newest(
    recent: tuple[StoredFrame, ...], newest: StoredFrame, interval: int, count: int
) -> tuple[StoredFrame, ...]:
    """The recent frames to store after `newest`, newest first: it, and before it every frame of a number that
    `interval` divides, `count` in all. A longer past is read in the same time, and labels drift less than from the
    latest frames alone."""
    kept = [frame for frame in recent if frame.number % interval == 0]
    return (newest, *kept)[:count]


def match_everywhere(queries: Tensor, keys: Tensor, labels: Tensor, k: int) -> Matches:
    """Compare every cell with all cells of one frame.

    queries, keys: unit vectors, (N, D, h, w)
    labels: of the cells of `keys`, (N, C, h, w)
    """
    points, candidates = (rearrange(x, "n d h w -> n (h w) d") for x in (queries, keys))
    flat_labels = rearrange(labels, "n c h w -> n (h w) c")
    affinities, matched = [], []
    size = max(1, _PAIRS_AT_ONCE // (len(points) * candidates.shape[1]))
    for part in torch.split(points, size, dim=1):
        best = (part @ candidates.mT).topk(min(k, candidates.shape[1]), dim=2)
        affinities.append(best.values)
        matched.append(_gather(flat_labels, best.indices))
    return Matches(torch.cat(affinities, dim=1), torch.cat(matched, dim=1))


def match_window(queries: Tensor, keys: Tensor, labels: Tensor, radius: int, k: int) -> Matches:
    """Compare every cell with the cells of one frame at most `radius` rows and columns away.

    queries, keys: unit vectors, (N, D, h, w)
    labels: of the cells of `keys`, (N, C, h, w)
    """
    num, _, height, width = queries.shape
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    bottom, right = rows * _TILE - height, columns * _TILE - width
    tiles = rearrange(pad(queries, (0, right, 0, bottom)), "n d (r i) (c j) -> (n r c) (i j) d", i=_TILE, j=_TILE)
    margin = (radius, radius + right, radius, radius + bottom)
    contexts = _contexts(pad(keys, margin), radius)  # (n r c) d (side side)
    context_labels = _contexts(pad(labels, margin), radius)
    affinity = tiles @ contexts
    affinity.masked_fill_(~_in_window(radius, queries.device), -torch.inf)
    inside = _contexts(pad(queries.new_ones(num, 1, height, width), margin), radius)
    affinity.masked_fill_(inside == 0, -torch.inf)
    best = affinity.topk(min(k, affinity.shape[2]), dim=2)
    matched = _gather(context_labels.mT, best.indices)

    def join(x: Tensor) -> Tensor:
        grid = x.reshape(num, rows, columns, _TILE, _TILE, *x.shape[2:]).transpose(2, 3)
        return grid.reshape(num, rows * _TILE, columns * _TILE, *x.shape[2:])[:, :height, :width].flatten(1, 2)

    return Matches(join(best.values), join(matched))


def read_labels(matches: list[Matches], temperature: float, k: int) -> Tensor:
    """Mean labels of the k best matches, weighted by the softmax of their cosines: (N, h*w, C)."""
    affinity = torch.cat([match.affinity for match in matches], dim=2)
    labels = torch.cat([match.labels for match in matches], dim=2)
    best = affinity.topk(min(k, affinity.shape[2]), dim=2)
    weights = (best.values / temperature).softmax(dim=2)
    chosen = labels.gather(2, best.indices[..., None].expand(-1, -1, -1, labels.shape[3]))
    return (weights[..., None] * chosen).sum(dim=2)


def _contexts(padded: Tensor, radius: int) -> Tensor:
    """The cells within `radius` of every tile: padded (N, D, H, W) -> (tiles, D, side*side)."""
    side = _TILE + 2 * radius
    windows = padded.unfold(2, side, _TILE).unfold(3, side, _TILE)
    return rearrange(windows, "n d r c i j -> (n r c) d (i j)")


def _in_window(radius: int, device: torch.device) -> Tensor:
    """Whether a cell of a context is in the window of a cell of its tile, (tile*tile, side*side) bool."""
    tile, context = torch.arange(_TILE, device=device), torch.arange(_TILE + 2 * radius, device=device) - radius
    near = (tile[:, None] - context).abs() <= radius  # the same for rows and columns
    both = near[:, None, :, None] & near[None, :, None, :]
    return both.flatten(2).flatten(0, 1)


def _gather(labels: Tensor, indices: Tensor) -> Tensor:
    """Labels (N, M, C) at indices (N, P, k) -> (N, P, k, C)."""
    num, queries, k = indices.shape
    flat = indices.reshape(num, queries * k, 1).expand(-1, -1, labels.shape[2])
    return labels.gather(1, flat).view(num, queries, k, labels.shape[2])


def _key_layers(trunk: Trunk) -> tuple[Tensor, Tensor]:
    """Features of layer2 and layer3, at the stride of layer3."""
    shallow = adaptive_avg_pool2d(trunk.s8, (trunk.deep.shape[-2], trunk.deep.shape[-1]))
    return shallow.float(), trunk.deep.float()
