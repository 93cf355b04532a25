"""A Gaussian filter in position and colour: a lattice after Adams et al. 2010.

It approximates K(i, j) = exp(-1/2 |f_i - f_j|^2), diagonal included, over the pixels of each image of a batch.
Features f are y, x and the colours, each over its bandwidth, (B, 2 + d, N). Gradients flow to the filtered values,
never to the features.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from ssvos.losses.gaussian_filter import GaussianFilter

# in bandwidths: between neighbouring nodes in position and in colour, and the distance from which colours do not meet
_GRID_SPACING, _LATTICE_SPACING, _REACH = 0.6, 0.9, 2.7
_LARGEST_TABLE = 2**27  # entries


class LatticeFilter(GaussianFilter):
    """K as W G W^T: from the pixels to the nodes around them, from nodes to nodes, and back to the pixels.

    A node is a pair of a colour, on the permutohedral lattice near colours of the images, and of a position, on a grid.
    W holds the barycentric weights of the simplex that a pixel lies in. G is the Gaussian of two nodes, made narrower
    by what W widens it. Built once for a batch, applied to any number of channels.
    """

    def __init__(self, features: Tensor):
        batch, dim, num_points = features.shape
        first, part = _unit_cubes(features.transpose(0, 1).flatten(1))
        offsets, gaussian = _colour_neighbourhood(dim - 2, features)
        room = torch.tensor([0, 0] + [int(offsets.max())] * (dim - 2), device=features.device)
        low = first.amin(dim=1) - room
        height, width, *extents = (first.amax(dim=1) + room + 2 - low).tolist()
        num_keys = math.prod(extents)
        _check_size(max(height, width) ** 2, "loss.sigma_xy")
        _check_size(batch * num_keys, "loss.sigma_rgb")
        # a node's key: image and colour, and in the last bits the position
        bits = (height * width).bit_length()
        place = torch.tensor([1, *extents], device=features.device)[:-1].cumprod(0)
        places = torch.cat([place.new_tensor([width, 1]), place << bits])
        image = torch.arange(batch, device=features.device).repeat_interleave(num_points)
        origin = (image * num_keys << bits) - (low * places).sum()
        keys, self.weights = _enclosing_simplex(first, part, origin, places)
        colour, self.neighbours = _number(keys >> bits, batch * num_keys, (offsets * place).sum(dim=1))
        self.affinity = gaussian.expand(self.neighbours.shape).contiguous()
        self.positions = [_gaussian_of_positions(size, features) for size in (height, width)]
        self.size = len(self.neighbours), height, width
        _check_size(math.prod(self.size), "loss.sigma_xy")
        self.nodes = colour * (height * width) + (keys & (1 << bits) - 1)

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
        """G times the nodes, (C, M, Y, X) both."""
        (num_colours, height, width), (along_y, along_x) = self.size, self.positions
        rows = (nodes @ along_x).permute(1, 3, 0, 2).reshape(-1, height) @ along_y
        rows = pad(rows.view(num_colours, -1), (0, 0, 0, 1))  # the last one stands for absent colours
        rows = embedding_bag(self.neighbours, rows, per_sample_weights=self.affinity, mode="sum")
        return rows.view(num_colours, width, -1, height).permute(2, 0, 3, 1)


def _unit_cubes(points: Tensor) -> tuple[Tensor, Tensor]:
    """First corners, integers, of the cubes that points (D, N) lie in, and the places in there; both (D, N)."""
    position, colour = points[:2] / _GRID_SPACING, points[2:] / _LATTICE_SPACING
    dim = len(colour)
    # in these coordinates the permutohedral lattice has integer nodes; the shift takes greys off the simplices' edges,
    # where black, white and flat surfaces would weigh too much
    shift = torch.arange(dim, device=points.device, dtype=points.dtype)[:, None] / dim
    scaled = torch.cat([position, colour + colour.sum(dim=0) * ((math.sqrt(dim + 1) - 1) / dim) + shift])
    first = scaled.floor()
    return first.long(), scaled - first


def _enclosing_simplex(first: Tensor, part: Tensor, origin: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Keys of the D+1 corners of the simplex of a cube that a point lies in, and barycentric weights, both (D+1, N).

    first: the cube's first corner, and part: the point in it, (D, N). A key is origin (N,) and, for each step along an
    axis, place (D,).
    """
    # every other row and column of cubes is mirrored: simplices that all slant to one side would bend the Gaussian
    is_odd = first & torch.tensor([[1], [1], *[[0]] * (len(first) - 2)], device=first.device)
    key = origin + ((first + is_odd) * place[:, None]).sum(dim=0)
    # sort along the axes, largest first: part and axis in one integer, as maxima are many times faster than torch.where
    axis = 2 * torch.arange(len(first), device=first.device)[:, None] + is_odd
    packed = [*((is_odd - part).abs() * 2**26).int() * 16 + axis.int()]
    for last in range(len(packed) - 1, 0, -1):
        for k in range(last):
            packed[k : k + 2] = torch.maximum(*packed[k : k + 2]), torch.minimum(*packed[k : k + 2])
    steps = torch.stack([place, -place], dim=1).flatten()
    keys = [key]
    for part_and_axis in packed:
        keys.append(keys[-1] + steps.index_select(0, part_and_axis & 15))
    bounds = [torch.ones_like(part[0]), *((p >> 4).to(part.dtype) / 2**26 for p in packed), torch.zeros_like(part[0])]
    return torch.stack(keys), torch.stack([a - b for a, b in pairwise(bounds)])


def _number(keys: Tensor, num_keys: int, steps: Tensor) -> tuple[Tensor, Tensor]:
    """The M keys that occur as numbers, and those `steps` (R,) away from each, M for an absent one, (M, R) int32."""
    occurs = torch.zeros(num_keys, dtype=torch.bool, device=keys.device).index_fill_(0, keys.flatten(), True)
    found = occurs.nonzero().flatten().int()
    number = torch.full_like(occurs, len(found), dtype=torch.int32)
    number[found] = torch.arange(len(found), dtype=torch.int32, device=keys.device)
    around = found[:, None] + steps.int()
    node, neighbours = (number.index_select(0, k.flatten()).view_as(k) for k in (keys, around))
    return node.long(), neighbours


def _gaussian_of_positions(size: int, like: Tensor) -> Tensor:
    """Between the rows, or columns, of the grid: (size, size)."""
    node = _GRID_SPACING * torch.arange(size, device=like.device, dtype=like.dtype)
    return _gaussian((node[:, None] - node) ** 2, 1 - _GRID_SPACING**2 / 3, 1)


def _colour_neighbourhood(dim: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Steps from a colour to all within reach, integers (R, dim), and the Gaussian there, (R,)."""
    margin = math.ceil(_REACH * 2**0.5 / _LATTICE_SPACING)
    offsets = torch.cartesian_prod(*[torch.arange(-margin, margin + 1, device=like.device)] * dim).view(-1, dim)
    square = _LATTICE_SPACING**2 * ((offsets**2).sum(dim=1) - offsets.sum(dim=1) ** 2 / (dim + 1))
    is_near = square <= _REACH**2
    return offsets[is_near], _gaussian(square[is_near].to(like.dtype), 1 - _LATTICE_SPACING**2 / 6, dim)


def _gaussian(square: Tensor, variance: float, dim: int) -> Tensor:
    """Of squared distances, with the integral that variance 1 and height 1 have."""
    return torch.exp(-0.5 / variance * square) * variance ** (-dim / 2)


def _check_size(entries: int, key: str) -> None:
    if entries > _LARGEST_TABLE:
        raise ValueError(
            f"{key}: too small, the lattice would have {entries:.0e} entries; raise it, or set loss.filter to exact"
        )
