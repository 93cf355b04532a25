"""3x3 convolutions by Winograd's minimal filtering F(4x4, 3x3), on a CPU.

A 3x3 filter needs 144 products for 16 outputs. With input, filter and output transformed to other bases it needs 36
(Lavin & Gray, "Fast algorithms for convolutional neural networks", 2016, with points 0, 1, -1, 2, -2 and infinity):

    y = A'[(G g G') * (B' d B)]A,   d: 6x6 inputs, g: 3x3 filter, y: 4x4 outputs, *: element by element

Each change of basis is one product with a small matrix. The rest is 36 products of (tiles, C) with (C, K), which a CPU
computes at the speed of any matrix product. The rounding error in float32 is 1e-5 of the largest output, ten times that
of a direct convolution. A convolution with dilation d is d^2 convolutions without dilation, each on one subgrid.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_B = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_G = [
    [1 / 4, 0.0, 0.0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0.0, 0.0, 1.0],
]
_A = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
_MIN_CHANNELS = 256  # with fewer channels, the change of basis costs as much as the products save
# the gradient is computed for this many input channels at a time: a larger block does not fit into memory that the
# process already has, and the system then allocates it page by page
_CHANNELS_AT_ONCE = 384
_MAX_PRODUCT_SHARE = 0.45  # of the products of a direct convolution; small maps fill their last tiles only partly
_CACHE = "_winograd_filters"  # attribute of a module


def _both_axes(rows: Sequence[Sequence[float]]) -> Tensor:
    matrix = torch.tensor(rows, dtype=torch.float64)
    return torch.kron(matrix, matrix)


_INPUT, _FILTER, _OUTPUT = _both_axes(_B), _both_axes(_G), _both_axes(_A)  # (36, 36), (36, 9), (16, 36)


class _Tiling(NamedTuple):
    """Partition of a map of N images into rows and columns of 4x4 tiles, on each of dilation^2 subgrids."""

    images: int
    height: int
    width: int
    rows: int
    columns: int
    dilation: int

    @classmethod
    def of(cls, x: Tensor, dilation: int) -> "_Tiling":
        images, _, height, width = x.shape
        return cls(images, height, width, -(-height // (4 * dilation)), -(-width // (4 * dilation)), dilation)

    @property
    def grid(self) -> tuple[int, ...]:
        return self.images, self.rows, self.dilation, self.columns, self.dilation

    def padded(self, channels: int) -> tuple[int, ...]:
        """Size of the padded map, channels last: a border of one cell of each subgrid, and whole tiles at the end."""
        d = self.dilation
        return self.images, (4 * self.rows + 2) * d, (4 * self.columns + 2) * d, channels

    def inside(self, padded: Tensor) -> Tensor:
        """The part of a padded map without its padding, (N, H, W, C)."""
        d = self.dilation
        return padded[:, d : d + self.height, d : d + self.width]

    def windows(self, padded: Tensor) -> Tensor:
        """The overlapping 6x6 windows of a padded map, (6, 6, *grid, C), as a view."""
        d, (image, row, column, channel) = self.dilation, padded.stride()
        strides = d * row, d * column, image, 4 * d * row, row, 4 * d * column, column, channel
        return padded.as_strided((6, 6, *self.grid, padded.shape[-1]), strides)


class _CachedFilters(NamedTuple):
    """Transformed filters, and the tensors that they were computed from.

    The cache holds references to `sources`, so that no other tensor can get the same id or address.
    """

    filters: Tensor
    versions: list[tuple[int, int, int]]
    sources: tuple[Tensor, ...]


def is_faster(x: Tensor, weight: Tensor, dilation: int) -> bool:
    """Whether this module is faster than PyTorch for a convolution of x (N, C, H, W), padded to keep its size, with
    weight (K, C, 3, 3)."""
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x.dtype != torch.float32:
        return False
    if weight.shape[-2:] != (3, 3) or min(weight.shape[:2]) < _MIN_CHANNELS or torch.is_autocast_enabled("cpu"):
        return False
    tiling = _Tiling.of(x, dilation)
    products = 36 * tiling.rows * tiling.columns * dilation**2
    return products <= _MAX_PRODUCT_SHARE * 9 * tiling.height * tiling.width


def transform_filters(weight: Tensor) -> Tensor:
    """G g G' of all filters (K, C, 3, 3): (36, K, C)."""
    filters = weight.permute(2, 3, 0, 1).reshape(9, -1)
    return (_FILTER.to(weight.dtype) @ filters).view(36, *weight.shape[:2])


def cached_filters(module: nn.Module, weight: Tensor, *sources: Tensor) -> Tensor | None:
    """transform_filters(weight), cached on `module` until one of the tensors that the weight is computed from changes.

    Only in inference mode; None otherwise.
    """
    if not torch.is_inference_mode_enabled() or any(source.is_inference() for source in sources):
        return None
    versions = [(id(source), source.data_ptr(), source._version) for source in sources]
    cached: _CachedFilters | None = vars(module).get(_CACHE)
    if cached is None or cached.versions != versions:
        cached = vars(module)[_CACHE] = _CachedFilters(transform_filters(weight), versions, sources)
    return cached.filters


def clear_cache(network: nn.Module) -> None:
    """Free the filters that `cached_filters` stored on the modules of a network: four times the size of the weights."""
    for module in network.modules():
        vars(module).pop(_CACHE, None)


def convolve(x: Tensor, weight: Tensor, bias: Tensor, dilation: int, filters: Tensor | None = None) -> Tensor:
    """Convolution with zero padding that keeps the size of x.

    x: (N, C, H, W)
    weight: (K, C, 3, 3)
    bias: any shape that broadcasts to the output
    filters: `transform_filters(weight)`, if already computed
    returns: (N, K, H, W)
    """
    if filters is None:
        filters = transform_filters(weight.detach())
    y: Tensor = _Convolution.apply(x, weight, bias, filters, dilation)  # type: ignore[no-untyped-call]  # torch does not annotate it
    return y


def weight_gradient(x: Tensor, grad: Tensor, dilation: int) -> Tensor:
    """Gradient of the filters, (K, C, 3, 3), from the input (N, C, H, W) and the output's gradient (N, K, H, W)."""
    tiling = _Tiling.of(x, dilation)
    outputs = _output_tiles(grad, tiling).transpose(1, 2)
    blocks = torch.split(x, _CHANNELS_AT_ONCE, dim=1)
    return torch.cat([_transform_adjoint(torch.bmm(outputs, _input_tiles(block, tiling))) for block in blocks], dim=1)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, filters: Tensor, dilation: int) -> Tensor:
        tiling = ctx.tiling = _Tiling.of(x, dilation)
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, filters)
        outputs = torch.bmm(_input_tiles(x, tiling), filters.transpose(1, 2))
        y = (_OUTPUT.to(x.dtype) @ outputs.view(36, -1)).view(4, 4, *tiling.grid, -1)
        y = y.permute(2, 3, 0, 4, 5, 1, 6, 7).reshape(len(x), 4 * tiling.rows * dilation, -1, len(weight))
        ctx.bias_shape = bias.shape
        return y[:, : tiling.height, : tiling.width].permute(0, 3, 1, 2) + bias

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, filters = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _input_adjoint(torch.bmm(_output_tiles(grad, ctx.tiling), filters), ctx.tiling)
        if ctx.needs_input_grad[1]:
            grad_weight = weight_gradient(x, grad, ctx.tiling.dilation)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum_to_size(ctx.bias_shape)
        return grad_x, grad_weight, grad_bias, None, None


def _input_tiles(x: Tensor, tiling: _Tiling) -> Tensor:
    """B' d B of every tile: (36, tiles, C)."""
    padded = x.new_zeros(tiling.padded(x.shape[1]))
    tiling.inside(padded).copy_(x.permute(0, 2, 3, 1))
    return (_INPUT.to(x.dtype) @ tiling.windows(padded).reshape(36, -1)).view(36, -1, x.shape[1])


def _output_tiles(grad: Tensor, tiling: _Tiling) -> Tensor:
    """A g A' of every tile of the output's gradient g: (36, tiles, K)."""
    d, channels = tiling.dilation, grad.shape[1]
    padded = grad.new_zeros(tiling.images, 4 * tiling.rows * d, 4 * tiling.columns * d, channels)
    padded[:, : tiling.height, : tiling.width] = grad.permute(0, 2, 3, 1)
    tiles = padded.view(tiling.images, tiling.rows, 4, d, tiling.columns, 4, d, channels)
    tiles = tiles.permute(2, 5, 0, 1, 3, 4, 6, 7).reshape(16, -1)
    return (_OUTPUT.to(grad.dtype).T @ tiles).view(36, -1, channels)


def _input_adjoint(tiles: Tensor, tiling: _Tiling) -> Tensor:
    """The adjoint of `_input_tiles`: (36, tiles, C) -> (N, C, H, W), the sum of all windows where they overlap."""
    padded = tiles.new_zeros(tiling.padded(tiles.shape[-1]))
    windows = tiling.windows(padded)
    parts = (_INPUT.to(tiles.dtype).T @ tiles.view(36, -1)).view(windows.shape)
    for row, column in product(range(6), range(6)):  # for a fixed offset, the windows do not overlap
        windows[row, column] += parts[row, column]
    return tiling.inside(padded).permute(0, 3, 1, 2)


def _transform_adjoint(products: Tensor) -> Tensor:
    """The adjoint of `transform_filters`: (36, K, C) -> (K, C, 3, 3)."""
    filters = _FILTER.to(products.dtype).T @ products.view(36, -1)
    return filters.view(3, 3, *products.shape[1:]).permute(2, 3, 0, 1)
