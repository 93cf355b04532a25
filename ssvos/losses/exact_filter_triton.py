"""The exact Gaussian filter as a single GPU kernel that holds affinities only in registers, as flash attention does.

`exact_filter` imports this module only where it uses the kernel: only PyTorch's GPU builds include Triton.
"""

# The kernel is written in Triton's language, which does not allow Python's annotations.
# mypy: disable-error-code="assignment, no-untyped-def, untyped-decorator"

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ssvos.losses.gaussian_filter import GaussianFilter

# Columns are summed in parts, one program each: that gives a GPU enough programs even for one small image, and short
# sums lose few digits. The sums of all parts are in memory, so their number is limited.
_MIN_PART_LENGTH, _MAX_PARTS = 4096, 16


class FusedExactFilter(GaussianFilter):
    """The O(N^2) sum for float32 features (B, D, N) on a GPU, in O(N) memory.

    Distances are sums of squared differences, so no digits cancel, and all sums are float32. Unlike the lattice filter,
    it gives the same result in every run.

    rows: number of rows that a program computes
    warps: number of warps (of 32 threads) that a program runs on
    """

    def __init__(self, features: Tensor, rows: int = 512, warps: int = 4):
        # exp(-d^2 / 2) as 2^-(s d)^2, for which a GPU has an instruction
        self.features = (features * math.sqrt(0.5 / math.log(2.0))).contiguous()
        self.rows, self.warps = rows, warps

    def multiply(self, values: Tensor) -> Tensor:
        batch, channels, num_points = values.shape
        values = values.to(self.features.dtype).contiguous()
        length = max(_MIN_PART_LENGTH, triton.cdiv(num_points, _MAX_PARTS))
        parts = values.new_empty(triton.cdiv(num_points, length), *values.shape)
        grid = triton.cdiv(num_points, self.rows), batch, len(parts)
        with torch.cuda.device(values.get_device()):  # -1, no change of device, in the interpreter on a CPU
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
    """K times values for some rows and the `length` columns of one part.

    features (B, D, N), values (B, C, N) -> parts (P, B, C, N). Each thread has its own rows, and all threads of a
    program go through the columns together. So threads exchange no sums, and a program reads each column once.
    """
    image, part = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    features += image * dim * num_points
    values += image * channels * num_points
    parts += (part * tl.num_programs(1) + image) * channels * num_points
    rows = tl.program_id(0) * num_rows + tl.arange(0, num_rows)
    is_row = rows < num_points
    own, sums = (), ()  # Triton does not support * in a tuple
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
