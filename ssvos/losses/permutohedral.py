"""Gaussian filters K in five dimensions: an exact sum, and the permutohedral lattice (Adams et al. 2010).

Both hold one image batch's affinities K(i, j) = exp(-1/2 |f_i - f_j|^2), diagonal included, and apply K or its
transpose to any number of channels. Gradients flow to the values, never to the features.
"""

from typing import Protocol

import torch
from torch import Tensor

_CALIBRATION_ROWS = 256


class GaussianFilter(Protocol):
    """What both filters offer."""

    def apply(self, values: Tensor) -> Tensor:
        """K times values: (B, C, N) -> (B, C, N)."""
        ...


class ExactFilter:
    """The O(N^2) sum, taken in chunks of rows so that N x N never exists. features: (B, N, d)."""

    def __init__(self, features: Tensor, chunk: int = 1024):
        self.features, self.chunk = features, chunk

    def apply(self, values: Tensor) -> Tensor:
        rows = [_affinity(chunk, self.features) @ values.mT for chunk in self.features.split(self.chunk, dim=1)]
        return torch.cat(rows, dim=1).mT


def _affinity(rows: Tensor, columns: Tensor) -> Tensor:
    return torch.exp(-0.5 * torch.cdist(rows, columns, compute_mode="donot_use_mm_for_euclid_dist") ** 2)


class LatticeFilter:
    """The permutohedral lattice of one image batch; built once, applied to all channels and objects.

    features: (B, N, d), each dimension divided by its bandwidth. `calibration` (B,) is the factor that brings the
    filter's row sums to the exact ones, measured on a few hundred evenly spaced rows of each image.
    """

    def __init__(self, features: Tensor, calibrate: bool = False):
        batch, num_points, dim = features.shape
        self.shape = (batch, num_points)
        vertices, self.weights = _enclosing_simplex(features.flatten(0, 1))
        image = torch.arange(batch, device=features.device).repeat_interleave(num_points)
        self.vertex, self.neighbours, self.num_vertices = _index_vertices(vertices, image)
        self.gain = 1.0 / (1.0 + 2.0**-dim)
        self.calibration = features.new_ones(batch)
        if calibrate:
            self.calibration = self._calibrate(features)

    def apply(self, values: Tensor) -> Tensor:
        return _Apply.apply(values, self) * self.calibration[:, None, None]

    def multiply(self, values: Tensor, transpose: bool) -> Tensor:
        """K or K^T times values (B, C, N), without gradient: splat, blur along each axis, slice.

        Every axis's blur is symmetric, and slicing is the transpose of splatting, so the transpose of the whole only
        turns round the order of the axes.
        """
        batch, channels, num_points = values.shape
        flat = values.transpose(1, 2).reshape(batch * num_points, channels)
        splat = values.new_zeros(self.num_vertices + 1, channels)  # the last row stands for absent neighbours
        for corner in range(self.vertex.shape[1]):
            splat.index_add_(0, self.vertex[:, corner], flat * self.weights[:, corner, None])
        axes = range(len(self.neighbours))
        for axis in reversed(axes) if transpose else axes:
            before, after = self.neighbours[axis]
            splat[:-1] = 0.5 * splat[:-1] + 0.25 * (splat[before] + splat[after])
        sliced = torch.zeros_like(flat)
        for corner in range(self.vertex.shape[1]):
            sliced += splat[self.vertex[:, corner]] * self.weights[:, corner, None]
        return self.gain * sliced.view(batch, num_points, channels).transpose(1, 2)

    def _calibrate(self, features: Tensor) -> Tensor:
        batch, num_points, _ = features.shape
        count = min(_CALIBRATION_ROWS, num_points)
        rows = torch.linspace(0, num_points - 1, count, device=features.device).round().long()
        exact = _affinity(features[:, rows], features).sum(dim=(1, 2))
        ours = self.multiply(features.new_ones(batch, 1, num_points), transpose=False)[:, 0, rows].sum(dim=1)
        return exact / ours


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, lattice: LatticeFilter) -> Tensor:
        ctx.lattice = lattice
        return lattice.multiply(values, transpose=False)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.lattice.multiply(gradient.contiguous(), transpose=True), None


def _enclosing_simplex(features: Tensor) -> tuple[Tensor, Tensor]:
    """Points (N, d) -> the d+1 lattice vertices around each, (N, d+1, d) int64 (the last coordinate follows from the
    others, which sum to 0), and their barycentric weights, (N, d+1)."""
    dim = features.shape[1]
    axis = torch.arange(1, dim + 1, device=features.device, dtype=features.dtype)
    # the lattice's blur has a standard deviation of sqrt(2/3) (d + 1) lattice units
    scaled = features * (dim + 1) * (2 / 3) ** 0.5 / (axis * (axis + 1)).sqrt()
    tail = scaled.flip(1).cumsum(1).flip(1)
    elevated = torch.cat([tail, torch.zeros_like(tail[:, :1])], 1)
    elevated[:, 1:] -= axis * scaled
    nearest = torch.round(elevated / (dim + 1))
    excess = nearest.sum(dim=1, keepdim=True).long()
    difference = elevated - nearest * (dim + 1)
    rank = difference.argsort(dim=1, descending=True, stable=True).argsort(dim=1) + excess
    # walk back to the plane of coordinates that sum to 0
    wrap = (rank < 0).long() - (rank > dim).long()
    rank = rank + wrap * (dim + 1)
    nearest = nearest.long() + wrap
    difference = (elevated - nearest * (dim + 1)) / (dim + 1)
    ordered = torch.zeros_like(difference).scatter_(1, rank, difference)  # by rank: largest difference first
    weights = torch.empty_like(ordered)
    weights[:, 1:] = (ordered[:, :-1] - ordered[:, 1:]).flip(1)
    weights[:, 0] = 1.0 + ordered[:, -1] - ordered[:, 0]
    remainder = torch.arange(dim + 1, device=features.device)[None, :, None]
    beyond = (rank[:, None, :] > dim - remainder).long()
    vertices = nearest[:, None, :] * (dim + 1) + remainder - beyond * (dim + 1)
    return vertices[..., :dim], weights


def _index_vertices(vertices: Tensor, image: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]], int]:
    """Number the distinct vertices and find each one's two neighbours along each of the d+1 axes.

    returns: index (N, d+1), for each axis two (M,) indices with M for an absent neighbour, and M.
    """
    num_points, corners, dim = vertices.shape
    low = vertices.amin(dim=(0, 1)) - corners  # room for neighbours, so that packed keys never carry over
    extent = vertices.amax(dim=(0, 1)) + corners - low + 1
    place = torch.ones(dim + 1, dtype=torch.int64, device=vertices.device)
    place[1:] = extent.cumprod(0)
    if float(extent.double().prod()) * (int(image.max()) + 1) >= 2.0**63:
        raise ValueError(
            "loss.sigma_xy, loss.sigma_rgb: too small for this frame size; the lattice does not fit 64 bits"
        )
    packed = ((vertices - low) * place[:dim]).sum(dim=2) + (image * place[dim])[:, None]
    keys, index = torch.unique(packed, return_inverse=True)
    neighbours = []
    for axis in range(corners):
        step = torch.ones(dim, dtype=torch.int64, device=vertices.device)
        if axis < dim:
            step[axis] = -dim
        shift = (step * place[:dim]).sum()
        neighbours.append((_find(keys, keys - shift), _find(keys, keys + shift)))
    return index.view(num_points, corners), neighbours, len(keys)


def _find(keys: Tensor, wanted: Tensor) -> Tensor:
    position = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    return torch.where(keys[position] == wanted, position, len(keys))
