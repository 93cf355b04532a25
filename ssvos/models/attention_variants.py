"""Attention variants of Table III: non-local, criss-cross and point-wise spatial attention.

Each replaces scribble attention and maps features (N, C, H, W) to Z = gamma * O + X, where gamma (`scale`) starts at 0.
None uses a scribble, so all objects of an image share one output.

Paper gap: Table III only names the variants. Those that weight positions by query and key have the widths of scribble
attention and its 1x1 convolution back to C here, so that they differ from it only in the positions they attend to.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, scaled_dot_product_attention

from ssvos.config import AttentionConfig
from ssvos.models.attention import QueryKeyValue


class NonLocal(QueryKeyValue):
    """Every position attends to all positions of its own frame (Wang et al. 2018, embedded Gaussian).

    The original has widths C/2 as well. It also starts as the identity, by zeros in its last layer instead of gamma.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W), without a matrix of HW x HW if PyTorch has a fused kernel."""
        # the fused kernels need a head dimension; there is one head
        cells = rearrange(x, "n c h w -> n 1 (h w) c")
        context = scaled_dot_product_attention(
            self.query(cells), self.key(cells), self.value(cells), scale=self.affinity_scale
        )
        output: Tensor = self.back(context)
        return x + self.scale * rearrange(output, "n 1 (h w) c -> n c h w", h=x.shape[-2])


class CrissCross(QueryKeyValue):
    """Every position attends to its row and its column, twice with the same weights (Huang et al. 2019, CCNet).

    After the second pass, information from all positions has reached it. Time and memory grow with HW (H + W). As in
    the original, each pass adds its own residual. The published code has width C/8 for query and key, and C for the
    value, without a convolution back; its paper only requires fewer than C. Here all widths are C/2, with a convolution
    back to C, as in scribble attention (see the module's docstring).
    """

    num_passes = 2

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        for _ in range(self.num_passes):
            x = self.attend_once(x)
        return x

    def attend_once(self, x: Tensor) -> Tensor:
        """One pass, (N, C, H, W) -> (N, C, H, W)."""
        context: Tensor = self.back(self._context(rearrange(x, "n c h w -> n h w c")))
        return x + self.scale * rearrange(context, "n h w c -> n c h w")

    def _context(self, cells: Tensor) -> Tensor:
        """A softmax over the H + W - 1 positions of a cell's row and column: (N, H, W, C) -> (N, H, W, C/2)."""
        height, width = cells.shape[1:3]
        query, key, value = self.query(cells) * self.affinity_scale, self.key(cells), self.value(cells)
        row = torch.einsum("nyxc,nyjc->nyxj", query, key)
        column = torch.einsum("nyxc,nixc->nyxi", query, key)
        # the row already contains the position itself
        is_itself = torch.eye(height, dtype=torch.bool, device=cells.device)[:, None, :]
        column = column.masked_fill(is_itself, float("-inf"))
        weights = torch.cat([row, column], dim=-1).softmax(dim=-1)
        row, column = torch.split(weights, [width, height], dim=-1)
        return torch.einsum("nyxj,nyjc->nyxc", row, value) + torch.einsum("nyxi,nixc->nyxc", column, value)


class _Branch(nn.Module):
    """One of the two branches of point-wise attention: reduced features, and affinities of all pairs of positions."""

    def __init__(self, channels: int, width: int, grid: tuple[int, int]):
        super().__init__()
        rows, columns = grid
        self.grid = grid
        self.reduce = nn.Sequential(nn.Conv2d(channels, width, 1), nn.ReLU())
        self.predict = nn.Sequential(
            nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, (2 * rows - 1) * (2 * columns - 1), 1)
        )

    def forward(self, x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Reduced features and affinities of the grid's P cells.

        x: (N, C, H, W)
        offsets: `relative_offsets` of the grid
        returns: features (N, P, width), and affinities (N, P, P) that the cell of the second dimension predicts for the
            cell of the third
        """
        reduced = adaptive_avg_pool2d(self.reduce(x), self.grid)
        over_complete = rearrange(self.predict(reduced), "n k h w -> n (h w) k")
        affinity = over_complete.gather(2, offsets.expand(len(x), -1, -1))
        return rearrange(reduced, "n c h w -> n (h w) c"), affinity


class PointWise(nn.Module):
    """Point-wise spatial attention (Zhao et al. 2018, PSANet): weights predicted from one position's features alone.

    A position predicts a weight for every offset that it could have to another position, (2h - 1)(2w - 1) of them
    (over-complete); the weights of offsets inside the h x w frame are used. One branch predicts how a position collects
    features from the others, the other branch how it distributes its own to them. Both are softmax-normalised per
    receiver, as in the published code.

    Paper gap: the number of offsets is fixed, and the size of frames is not. So the reduced features are pooled to
    `config.grid` (rows, columns), attention is computed there, and O is interpolated back. The original does this for
    one crop size, at half the resolution of its features; the default grid is half that of 480x854 frames at stride 16.

    Widths: C/4 in each branch, as in the original (512 of 2048); both together are scribble attention's C/2. The
    original normalises by batch and appends O to X. Here nothing is normalised and O is added, as in the others.
    `config.scaled` has no effect, because there are no dot products to scale.
    """

    offsets: Tensor

    def __init__(self, channels: int, config: AttentionConfig):
        super().__init__()
        width = channels // 4
        self.grid = config.grid
        self.collect = _Branch(channels, width, config.grid)
        self.distribute = _Branch(channels, width, config.grid)
        self.back = nn.Conv2d(2 * width, channels, 1)
        self.scale = nn.Parameter(torch.full((1,), config.initial_scale))
        self.register_buffer("offsets", relative_offsets(*config.grid), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W), of any H and W."""
        features, affinity = self.collect(x, self.offsets)
        collected = affinity.softmax(dim=2) @ features
        features, affinity = self.distribute(x, self.offsets)
        distributed = affinity.softmax(dim=1).transpose(1, 2) @ features
        context = torch.cat([collected, distributed], dim=-1)
        context = self.back(rearrange(context, "n (h w) c -> n c h w", h=self.grid[0]))
        context = interpolate(context, x.shape[-2:], mode="bilinear", align_corners=False)
        return x + self.scale * context


def relative_offsets(rows: int, columns: int) -> Tensor:
    """Index of the offset from cell i to cell j of a grid in the over-complete map: (P, P), P = rows x columns.

    The map is in row-major order from offset (1 - rows, 1 - columns) to (rows - 1, columns - 1).
    """
    y = torch.arange(rows).repeat_interleave(columns)
    x = torch.arange(columns).repeat(rows)
    down = y[None, :] - y[:, None] + rows - 1
    right = x[None, :] - x[:, None] + columns - 1
    return down * (2 * columns - 1) + right


ATTENTION_VARIANTS = {"non_local": NonLocal, "criss_cross": CrissCross, "point_wise": PointWise}
