"""Gaussian filters: the exact filter against a double loop, the lattice against the exact filter, and symmetry."""

import math
from weakref import ref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ssvos.losses.exact_filter import ExactFilter, exact_filter
from ssvos.losses.permutohedral import LatticeFilter

KINDS = [ExactFilter, LatticeFilter]


def points(batch: int = 2, num_points: int = 60, dim: int = 5, spread: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(dim + num_points)
    return spread * torch.randn(batch, dim, num_points, generator=generator, dtype=torch.float64)


def values(batch: int = 2, channels: int = 3, num_points: int = 60, seed: int = 9) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, num_points, generator=generator, dtype=torch.float64)


def inner(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum(dim=(1, 2))


class Tracked(TorchDispatchMode):
    """Records every new tensor, and counts the bytes of those that are still in memory."""

    def __init__(self):
        super().__init__()
        self.created = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.created += [ref(t.untyped_storage()) for t in (result,) if isinstance(t, torch.Tensor)]
        return result

    def live_bytes(self) -> int:
        return sum({s.data_ptr(): s.nbytes() for r in self.created if (s := r()) is not None}.values())


@pytest.mark.parametrize("chunk", [7, 24, 100, None])
def test_the_exact_filter_equals_a_double_loop(chunk):
    f, x = points(1, 12), values(1, 2, 12)
    expected = torch.zeros_like(x)
    for i in range(12):
        for j in range(12):
            square = sum((a - b) ** 2 for a, b in zip(f[0, :, i].tolist(), f[0, :, j].tolist(), strict=True))
            expected[0, :, i] += math.exp(-0.5 * square) * x[0, :, j]
    torch.testing.assert_close(ExactFilter(f, chunk).multiply(x), expected)


def test_the_exact_filter_is_accurate_in_single_precision_for_features_far_from_zero():
    f, x = points(spread=5.0) + 50.0, values().abs()
    single = ExactFilter(f.float()).multiply(x.float())
    torch.testing.assert_close(single.double(), ExactFilter(f).multiply(x), rtol=1e-4, atol=1e-6)


def test_on_a_cpu_the_exact_filter_works_in_chunks():
    assert type(exact_filter(points().float())) is ExactFilter


@pytest.mark.parametrize("kind", KINDS)
def test_memory_for_the_backward_pass_grows_linearly_with_the_points(kind):
    sizes = []
    for num_points in (400, 1600):
        f, x = points(1, num_points, spread=0.2), values(1, 2, num_points).requires_grad_()
        kernel = kind(f)
        with Tracked() as tracked:
            filtered, _ = kernel.apply(x)
            total = filtered.square().sum()
        sizes.append(tracked.live_bytes())
        total.backward()
    assert sizes[0] > 0 and sizes[1] < 5 * sizes[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [3, 4, 5])
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_a_filter_is_symmetric(kind, dim, spread):
    kernel = kind(points(dim=dim, spread=spread))
    x, y = values(), values(seed=10)
    forward = inner(kernel.multiply(x), y)
    torch.testing.assert_close(forward, inner(x, kernel.multiply(y)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_the_filtered_gradient_and_row_sums_have_none(kind):
    kernel = kind(points(1, 15))
    x, y = values(1, 2, 15).requires_grad_(), values(1, 2, 15, seed=10)
    filtered, row_sums = kernel.apply(x)
    (filtered * y).sum().backward()
    torch.testing.assert_close(x.grad, kernel.multiply(y), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(row_sums, kernel.multiply(torch.ones_like(x[:, :1]).detach()))
    assert not row_sums.requires_grad
    assert torch.autograd.gradcheck(lambda v: kernel.apply(v)[0], x.detach().clone().requires_grad_())


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_a_batch_are_filtered_independently(kind):
    f, x = points(3), values(3)
    f[1] = f[0]  # the same points in two images must not interact
    f[:, :2] -= f[:, :2].amin(dim=(0, 2), keepdim=True)  # the whole batch shares the lattice's grid of positions
    f[:, :2, 0] = 0.0
    together = kind(f).multiply(x)
    for n in range(3):
        alone = kind(f[n : n + 1]).multiply(x[n : n + 1])
        torch.testing.assert_close(together[n : n + 1], alone, rtol=1e-10, atol=1e-10)


def test_the_lattice_is_linear_and_keeps_positive_values_positive():
    lattice = LatticeFilter(points())
    x, y = values(), values(seed=10)
    torch.testing.assert_close(lattice.multiply(2 * x - y), 2 * lattice.multiply(x) - lattice.multiply(y))
    assert (lattice.multiply(x.abs()) > 0).all()


def test_the_lattice_filters_channels_independently():
    lattice, x = LatticeFilter(points()), values()
    for c in range(3):
        torch.testing.assert_close(lattice.multiply(x)[:, c : c + 1], lattice.multiply(x[:, c : c + 1]))


def test_distant_colors_do_not_interact_on_the_lattice():
    f, x = points(1, 60), values(1, 1, 60)
    f[:, 2:, 30:] += 100.0
    x[..., 30:] = 0.0
    filtered = LatticeFilter(f).multiply(x)
    assert (filtered[..., 30:] == 0).all() and (filtered[..., :30] != 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [3, 4])
def test_on_dense_points_the_lattice_is_close_to_the_gaussian_without_calibration(dim, dtype):
    generator = torch.Generator().manual_seed(dim)
    f = 5.0 * torch.rand(1, dim, 4000, generator=generator, dtype=dtype)
    x = torch.exp(-0.5 * ((f - 2.0) ** 2).sum(dim=1))[:, None]
    lattice, exact = LatticeFilter(f).multiply(x), ExactFilter(f).multiply(x)
    assert float((lattice - exact).norm() / exact.norm()) < 0.03
    assert float(lattice.sum() / exact.sum()) == pytest.approx(1.0, abs=0.01)


def test_the_lattice_treats_rising_and_falling_brightness_alike():
    """With simplices that all slant to one side the results differ by 5 %."""
    place = torch.rand(1, 5, 4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ones = torch.ones(1, 1, 4000, dtype=torch.float64)
    masses = []
    for slope in (1.0, -1.0):
        f = 4.0 * place
        f[:, 2:] = slope * (f[:, :1] - 2.0) + 0.5 * place[:, 2:]
        masses.append(float(LatticeFilter(f).multiply(ones).sum() / ExactFilter(f).multiply(ones).sum()))
    assert masses[0] == pytest.approx(masses[1], abs=0.015)


@pytest.mark.parametrize(("row", "key"), [(0, "loss.sigma_xy"), (3, "loss.sigma_rgb")])
def test_bandwidths_that_need_too_large_a_lattice_are_rejected(row, key):
    f = points()
    f[:, row] *= 1e6
    with pytest.raises(ValueError, match=f"^{key}: too small.*raise it, or set loss.filter to exact$"):
        LatticeFilter(f)
