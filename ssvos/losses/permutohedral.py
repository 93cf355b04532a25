"""A Gaussian filter in position and color on a permutohedral lattice (Adams et al. 2010).

It approximates K(i, j) = exp(-1/2 |f_i - f_j|^2), diagonal included, over the pixels of each image of a batch.
Features f are y, x and the colors, each divided by its bandwidth, (B, 2 + d, N). Gradients flow to the filtered values,
never to the features.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from ssvos.losses.gaussian_filter import GaussianFilter

# in bandwidths: spacing of nodes in position and in color, and the color distance at which the Gaussian is cut off
_GRID_SPACING, _LATTICE_SPACING, _CUTOFF = 0.6, 0.9, 2.7
_MAX_TABLE_ENTRIES = 2**27


class LatticeFilter(GaussianFilter):
    """K as W G W^T: pixels to the nodes around them (splat), nodes to nodes (blur), nodes back to pixels (slice).

    A node is a color on the permutohedral lattice, near the colors of the images, together with a position on a grid.
    W holds the barycentric weights of each pixel in its enclosing simplex. G is the Gaussian between two nodes,
    narrowed by the variance that W adds. One filter serves any number of channels of its batch.

    features: (B, 2 + d, N). Raises ValueError if the bandwidths are so small that the lattice exceeds the size limit.
    """

    def __init__(self, features: Tensor):
        batch, dim, num_points = features.shape
        first, part = _unit_cubes(features.transpose(0, 1).flatten(1))
        offsets, gaussian = _color_neighbourhood(dim - 2, features)
        margin = torch.tensor([0, 0] + [int(offsets.max())] * (dim - 2), device=features.device)
        low = first.amin(dim=1) - margin
        height, width, *extents = (first.amax(dim=1) + margin + 2 - low).tolist()
        num_keys = math.prod(extents)
        _check_size(max(height, width) ** 2, "loss.sigma_xy")
        _check_size(batch * num_keys, "loss.sigma_rgb")
        # the key of a node: image and color in the high bits, position in the low bits
        bits = (height * width).bit_length()
        color_strides = torch.tensor([1, *extents], device=features.device)[:-1].cumprod(0)
        strides = torch.cat([color_strides.new_tensor([width, 1]), color_strides << bits])
        image = torch.arange(batch, device=features.device).repeat_interleave(num_points)
        origin = (image * num_keys << bits) - (low * strides).sum()
        keys, self.weights = _enclosing_simplex(first, part, origin, strides)
        color, self.neighbours = _number_keys(keys >> bits, batch * num_keys, (offsets * color_strides).sum(dim=1))
        self.affinity = gaussian.expand(self.neighbours.shape).contiguous()
        self.positions = [_position_gaussian(size, features) for size in (height, width)]
        self.size = len(self.neighbours), height, width
        _check_size(math.prod(self.size), "loss.sigma_xy")
        self.nodes = color * (height * width) + (keys & (1 << bits) - 1)

    def multiply(self, values: Tensor) -> Tensor:
        batch, channels, num_points = values.shape
        pixels = values.transpose(0, 1).reshape(channels, batch * num_points)
        nodes = values.new_zeros(channels, math.prod(self.size))
        for result, channel in zip(nodes, pixels, strict=True):
            for node, weight in zip(self.nodes, self.weights, strict=True):
                result.scatter_add_(0, node, channel * weight)
        nodes = self._blur(nodes.view(channels, *self.size)).flatten(1)
        pixels = torch.zeros_like(pixels)
        for result, channel in zip(pixels, nodes, strict=True):
            for node, weight in zip(self.nodes, self.weights, strict=True):
                result.addcmul_(channel.index_select(0, node), weight)
        return pixels.view(channels, batch, num_points).transpose(0, 1)

    def _blur(self, nodes: Tensor) -> Tensor:
        """G times the values of the nodes, (C, M, Y, X) -> (C, M, Y, X)."""
        (num_colors, height, width), (along_y, along_x) = self.size, self.positions
        rows = (nodes @ along_x).permute(1, 3, 0, 2).reshape(-1, height) @ along_y
        rows = pad(rows.view(num_colors, -1), (0, 0, 0, 1))  # the last row, zeros, represents absent colors
        rows = embedding_bag(self.neighbours, rows, per_sample_weights=self.affinity, mode="sum")
        return rows.view(num_colors, width, -1, height).permute(2, 0, 3, 1)


def _unit_cubes(points: Tensor) -> tuple[Tensor, Tensor]:
    """The unit cube around each of the points (D, N): its first corner, integers, and the point's position in it."""
    position, color = points[:2] / _GRID_SPACING, points[2:] / _LATTICE_SPACING
    dim = len(color)
    # In these coordinates the permutohedral lattice has integer nodes. The shift moves greys off the edges of the
    # simplices; on an edge, black, white and flat surfaces would get too much weight.
    shift = torch.arange(dim, device=points.device, dtype=points.dtype)[:, None] / dim
    scaled = torch.cat([position, color + color.sum(dim=0) * ((math.sqrt(dim + 1) - 1) / dim) + shift])
    first = scaled.floor()
    return first.long(), scaled - first


def _enclosing_simplex(first: Tensor, part: Tensor, origin: Tensor, strides: Tensor) -> tuple[Tensor, Tensor]:
    """Keys of the D+1 corners of the simplex around each point, and its barycentric weights, both (D+1, N).

    first: first corner of the point's unit cube, (D, N)
    part: position of the point in that cube, (D, N)
    origin: key of the coordinate origin, (N,)
    strides: change of the key for one step along each axis, (D,)
    """
    # every other row and column of cubes is mirrored: simplices that all slant to one side would bend the Gaussian
    is_odd = first & torch.tensor([[1], [1], *[[0]] * (len(first) - 2)], device=first.device)
    key = origin + ((first + is_odd) * strides[:, None]).sum(dim=0)
    # sort the axes by part, largest first: part and axis are packed into one integer, because maxima of integers are
    # many times faster than torch.where
    axis = 2 * torch.arange(len(first), device=first.device)[:, None] + is_odd
    packed = [*((is_odd - part).abs() * 2**26).int() * 16 + axis.int()]
    for last in range(len(packed) - 1, 0, -1):
        for k in range(last):
            packed[k : k + 2] = torch.maximum(*packed[k : k + 2]), torch.minimum(*packed[k : k + 2])
    steps = torch.stack([strides, -strides], dim=1).flatten()
    keys = [key]
    for part_and_axis in packed:
        keys.append(keys[-1] + steps.index_select(0, part_and_axis & 15))
    bounds = [torch.ones_like(part[0]), *((p >> 4).to(part.dtype) / 2**26 for p in packed), torch.zeros_like(part[0])]
    return torch.stack(keys), torch.stack([a - b for a, b in pairwise(bounds)])


def _number_keys(keys: Tensor, num_keys: int, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Number the M different keys from 0, and find the neighbours of each.

    keys: any shape, values below num_keys
    steps: differences of key to the neighbours, (R,)
    returns: the number of every key, in the shape of `keys`, and the numbers of the neighbours, (M, R) int32; M for a
        neighbour that does not occur
    """
    occurs = torch.zeros(num_keys, dtype=torch.bool, device=keys.device).index_fill_(0, keys.flatten(), True)
    unique = occurs.nonzero().flatten().int()
    number = torch.full_like(occurs, len(unique), dtype=torch.int32)
    number[unique] = torch.arange(len(unique), dtype=torch.int32, device=keys.device)
    around = unique[:, None] + steps.int()
    node, neighbours = (number.index_select(0, k.flatten()).view_as(k) for k in (keys, around))
    return node.long(), neighbours


def _position_gaussian(size: int, like: Tensor) -> Tensor:
    """The Gaussian between the rows, or the columns, of the grid, (size, size)."""
    node = _GRID_SPACING * torch.arange(size, device=like.device, dtype=like.dtype)
    return _gaussian((node[:, None] - node) ** 2, 1 - _GRID_SPACING**2 / 3, 1)


def _color_neighbourhood(dim: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Steps from a color node to all nodes within the cutoff, integers (R, dim), and the Gaussian at each, (R,)."""
    margin = math.ceil(_CUTOFF * 2**0.5 / _LATTICE_SPACING)
    offsets = torch.cartesian_prod(*[torch.arange(-margin, margin + 1, device=like.device)] * dim).view(-1, dim)
    square = _LATTICE_SPACING**2 * ((offsets**2).sum(dim=1) - offsets.sum(dim=1) ** 2 / (dim + 1))
    is_near = square <= _CUTOFF**2
    return offsets[is_near], _gaussian(square[is_near].to(like.dtype), 1 - _LATTICE_SPACING**2 / 6, dim)


def _gaussian(square: Tensor, variance: float, dim: int) -> Tensor:
    """Gaussian of squared distances, scaled to the integral of a Gaussian of variance 1 and height 1."""
    scale: float = variance ** (-dim / 2)
    return torch.exp(-0.5 / variance * square) * scale


def _check_size(entries: int, key: str) -> None:
    if entries > _MAX_TABLE_ENTRIES:
        raise ValueError(
            f"{key}: too small, the lattice would have {entries:.0e} entries; raise it, or set loss.filter to exact"
        )
