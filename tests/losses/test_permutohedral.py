"""Gaussian filters: the exact one against a double loop, the lattice against it and its own transpose."""

import math

import pytest
import torch

from ssvos.losses.permutohedral import ExactFilter, LatticeFilter


def points(batch: int = 2, num_points: int = 60, dim: int = 5, spread: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(dim + num_points)
    return spread * torch.randn(batch, num_points, dim, generator=generator, dtype=torch.float64)


def values(batch: int = 2, channels: int = 3, num_points: int = 60, seed: int = 9) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, num_points, generator=generator, dtype=torch.float64)


def inner(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum(dim=(1, 2))


@pytest.mark.parametrize("chunk", [7, 1024])
def test_the_exact_filter_equals_a_double_loop(chunk):
    f, x = points(1, 12), values(1, 2, 12)
    expected = torch.zeros_like(x)
    for i in range(12):
        for j in range(12):
            square = sum((a - b) ** 2 for a, b in zip(f[0, i].tolist(), f[0, j].tolist(), strict=True))
            expected[0, :, i] += math.exp(-0.5 * square) * x[0, :, j]
    torch.testing.assert_close(ExactFilter(f, chunk).apply(x), expected)


@pytest.mark.parametrize("dim", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_the_lattice_and_its_transpose_are_adjoint(dim, spread):
    lattice = LatticeFilter(points(dim=dim, spread=spread))
    x, y = values(), values(seed=10)
    forward = inner(lattice.multiply(x, transpose=False), y)
    torch.testing.assert_close(forward, inner(x, lattice.multiply(y, transpose=True)), rtol=1e-10, atol=1e-10)


def test_the_gradient_of_the_lattice_is_its_transpose():
    lattice = LatticeFilter(points(), calibrate=True)
    x, y = values().requires_grad_(), values(seed=10)
    (lattice.apply(x) * y).sum().backward()
    expected = lattice.multiply(y, transpose=True) * lattice.calibration[:, None, None]
    torch.testing.assert_close(x.grad, expected, rtol=1e-10, atol=1e-10)
    assert torch.autograd.gradcheck(lattice.apply, x.detach().clone().requires_grad_())


@pytest.mark.parametrize("calibrate", [False, True])
def test_images_of_a_batch_are_filtered_apart(calibrate):
    f, x = points(3), values(3)
    f[1] = f[0]  # the same points in two images must not meet
    together = LatticeFilter(f, calibrate).apply(x)
    for n in range(3):
        alone = LatticeFilter(f[n : n + 1], calibrate).apply(x[n : n + 1])
        torch.testing.assert_close(together[n : n + 1], alone, rtol=1e-10, atol=1e-10)


def test_the_lattice_is_linear_and_keeps_positive_values_positive():
    lattice = LatticeFilter(points())
    x, y = values(), values(seed=10)
    torch.testing.assert_close(lattice.apply(2 * x - y), 2 * lattice.apply(x) - lattice.apply(y))
    assert (lattice.apply(x.abs()) > 0).all()


def test_calibration_brings_the_sum_of_the_measured_rows_to_the_exact_one():
    f = points(2, 60, spread=2.0)
    ones = torch.ones(2, 1, 60, dtype=torch.float64)
    ours, exact = LatticeFilter(f, calibrate=True).apply(ones), ExactFilter(f).apply(ones)
    torch.testing.assert_close(ours.sum(dim=(1, 2)), exact.sum(dim=(1, 2)), rtol=1e-10, atol=0)


@pytest.mark.parametrize("dim", [1, 2])
def test_on_a_dense_cloud_the_lattice_is_close_to_the_gaussian(dim):
    """In few dimensions and with every vertex present the lattice's only error is its interpolation."""
    side = torch.linspace(-4, 4, 40, dtype=torch.float64)
    f = torch.cartesian_prod(*[side] * dim).reshape(1, -1, dim)
    x = torch.exp(-0.5 * ((f - 0.5) ** 2).sum(dim=2))[:, None]
    ours, exact = LatticeFilter(f, calibrate=True).apply(x), ExactFilter(f).apply(x)
    assert float((ours - exact).norm() / exact.norm()) < 0.05


def test_a_bandwidth_that_does_not_fit_the_keys_is_refused():
    with pytest.raises(ValueError, match="sigma"):
        LatticeFilter(points(spread=1e6))
