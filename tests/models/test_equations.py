"""Eqs. 1, 2 and 7 with full normal densities, the labels of Eqs. 3 and 8 at stride 16, and the predictions that update
the state of Eqs. 5 and 6."""

import math

import pytest
import torch
from conftest import make_network
from scipy.stats import multivariate_normal

from ssvos.config import AppearanceConfig
from ssvos.models.appearance import NUM_COMPONENTS, Appearance, Gaussians, log_scores
from ssvos.models.grid import cell_shares, cells_with_stroke

OBJECTS, CHANNELS, HEIGHT, WIDTH = 2, 5, 3, 4
PRIOR = 1 / NUM_COMPONENTS


def random_case(seed: int = 0) -> tuple[torch.Tensor, Gaussians]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(OBJECTS, CHANNELS, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)
    mean = torch.randn(OBJECTS, NUM_COMPONENTS, CHANNELS, generator=generator, dtype=torch.float64)
    variance = 0.2 + 2 * torch.rand(OBJECTS, NUM_COMPONENTS, CHANNELS, generator=generator, dtype=torch.float64)
    return features, Gaussians(mean, variance)


def densities(features: torch.Tensor, gaussians: Gaussians) -> torch.Tensor:
    """Eq. 2, one position and component at a time: N(x | mean, diag(variance)), (N, 4, h, w)."""
    density = torch.empty(OBJECTS, NUM_COMPONENTS, HEIGHT, WIDTH, dtype=torch.float64)
    for n in range(OBJECTS):
        for k in range(NUM_COMPONENTS):
            normal = multivariate_normal(gaussians.mean[n, k].numpy(), torch.diag(gaussians.variance[n, k]).numpy())
            for y in range(HEIGHT):
                for x in range(WIDTH):
                    density[n, k, y, x] = normal.pdf(features[n, :, y, x].numpy())
    return density


def scored(output: str, features: torch.Tensor, gaussians: Gaussians) -> torch.Tensor:
    config = AppearanceConfig(channels=CHANNELS, output=output)
    return Appearance(CHANNELS, config).double().score(features, gaussians)


def test_scores_are_the_logarithms_of_the_normal_densities_of_equation_2():
    features, gaussians = random_case()
    constant = 0.5 * CHANNELS * math.log(2 * math.pi)  # the same for every component
    expected = densities(features, gaussians).log() + constant
    torch.testing.assert_close(scored("log_scores", features, gaussians), expected)


def test_the_mixture_of_equation_1_is_the_mean_of_the_densities():
    features, gaussians = random_case()
    scores = log_scores(features, gaussians) - 0.5 * CHANNELS * math.log(2 * math.pi)
    mixture = sum(PRIOR * densities(features, gaussians)[:, k] for k in range(NUM_COMPONENTS))
    torch.testing.assert_close(PRIOR * scores.exp().sum(dim=1), mixture)


def test_posteriors_are_bayes_rule_of_equation_7_with_a_uniform_prior():
    features, gaussians = random_case()
    joint = PRIOR * densities(features, gaussians)
    expected = torch.stack([joint[:, k] / sum(joint[:, j] for j in range(NUM_COMPONENTS)) for k in range(4)], dim=1)
    torch.testing.assert_close(scored("posteriors", features, gaussians), expected)
    torch.testing.assert_close(
        scored("log_posteriors", features, gaussians), expected.log() / math.sqrt(CHANNELS), atol=1e-9, rtol=1e-9
    )


@pytest.mark.parametrize("density", [0.002, 0.01, 0.3])
def test_labels_at_stride_16_equal_a_slow_count_of_every_cells_pixels(density):
    """With foreground strokes of single pixels, which sampling one pixel per cell would miss, and background."""
    drawn = torch.rand(3, 64, 80, generator=torch.Generator().manual_seed(2))
    scribble = torch.full(drawn.shape, 255, dtype=torch.uint8)
    scribble[drawn < density], scribble[drawn > 1 - density] = 1, 0
    shares, has_stroke = cell_shares(scribble), cells_with_stroke(scribble)
    for n in range(3):
        for row in range(4):
            for column in range(5):
                cell = scribble[n, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16].flatten().tolist()
                labelled = cell.count(0) + cell.count(1)
                expected = [cell.count(label) / labelled if labelled else 0.0 for label in (0, 1)]
                assert shares[n, :, row, column].tolist() == pytest.approx(expected)
                assert bool(has_stroke[n, row, column]) == (1 in cell)


def cell_means(probs: torch.Tensor, cell: int = 16) -> torch.Tensor:
    """Means of (N, 2, H, W) over the cells of 16 x 16 pixels."""
    rows = [
        torch.stack([patch.mean(dim=(2, 3)) for patch in row.split(cell, dim=3)], dim=2)
        for row in probs.split(cell, dim=2)
    ]
    return torch.stack(rows, dim=2)


@pytest.mark.parametrize("kind", ["coarse", "fine"])
def test_the_networks_own_prediction_updates_the_state_on_every_frame(kind, monkeypatch):
    """Also on the first frame, where the labels of its scribble must not replace the prediction."""
    network, recorded = make_network(state=kind), []
    update = network.appearance.update

    def record(gaussians, features, labels):
        recorded.append(labels)
        return update(gaussians, features, labels)

    monkeypatch.setattr(network.appearance, "update", record)
    frames = torch.rand(1, 3, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    scribble = torch.full((1, 48, 64), 255, dtype=torch.uint8)
    scribble[:, 4:6, 3:40], scribble[:, -6:-4] = 1, 0
    with torch.no_grad():
        state = network.begin(network.encode(frames[:, 0]), scribble)
        for t in range(3):
            fine, coarse, state = network.step(network.encode(frames[:, t]), state)
            predicted = coarse.softmax(dim=1) if kind == "coarse" else cell_means(fine.softmax(dim=1))
            torch.testing.assert_close(recorded[t], predicted)
            torch.testing.assert_close(state.mask, predicted)
        prediction = network(frames, scribble)
    for t, labels in enumerate(recorded[3:]):
        if kind == "coarse":
            predicted = prediction.coarse_logits[:, t].softmax(dim=1)
        else:
            predicted = cell_means(prediction.logits[:, t].softmax(dim=1))
        torch.testing.assert_close(labels, predicted)
    assert len(recorded) == 6
