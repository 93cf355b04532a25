"""Rivals of scribble attention (Table III): non-local, criss-cross and point-wise spatial attention.

Each stands in scribble attention's place and maps features (N, C, H, W) to Z = gamma * O + X, with gamma (`scale`)
starting at 0. None looks at a scribble, so all objects of an image share one output.

Paper gap: Table III names the rivals alone. Where they weigh positions by query and key, these have scribble
attention's widths and its way back to C, so that they differ from it only in which positions they look at.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, scaled_dot_product_attention

from ssvos.config import AttentionConfig
from ssvos.models.attention import QueryKeyValue


class NonLocal(QueryKeyValue):
    """Every position looks at all positions of its own frame (Wang et al. 2018, embedded Gaussian).

    The original's widths are C/2 as well. It begins as the identity too, by zeros in its last layer, not by gamma.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W), without a matrix of HW x HW where PyTorch has a fused kernel."""
        # the fused kernels take a dimension of heads, and there is one head
        cells = rearrange(x, "n c h w -> n 1 (h w) c")
        context = scaled_dot_product_attention(
            self.query(cells), self.key(cells), self.value(cells), scale=self.affinity_scale
        )
        return x + self.scale * rearrange(self.back(context), "n 1 (h w) c -> n c h w", h=x.shape[-2])


class CrissCross(QueryKeyValue):
    """Every position looks at its row and its column, twice with the same weights (Huang et al. 2019, CCNet).

    After the second pass it has seen all positions; time and memory grow with HW (H + W). As in the original, each pass
    has the residual of its own. The published code has C/8 for query and key and C for the value, without a way back;
    its paper asks only for fewer than C. Here they are C/2 and back like scribble attention's: see above.
    """

    num_passes = 2

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        for _ in range(self.num_passes):
            x = self.look_once(x)
        return x

    def look_once(self, x: Tensor) -> Tensor:
        """One pass, (N, C, H, W) -> (N, C, H, W)."""
        context = self.back(self._context(rearrange(x, "n c h w -> n h w c")))
        return x + self.scale * rearrange(context, "n h w c -> n c h w")

    def _context(self, cells: Tensor) -> Tensor:
        """A softmax over the H + W - 1 positions of a cell's row and column: (N, H, W, C) -> (N, H, W, C/2)."""
        height, width = cells.shape[1:3]
        query, key, value = self.query(cells) * self.affinity_scale, self.key(cells), self.value(cells)
        row = torch.einsum("nyxc,nyjc->nyxj", query, key)
        column = torch.einsum("nyxc,nixc->nyxi", query, key)
        # the position itself is in its row already
        itself = torch.eye(height, dtype=torch.bool, device=cells.device)[:, None, :]
        column = column.masked_fill(itself, float("-inf"))
        weights = torch.cat([row, column], dim=-1).softmax(dim=-1)
        row, column = weights.split([width, height], dim=-1)
        return torch.einsum("nyxj,nyjc->nyxc", row, value) + torch.einsum("nyxi,nixc->nyxc", column, value)


class _Branch(nn.Module):
    """One of the two branches of point-wise attention: reduced features, and what each position gives every other."""

    def __init__(self, channels: int, width: int, grid: tuple[int, int]):
        super().__init__()
        rows, columns = grid
        self.grid = grid
        self.reduce = nn.Sequential(nn.Conv2d(channels, width, 1), nn.ReLU())
        self.predict = nn.Sequential(
            nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, (2 * rows - 1) * (2 * columns - 1), 1)
        )

    def forward(self, x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, C, H, W) and `relative_offsets` of the grid's P cells -> (N, P, width), and the affinities
        (N, P, P) that the position of the second dimension predicts for that of the third."""
        reduced = adaptive_avg_pool2d(self.reduce(x), self.grid)
        over_complete = rearrange(self.predict(reduced), "n k h w -> n (h w) k")
        affinity = over_complete.gather(2, offsets.expand(len(x), -1, -1))
        return rearrange(reduced, "n c h w -> n (h w) c"), affinity


class PointWise(nn.Module):
    """Point-wise spatial attention (Zhao et al. 2018, PSANet): weights predicted from one position's features alone.

    A position predicts a weight for every offset it could have to another, (2h - 1)(2w - 1) of them (over-complete),
    and those that fall into the h x w frame count. In one branch it predicts what it collects from the others, in the
    other what it distributes to them; both are softmax-normalised for each receiver, as the published code has it.

    Paper gap: the number of offsets is fixed and frames are not. So the reduced features are pooled to `config.grid`
    (rows, columns), all happens there, and O is interpolated back. The original does this for one size of crop, at half
    its features' resolution; the default grid is half of 480x854's at stride 16.

    Widths: C/4 in each branch, as the original has it (512 of 2048), which together is scribble attention's C/2. It
    normalises by batch and appends O to X; here nothing is normalised, as in the other attentions, and O is added.
    `config.scaled` has no effect: there are no products to scale.
    """

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
    """Where the over-complete map holds the offset from cell i to cell j of a grid: (P, P) indices, P = rows x columns.

    The map is read row by row from offset (1 - rows, 1 - columns) to (rows - 1, columns - 1).
    """
    y = torch.arange(rows).repeat_interleave(columns)
    x = torch.arange(columns).repeat(rows)
    down = y[None, :] - y[:, None] + rows - 1
    right = x[None, :] - x[:, None] + columns - 1
    return down * (2 * columns - 1) + right


ATTENTION_VARIANTS = {"non_local": NonLocal, "criss_cross": CrissCross, "point_wise": PointWise}
