"""The Gaussian kernel of (13) over all pairs of pixels, without approximation."""

from importlib.util import find_spec

import torch
from torch import Tensor

from ssvos.losses.gaussian_filter import GaussianFilter

_CHUNK, _CHUNK_CUDA = 2**20, 2**26  # affinities in memory at a time


class ExactFilter(GaussianFilter):
    """The O(N^2) sum, computed in chunks of rows so that the N x N matrix never exists in memory.

    features: (B, D, N)
    chunk: number of affinities in memory at a time; None: a default for the device
    store_matrix: compute the N x N matrix once and store it, for a filter that is applied many times on a device with
        the memory for it
    """

    def __init__(self, features: Tensor, chunk: int | None = None, store_matrix: bool = False):
        self.features = (features - features.mean(dim=2, keepdim=True)).mT.contiguous()
        self.half_square = 0.5 * self.features.square().sum(dim=2)
        chunk = chunk or (_CHUNK_CUDA if features.is_cuda else _CHUNK)
        self.num_rows = max(1, chunk // self.half_square.numel())
        self.matrix = self._affinity(0, features.shape[2]) if store_matrix else None

    def multiply(self, values: Tensor) -> Tensor:
        if self.matrix is not None:
            return values @ self.matrix
        num_points = values.shape[2]
        result = torch.zeros_like(values)
        for first in range(0, num_points, self.num_rows):
            # symmetry: each chunk computes only the columns from its first row on and uses them in both directions
            last = min(first + self.num_rows, num_points)
            affinity = self._affinity(first, last)
            result[..., first:last] += values[..., first:] @ affinity.mT
            result[..., last:] += values[..., first:last] @ affinity[..., last - first :]
        return result

    def _affinity(self, first: int, last: int) -> Tensor:
        """Rows first..last and columns first..N of the kernel matrix, (B, last - first, N - first)."""
        rows, columns = self.features[:, first:last], self.features[:, first:]
        exponent = torch.baddbmm(self.half_square[:, None, first:], rows, columns.mT, beta=-1)
        # exp takes ten times as long where it underflows, and e^-50 is negligible next to the diagonal's 1
        return exponent.sub_(self.half_square[:, first:last, None]).clamp_(min=-50.0).exp_()


def exact_filter(features: Tensor) -> GaussianFilter:
    """The exact filter: a single Triton kernel for float32 on a GPU if Triton is installed, otherwise in chunks."""
    if features.is_cuda and features.dtype == torch.float32 and find_spec("triton"):
        from ssvos.losses.exact_filter_triton import FusedExactFilter  # needs Triton

        return FusedExactFilter(features)
    return ExactFilter(features)
