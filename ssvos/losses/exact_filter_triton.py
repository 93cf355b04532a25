"""The exact Gaussian filter as one kernel for GPUs: affinities live in registers alone, as those of flash attention do.

Imported only where its kernel is wanted (`exact_filter`): Triton comes with PyTorch's builds for GPUs, not with others.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ssvos.losses.gaussian_filter import GaussianFilter

# columns that a program goes through: enough programs for a GPU even with one small image, and short sums, which lose
# few digits; the sums of the parts lie in memory, so there are not more than a few
_SHORTEST_PART, _MOST_PARTS = 4096, 16


class FusedExactFilter(GaussianFilter):
    """The O(N^2) sum for float32 features (B, D, N) on a GPU, in memory of O(N).

    Distances are sums of squared differences, in which nothing cancels, and all sums are float32. The result is the
    same in every run, as the lattice's is not. rows: how many a program takes; warps: by how many of 32 threads.
    """

    def __init__(self, features: Tensor, rows: int = 512, warps: int = 4):
        # exp(-d^2 / 2) as 2^-(s d)^2, for which a GPU has an instruction
        self.features = (features * math.sqrt(0.5 / math.log(2.0))).contiguous()
        self.rows, self.warps = rows, warps

    def multiply(self, values: Tensor) -> Tensor:
        batch, channels, num_points = values.shape
        values = values.to(self.features.dtype).contiguous()
        length = max(_SHORTEST_PART, triton.cdiv(num_points, _MOST_PARTS))
        parts = values.new_empty(triton.cdiv(num_points, length), *values.shape)
        grid = triton.cdiv(num_points, self.rows), batch, len(parts)
        with torch.cuda.device_of(values):
            _multiply[grid](
                self.features,
                values,
                parts,
                num_points,
                length,
                self.features.shape[1],
                channels,
                self.rows,
                num_warps=self.warps,
            )
        return parts.sum(dim=0)


@triton.jit
def _multiply(
    features,
    values,
    parts,
    num_points,
    length,
    dim: tl.constexpr,
    channels: tl.constexpr,
    num_rows: tl.constexpr,
):
    """Some rows and `length` columns of an image's K times its values: features (B, D, N), values (B, C, N) -> the sums
    in parts (P, B, C, N). Every thread has rows of its own, and all go through the columns together: threads need not
    add up what they found, and a column is read once for all."""
    image, part = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    features += image * dim * num_points
    values += image * channels * num_points
    parts += (part * tl.num_programs(1) + image) * channels * num_points
    rows = tl.program_id(0) * num_rows + tl.arange(0, num_rows)
    is_row = rows < num_points
    own, sums = (), ()  # Triton knows no * in a tuple
    for d in tl.static_range(dim):
        own = own + (tl.load(features + d * num_points + rows, mask=is_row, other=0.0),)  # noqa: RUF005
    for _ in tl.static_range(channels):
        sums = sums + (tl.zeros((num_rows,), tl.float32),)  # noqa: RUF005
    first = tl.program_id(2) * length
    for column in range(first, tl.minimum(first + length, num_points)):
        square = tl.zeros((num_rows,), tl.float32)
        for d in tl.static_range(dim):
            difference = own[d] - tl.load(features + d * num_points + column)
            square += difference * difference
        affinity = tl.exp2(-square)
        added = ()
        for c in tl.static_range(channels):
            added = added + (sums[c] + affinity * tl.load(values + c * num_points + column),)  # noqa: RUF005
        sums = added
    for c in tl.static_range(channels):
        tl.store(parts + c * num_points + rows, sums[c], mask=is_row)
