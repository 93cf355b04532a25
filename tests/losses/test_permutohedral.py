"""Gaussian filters: the exact one against a double loop, the lattice against it, both against their own transpose."""

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
    """Remembers every tensor that is made, and tells how many bytes of them are still held."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.made += [ref(t.untyped_storage()) for t in (result,) if isinstance(t, torch.Tensor)]
        return result

    def held_bytes(self) -> int:
        return sum({s.data_ptr(): s.nbytes() for r in self.made if (s := r()) is not None}.values())


@pytest.mark.parametrize("chunk", [7, 24, 100, None])
def test_the_exact_filter_equals_a_double_loop(chunk):
    f, x = points(1, 12), values(1, 2, 12)
    expected = torch.zeros_like(x)
    for i in range(12):
        for j in range(12):
            square = sum((a - b) ** 2 for a, b in zip(f[0, :, i].tolist(), f[0, :, j].tolist(), strict=True))
            expected[0, :, i] += math.exp(-0.5 * square) * x[0, :, j]
    torch.testing.assert_close(ExactFilter(f, chunk).multiply(x), expected)


def test_the_exact_filter_is_exact_in_single_precision_for_colours_far_from_black():
    f, x = points(spread=5.0) + 50.0, values().abs()
    single = ExactFilter(f.float()).multiply(x.float())
    torch.testing.assert_close(single.double(), ExactFilter(f).multiply(x), rtol=1e-4, atol=1e-6)


def test_on_a_cpu_the_exact_filter_is_the_one_in_chunks():
    assert type(exact_filter(points().float())) is ExactFilter


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_kept_for_the_backward_pass_grows_with_the_points_and_not_with_their_pairs(kind):
    held = []
    for num_points in (400, 1600):
        f, x = points(1, num_points, spread=0.2), values(1, 2, num_points).requires_grad_()
        kernel = kind(f)
        with Tracked() as tracked:
            filtered, _ = kernel.apply(x)
            total = filtered.square().sum()
        held.append(tracked.held_bytes())
        total.backward()
    assert held[0] > 0 and held[1] < 5 * held[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [3, 4, 5])
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_a_filter_is_its_own_transpose(kind, dim, spread):
    kernel = kind(points(dim=dim, spread=spread))
    x, y = values(), values(seed=10)
    forward = inner(kernel.multiply(x), y)
    torch.testing.assert_close(forward, inner(x, kernel.multiply(y)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_the_transpose_and_row_sums_have_none(kind):
    kernel = kind(points(1, 15))
    x, y = values(1, 2, 15).requires_grad_(), values(1, 2, 15, seed=10)
    filtered, row_sums = kernel.apply(x)
    (filtered * y).sum().backward()
    torch.testing.assert_close(x.grad, kernel.multiply(y), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(row_sums, kernel.multiply(torch.ones_like(x[:, :1]).detach()))
    assert not row_sums.requires_grad
    assert torch.autograd.gradcheck(lambda v: kernel.apply(v)[0], x.detach().clone().requires_grad_())


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_a_batch_are_filtered_apart(kind):
    f, x = points(3), values(3)
    f[1] = f[0]  # the same points in two images must not meet
    f[:, :2] -= f[:, :2].amin(dim=(0, 2), keepdim=True)  # the lattice's grid of positions is one for the whole batch
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


def test_the_lattice_filters_each_channel_for_itself():
    lattice, x = LatticeFilter(points()), values()
    for c in range(3):
        torch.testing.assert_close(lattice.multiply(x)[:, c : c + 1], lattice.multiply(x[:, c : c + 1]))


def test_colours_far_apart_do_not_meet_on_the_lattice():
    f, x = points(1, 60), values(1, 1, 60)
    f[:, 2:, 30:] += 100.0
    x[..., 30:] = 0.0
    filtered = LatticeFilter(f).multiply(x)
    assert (filtered[..., 30:] == 0).all() and (filtered[..., :30] != 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [3, 4])
def test_on_a_dense_cloud_the_lattice_is_close_to_the_gaussian_without_any_calibration(dim, dtype):
    generator = torch.Generator().manual_seed(dim)
    f = 5.0 * torch.rand(1, dim, 4000, generator=generator, dtype=dtype)
    x = torch.exp(-0.5 * ((f - 2.0) ** 2).sum(dim=1))[:, None]
    ours, exact = LatticeFilter(f).multiply(x), ExactFilter(f).multiply(x)
    assert float((ours - exact).norm() / exact.norm()) < 0.03
    assert float(ours.sum() / exact.sum()) == pytest.approx(1.0, abs=0.01)


def test_the_lattice_favours_neither_of_brightness_that_rises_or_falls_across_the_image():
    """Simplices that all slant to one side would: by 5 % here."""
    place = torch.rand(1, 5, 4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ones = torch.ones(1, 1, 4000, dtype=torch.float64)
    masses = []
    for slope in (1.0, -1.0):
        f = 4.0 * place
        f[:, 2:] = slope * (f[:, :1] - 2.0) + 0.5 * place[:, 2:]
        masses.append(float(LatticeFilter(f).multiply(ones).sum() / ExactFilter(f).multiply(ones).sum()))
    assert masses[0] == pytest.approx(masses[1], abs=0.015)


@pytest.mark.parametrize(("row", "key"), [(0, "loss.sigma_xy"), (3, "loss.sigma_rgb")])
def test_bandwidths_for_which_the_lattice_would_not_fit_are_refused(row, key):
    f = points()
    f[:, row] *= 1e6
    with pytest.raises(ValueError, match=f"^{key}: too small.*raise it, or set loss.filter to exact$"):
        LatticeFilter(f)
