"""Interface of a Gaussian kernel matrix K, for the dense-CRF energy (12)-(16) and for mean field."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor


class GaussianFilter(ABC):
    """Multiplies per-pixel values by K for a batch of images. K is symmetric, also if it is an approximation."""

    @abstractmethod
    def multiply(self, values: Tensor) -> Tensor:
        """K times values, without gradient: (B, C, N) -> (B, C, N)."""

    def apply(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """K times values (B, C, N), with gradient, and the row sums of K (B, 1, N), without gradient."""
        filtered, row_sums = _Apply.apply(values, self)  # type: ignore[no-untyped-call]  # torch does not annotate it
        return filtered, row_sums


class _Apply(torch.autograd.Function):
    """Stores only the filter for the backward pass, no intermediate result."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, kernel: GaussianFilter) -> tuple[Tensor, Tensor]:
        ctx.kernel = kernel
        product = kernel.multiply(torch.cat([torch.ones_like(values[:, :1]), values], dim=1))
        row_sums, filtered = product[:, :1], product[:, 1:]
        ctx.mark_non_differentiable(row_sums)
        return filtered, row_sums

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _row_sums: Tensor) -> tuple[Tensor, None]:
        # the gradient is multiplied by the transpose of K, which equals K
        return ctx.kernel.multiply(gradient), None
