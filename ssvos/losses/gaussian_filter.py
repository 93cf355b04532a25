"""A Gaussian kernel matrix that multiplies per-pixel values, for the dense-CRF energy (12)-(16) and mean field."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class GaussianFilter(ABC):
    """K of a batch of images. It is symmetric, also where it is an approximation."""

    @abstractmethod
    def multiply(self, values: Tensor) -> Tensor:
        """K times values, without gradient: (B, C, N) -> (B, C, N)."""

    def apply(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """K times values (B, C, N), with gradient, and K's row sums (B, 1, N)."""
        return _Apply.apply(values, self)


class _Apply(torch.autograd.Function):
    """Keeps nothing for the backward pass but the filter."""

    @staticmethod
    def forward(ctx, values: Tensor, kernel: GaussianFilter) -> tuple[Tensor, Tensor]:
        ctx.kernel = kernel
        product = kernel.multiply(torch.cat([torch.ones_like(values[:, :1]), values], dim=1))
        row_sums, filtered = product[:, :1], product[:, 1:]
        ctx.mark_non_differentiable(row_sums)
        return filtered, row_sums

    @staticmethod
    def backward(ctx, gradient: Tensor, _row_sums: Tensor) -> tuple[Tensor, None]:
        # times the transpose of K, which is K
        return ctx.kernel.multiply(gradient), None
