"""The appearance model against slow loops of Eqs. 3-7."""

import math

import pytest
import torch

from ssvos.config import AppearanceConfig
from ssvos.models.appearance import Appearance, Gaussians

D, H, W = 3, 2, 4


def appearance(**changes) -> Appearance:
    torch.manual_seed(0)
    config = AppearanceConfig(channels=D, **({"pseudo_count": 0.3, "update_rate": 0.1} | changes))
    module = Appearance(5, config).double()
    torch.nn.init.normal_(module.rho, -1.0, 0.3)
    return module


def sample(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and labels of two objects; two cells of the first object are unlabelled."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, D, H, W, generator=generator, dtype=torch.float64)
    foreground = torch.rand(2, 1, H, W, generator=generator, dtype=torch.float64)
    labels = torch.cat([1 - foreground, foreground], dim=1)
    labels[0, :, 0, 1] = labels[0, :, 1, 3] = 0
    return features, labels


def softplus(v: float) -> float:
    return math.log1p(math.exp(v))


def slow_gaussian(x, weights, rho, epsilon: float) -> tuple[list[float], list[float]]:
    """Eqs. 3 and 4 for one component: x is a list of D-vectors, weights a list of numbers."""
    total = epsilon + sum(weights)
    mean = [sum(w * p[d] for w, p in zip(weights, x, strict=True)) / total for d in range(D)]
    variance = [
        softplus(rho[d]) + sum(w * (p[d] - mean[d]) ** 2 for w, p in zip(weights, x, strict=True)) / total
        for d in range(D)
    ]
    return mean, variance


def slow_scores(x, gaussians) -> list[list[float]]:
    return [
        [
            -0.5 * sum(math.log(v) + (value - m) ** 2 / v for value, m, v in zip(p, mean, variance, strict=True))
            for mean, variance in gaussians
        ]
        for p in x
    ]


def slow_residual(x, y, base) -> tuple[list[float], list[float]]:
    """relu((y_bg + y_fg) p - y) for both classes: missed foreground, missed background."""
    missed = ([], [])
    for (b, f), label in zip(slow_scores(x, base), y, strict=True):
        p = 1 / (1 + math.exp(f - b))
        for k, posterior in enumerate((p, 1 - p)):
            missed[k].append(max(0.0, sum(label) * posterior - label[k]))
    return missed


def slow_fit(x, y, rho, epsilon: float, old=None, rate: float = 1.0):
    """Four pairs (mean, variance); with `old`, the old pairs moved towards the new ones by the rate (Eqs. 5, 6)."""

    def move(k, new):
        if old is None:
            return new
        return tuple(
            [(1 - rate) * a + rate * b for a, b in zip(old[k][part], new[part], strict=True)] for part in (0, 1)
        )

    base = [move(k, slow_gaussian(x, [label[k] for label in y], rho[k], epsilon)) for k in (0, 1)]
    missed = slow_residual(x, y, base)
    return base + [move(2 + k, slow_gaussian(x, missed[k], rho[2 + k], epsilon)) for k in (0, 1)]


def columns(maps: torch.Tensor) -> list[list[float]]:
    return maps.flatten(1).T.tolist()


def as_lists(gaussians: Gaussians, n: int) -> list[tuple[list[float], list[float]]]:
    return [(gaussians.mean[n, k].tolist(), gaussians.variance[n, k].tolist()) for k in range(4)]


def assert_same(gaussians: Gaussians, n: int, expected) -> None:
    for part, k in ((gaussians.mean, 0), (gaussians.variance, 1)):
        torch.testing.assert_close(part[n].detach(), torch.tensor([e[k] for e in expected], dtype=part.dtype))


def test_fitting_equals_slow_loops_of_equations_3_and_4():
    module, (features, labels) = appearance(), sample()
    fitted = module.fit(features, labels)
    for n in range(2):
        expected = slow_fit(columns(features[n]), columns(labels[n]), module.rho.tolist(), 0.3)
        assert_same(fitted, n, expected)


def test_updating_equals_slow_loops_of_equations_5_and_6():
    module, (features, labels) = appearance(), sample()
    later, predicted = sample(seed=5)
    fitted = module.fit(features, labels)
    moved = module.update(fitted, later, predicted)
    for n in range(2):
        old = as_lists(fitted, n)
        expected = slow_fit(columns(later[n]), columns(predicted[n]), module.rho.tolist(), 0.3, old, 0.1)
        assert_same(moved, n, expected)


@pytest.mark.parametrize(("rate", "keeps_old"), [(0.0, True), (1.0, False)])
def test_update_rate_0_keeps_the_gaussians_and_update_rate_1_fits_them_again(rate, keeps_old):
    module, (features, labels) = appearance(update_rate=rate), sample()
    later, predicted = sample(seed=5)
    old, new = module.fit(features, labels), module.fit(later, predicted)
    for part, expected in zip(module.update(old, later, predicted), old if keeps_old else new, strict=True):
        torch.testing.assert_close(part, expected)


def test_log_scores_equal_a_slow_loop_and_the_other_outputs_are_derived_from_them():
    features, labels = sample()
    module = appearance(output="log_scores")
    gaussians = module.fit(features, labels)
    scores = module.score(features, gaussians)
    for n in range(2):
        expected = slow_scores(columns(features[n]), as_lists(gaussians, n))
        torch.testing.assert_close(scores[n].detach().flatten(1).T, torch.tensor(expected, dtype=scores.dtype))
    torch.testing.assert_close(appearance(output="mean_log_scores").score(features, gaussians), scores / D)
    expected = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
    torch.testing.assert_close(appearance(output="posteriors").score(features, gaussians), expected)
    log_posteriors = appearance(output="log_posteriors").score(features, gaussians)
    torch.testing.assert_close(log_posteriors, expected.log() / math.sqrt(D))


def test_unlabelled_cells_have_no_weight_in_any_component():
    module, (features, labels) = appearance(), sample()
    changed = features.clone()
    changed[0, :, 0, 1] = 40.0
    changed[0, :, 1, 3] = -40.0
    for part, expected in zip(module.fit(changed, labels), module.fit(features, labels), strict=True):
        torch.testing.assert_close(part, expected)


def test_a_frame_without_labels_gives_finite_gaussians_scores_and_gradients():
    module, (features, labels) = appearance(), sample()
    features.requires_grad_()
    gaussians = module.fit(features, torch.zeros_like(labels))
    assert not gaussians.mean.any()
    expected = torch.nn.functional.softplus(module.rho).expand(2, -1, -1)
    torch.testing.assert_close(gaussians.variance, expected)
    module.score(features, gaussians).sum().backward()
    assert torch.isfinite(features.grad).all() and torch.isfinite(module.rho.grad).all()


def test_a_larger_pseudo_count_moves_the_mean_towards_zero():
    features, labels = sample()
    small, large = (appearance(pseudo_count=e).fit(features, labels).mean[:, :2] for e in (0.01, 100.0))
    assert (large.abs() < small.abs()).all()


def test_the_residual_pair_models_the_cells_that_the_base_pair_gets_wrong():
    """The foreground has two distant colors, one of them that of the background: a single Gaussian misses that part."""
    module = appearance(pseudo_count=0.01)
    colors = torch.tensor([0.0, 0.1, -0.1, 0.0, 6.0, 6.1, 5.9, 0.05], dtype=torch.float64)
    foreground = torch.tensor(
        [0.0, 0, 0, 0, 1, 1, 1, 1], dtype=torch.float64
    )  # the last one has the background's color
    features = colors.expand(1, D, -1).reshape(1, D, H, W)
    labels = torch.stack([1 - foreground, foreground]).reshape(1, 2, H, W)
    missed_foreground = module.fit(features, labels).mean[0, 2]
    assert (missed_foreground.abs() < 0.2).all()


def test_gradients_of_fit_update_and_score_equal_finite_differences():
    module = appearance()
    features, labels = sample()
    later, predicted = sample(seed=5)

    def chain(x, y, z):
        gaussians = module.update(module.fit(x, labels), y, z)
        return module.score(y, gaussians)

    # only the second object: in unlabelled cells the residual is 0, where relu has no derivative
    inputs = [t[1:].clone().requires_grad_() for t in (features, later, predicted)]
    labels = labels[1:]
    assert torch.autograd.gradcheck(chain, inputs)
