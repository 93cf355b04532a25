"""The Gaussian kernel of (13) over all pairs of pixels, without approximation."""

from importlib.util import find_spec

import torch
from torch import Tensor

from ssvos.losses.gaussian_filter import GaussianFilter

_CHUNK, _CHUNK_CUDA = 2**20, 2**26  # affinities that the exact sum holds at a time


class ExactFilter(GaussianFilter):
    """The O(N^2) sum, taken in chunks so that N x N never exists.

    kept: N x N is built once and kept, for a filter that is applied many times on a device with the memory for it.
    """

    def __init__(self, features: Tensor, chunk: int | None = None, kept: bool = False):
        self.features = (features - features.mean(dim=2, keepdim=True)).mT.contiguous()
        self.half_square = 0.5 * self.features.square().sum(dim=2)
        chunk = chunk or (_CHUNK_CUDA if features.is_cuda else _CHUNK)
        self.num_rows = max(1, chunk // self.half_square.numel())
        self.whole = self._affinity(0, features.shape[2]) if kept else None

    def multiply(self, values: Tensor) -> Tensor:
        if self.whole is not None:
            return values @ self.whole
        num_points = values.shape[2]
        result = torch.zeros_like(values)
        for first in range(0, num_points, self.num_rows):
            # every pair once: the rows of this chunk, and the columns from its first on
            last = min(first + self.num_rows, num_points)
            affinity = self._affinity(first, last)
            result[..., first:last] += values[..., first:] @ affinity.mT
            result[..., last:] += values[..., first:last] @ affinity[..., last - first :]
        return result

    def _affinity(self, first: int, last: int) -> Tensor:
        rows, columns = self.features[:, first:last], self.features[:, first:]
        exponent = torch.baddbmm(self.half_square[:, None, first:], rows, columns.mT, beta=-1)
        # exp takes ten times as long where it underflows, and e^-50 is nothing beside the diagonal's 1
        return exponent.sub_(self.half_square[:, first:last, None]).clamp_(min=-50.0).exp_()


def exact_filter(features: Tensor) -> GaussianFilter:
    """The exact sum: in one kernel for float32 on a GPU, where Triton is installed, and in chunks elsewhere."""
    if features.is_cuda and features.dtype == torch.float32 and find_spec("triton"):
        from ssvos.losses.exact_filter_triton import FusedExactFilter  # needs Triton

        return FusedExactFilter(features)
    return ExactFilter(features)
