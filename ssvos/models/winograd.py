"""3x3 convolutions by Winograd's minimal filtering F(4x4, 3x3), on a CPU.

16 outputs of a 3x3 filter take 144 products; with input, filter and output brought to other bases they take 36
(Lavin & Gray, "Fast algorithms for convolutional neural networks", 2016, with points 0, 1, -1, 2, -2 and infinity):

    y = A'[(G g G') * (B' d B)]A,   d: 6x6 inputs, g: 3x3 filter, y: 4x4 outputs, *: position by position

The changes of basis are one small matrix product each, the rest is 36 products of (tiles, C) with (C, K), which a CPU
does at the speed of any matrix product. What float32 rounds is 1e-5 of the largest output, ten times that of the usual
sum. A dilated convolution is one without dilation on each of dilation^2 grids.
"""

from itertools import product
from typing import NamedTuple

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
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
_A = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
_FEWEST_CHANNELS = 256  # with fewer, changing the basis costs what the products save
# a gradient is taken in parts that fit into memory which the process has: larger ones come page by page from the system
_CHANNELS_AT_ONCE = 384
_MOST_PRODUCTS = 0.45  # of those of a convolution as it is written; a small map fills its last tiles badly


def _both_axes(rows: list[list[float]]) -> Tensor:
    matrix = torch.tensor(rows, dtype=torch.float64)
    return torch.kron(matrix, matrix)


_INPUT, _FILTER, _OUTPUT = _both_axes(_B), _both_axes(_G), _both_axes(_A)  # (36, 36), (36, 9), (16, 36)


class _Tiling(NamedTuple):
    """How a map of N images is cut: rows and columns of 4x4 tiles on each of dilation^2 grids."""

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
        """Size of the map, channels last, with a cell of each grid around it and whole tiles at its end."""
        d = self.dilation
        return self.images, (4 * self.rows + 2) * d, (4 * self.columns + 2) * d, channels

    def inside(self, padded: Tensor) -> Tensor:
        """The map itself in a padded one, (N, H, W, C)."""
        d = self.dilation
        return padded[:, d : d + self.height, d : d + self.width]

    def windows(self, padded: Tensor) -> Tensor:
        """The overlapping 6x6 windows of a padded map, (6, 6, *grid, C), without a copy."""
        d, (image, row, column, channel) = self.dilation, padded.stride()
        strides = d * row, d * column, image, 4 * d * row, row, 4 * d * column, column, channel
        return padded.as_strided((6, 6, *self.grid, padded.shape[-1]), strides)


class _Kept(NamedTuple):
    """parts: held, so that no other tensor can come to lie where one of them does."""

    filters: Tensor
    state: list[tuple[int, int, int]]
    parts: tuple[Tensor, ...]


def pays(x: Tensor, weight: Tensor, dilation: int) -> bool:
    """Whether a convolution of x (N, C, H, W) that keeps its size with weight (K, C, 3, 3) is faster so."""
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x.dtype != torch.float32:
        return False
    if weight.shape[-2:] != (3, 3) or min(weight.shape[:2]) < _FEWEST_CHANNELS or torch.is_autocast_enabled("cpu"):
        return False
    tiling = _Tiling.of(x, dilation)
    products = 36 * tiling.rows * tiling.columns * dilation**2
    return products <= _MOST_PRODUCTS * 9 * tiling.height * tiling.width


def transformed(weight: Tensor) -> Tensor:
    """G g G' of all filters (K, C, 3, 3): (36, K, C)."""
    filters = weight.permute(2, 3, 0, 1).reshape(9, -1)
    return (_FILTER.to(weight.dtype) @ filters).view(36, *weight.shape[:2])


def kept_transformed(owner: nn.Module, weight: Tensor, *parts: Tensor) -> Tensor | None:
    """transformed(weight), kept on `owner` until one of the parts that the weight is made of has changed. In inference
    alone: None otherwise."""
    if not torch.is_inference_mode_enabled() or any(part.is_inference() for part in parts):
        return None
    state = [(id(part), part.data_ptr(), part._version) for part in parts]
    kept = vars(owner).get("_transformed")
    if kept is None or kept.state != state:
        kept = vars(owner)["_transformed"] = _Kept(transformed(weight), state, parts)
    return kept.filters


def forget_transformed(network: nn.Module) -> None:
    """Free what `kept_transformed` has kept in any part of a network: four times the weights."""
    for part in network.modules():
        vars(part).pop("_transformed", None)


def convolve(x: Tensor, weight: Tensor, bias: Tensor, dilation: int, kept: Tensor | None = None) -> Tensor:
    """x (N, C, H, W) with filters (K, C, 3, 3), zeros around x, and a bias that broadcasts to the output (N, K, H, W).

    kept: `transformed(weight)`, if it is there already.
    """
    return _Convolution.apply(x, weight, bias, transformed(weight.detach()) if kept is None else kept, dilation)


def weight_gradient(x: Tensor, grad: Tensor, dilation: int) -> Tensor:
    """Of the filters (K, C, 3, 3), from the input (N, C, H, W) and the output's gradient (N, K, H, W)."""
    tiling = _Tiling.of(x, dilation)
    outputs = _output_tiles(grad, tiling).transpose(1, 2)
    parts = x.split(_CHANNELS_AT_ONCE, dim=1)
    return torch.cat([_filters(torch.bmm(outputs, _input_tiles(part, tiling))) for part in parts], dim=1)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, kept, dilation):
        tiling = ctx.tiling = _Tiling.of(x, dilation)
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, kept)
        outputs = torch.bmm(_input_tiles(x, tiling), kept.transpose(1, 2))
        y = (_OUTPUT.to(x.dtype) @ outputs.view(36, -1)).view(4, 4, *tiling.grid, -1)
        y = y.permute(2, 3, 0, 4, 5, 1, 6, 7).reshape(len(x), 4 * tiling.rows * dilation, -1, len(weight))
        ctx.bias_shape = bias.shape
        return y[:, : tiling.height, : tiling.width].permute(0, 3, 1, 2) + bias

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, kept = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = _overlapped(torch.bmm(_output_tiles(grad, ctx.tiling), kept), ctx.tiling)
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(x, grad, ctx.tiling.dilation)
        if ctx.needs_input_grad[2]:
            of_bias = grad.sum_to_size(ctx.bias_shape)
        return of_x, of_weight, of_bias, None, None


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


def _overlapped(tiles: Tensor, tiling: _Tiling) -> Tensor:
    """The adjoint of `_input_tiles`: (36, tiles, C) -> (N, C, H, W), the sum of all windows where they overlap."""
    padded = tiles.new_zeros(tiling.padded(tiles.shape[-1]))
    windows = tiling.windows(padded)
    parts = (_INPUT.to(tiles.dtype).T @ tiles.view(36, -1)).view(windows.shape)
    for row, column in product(range(6), range(6)):  # of which no two meet at one place
        windows[row, column] += parts[row, column]
    return tiling.inside(padded).permute(0, 3, 1, 2)


def _filters(products: Tensor) -> Tensor:
    """The adjoint of `transformed`: (36, K, C) -> (K, C, 3, 3)."""
    filters = _FILTER.to(products.dtype).T @ products.view(36, -1)
    return filters.view(3, 3, *products.shape[1:]).permute(2, 3, 0, 1)
