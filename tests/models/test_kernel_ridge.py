"""Kernel ridge regression against its minimisation problem."""

import pytest
import torch

from ssvos.models.kernel_ridge import GAMMA, OUTSIDE, RIDGE, fit_ridge, ridge_scores


def example(seed: int = 0):
    """Keys (1, 4, 5, 6), shares of strokes, and cells outside; two object cells, five background cells."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.nn.functional.normalize(torch.randn(1, 4, 5, 6, generator=generator, dtype=torch.float64), dim=1)
    shares = torch.zeros(1, 2, 5, 6, dtype=torch.float64)
    shares[0, 1, 2, 2:4] = 1.0
    shares[0, 0, 1, 1:5] = 1.0
    shares[0, :, 3, 3] = 0.5
    outside = torch.zeros(1, 5, 6, dtype=torch.bool)
    outside[0, 0] = True
    return keys, shares, outside


def problem(keys, shares, outside):
    """Points, targets and weights of the one object, from the definition."""
    points, targets, groups = [], [], []
    for y in range(5):
        for x in range(6):
            share = shares[0, :, y, x]
            if share.sum() > 0:
                target = float(share[1] - share[0])
                groups.append("object" if target > 0 else "background")
            elif outside[0, y, x]:
                target = -1.0
                groups.append("outside")
            else:
                continue
            points.append(keys[0, :, y, x])
            targets.append(target)
    totals = {"object": 1.0, "background": 1.0 - OUTSIDE, "outside": OUTSIDE}
    weights = torch.tensor([totals[g] / groups.count(g) * len(groups) for g in groups], dtype=torch.float64)
    return torch.stack(points), torch.tensor(targets, dtype=torch.float64), weights


def test_the_scores_minimise_the_weighted_squares_plus_the_norm():
    keys, shares, outside = example()
    points, targets, weights = problem(keys, shares, outside)
    kernel = torch.exp(-GAMMA * torch.cdist(points, points) ** 2)
    coefficients = torch.zeros(len(points), dtype=torch.float64, requires_grad=True)

    def objective(a):
        return (weights * (kernel @ a - targets) ** 2).sum() + RIDGE * a @ kernel @ a

    ridge = fit_ridge(keys, shares, outside)
    scores = ridge_scores(ridge, keys)
    found = ridge.coefficients[0].clone()
    # the order of the points differs: compare the function's values, and check that the objective has no slope there
    all_keys = keys[0].flatten(1).T
    solved = torch.linalg.solve(kernel + torch.diag(RIDGE / weights), targets)
    expected = torch.exp(-GAMMA * torch.cdist(all_keys, points) ** 2) @ solved
    torch.testing.assert_close(scores.flatten(), expected)
    (slope,) = torch.autograd.grad(objective(coefficients + solved), coefficients)
    assert slope.abs().max() < 1e-9 and len(found) == len(points)


def test_objects_of_a_batch_do_not_influence_each_other():
    keys, shares, outside = example()
    fewer = shares.clone()
    fewer[0, 0, 1, 3:] = 0.0
    both = fit_ridge(keys.repeat(2, 1, 1, 1), torch.cat([shares, fewer]), outside.repeat(2, 1, 1))
    scores = ridge_scores(both, keys.repeat(2, 1, 1, 1))
    for n, own in enumerate((shares, fewer)):
        torch.testing.assert_close(scores[n : n + 1], ridge_scores(fit_ridge(keys, own, outside), keys))


@pytest.mark.parametrize("kept", [0, 1])
def test_strokes_of_one_class_alone_give_finite_scores(kept):
    keys, shares, outside = example()
    shares[:, 1 - kept] = 0.0
    scores = ridge_scores(fit_ridge(keys, shares, outside & (kept == 0)), keys)
    assert torch.isfinite(scores).all() and (scores.mean() > 0) == (kept == 1)


def test_without_any_stroke_the_score_is_0():
    keys, shares, outside = example()
    scores = ridge_scores(fit_ridge(keys, 0 * shares, outside & False), keys)
    assert (scores == 0).all()
