"""Eqs. 11 to 19 against plain Python loops over pixels and pairs of pixels, on random clips."""

import math

import pytest
import torch

from ssvos.config import LossConfig
from ssvos.losses.dense_crf import crf_energy, crf_features, regularizer
from ssvos.losses.exact_filter import ExactFilter
from ssvos.losses.joint import joint_loss
from ssvos.losses.partial_cross_entropy import partial_cross_entropy
from ssvos.models.state import ClipPrediction

HEIGHT, WIDTH = 4, 5
PIXELS = [(y, x) for y in range(HEIGHT) for x in range(WIDTH)]
SIGMA_XY, SIGMA_RGB = 3.0, 90.0
LOSS = LossConfig(
    weight=0.7, beta=0.6, sigma_xy=SIGMA_XY, sigma_rgb=SIGMA_RGB, scale=1.0, filter="exact", balance="class"
)


def random_clips(batch: int = 2, length: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, frames and strokes of clips; some frames have no label, some only one class."""
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(batch, length, 2, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)
    frames = torch.rand(batch, length, 3, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)
    drawn = torch.rand(batch, length, HEIGHT, WIDTH, generator=generator)
    target = torch.full(drawn.shape, 255, dtype=torch.uint8)
    target[drawn < 0.4], target[drawn < 0.15] = 0, 1
    if length > 1:
        target[0, 1] = 255
        target[-1, -1][target[-1, -1] == 0] = 255
    return logits, frames, target


def softmax_of(logits: torch.Tensor) -> list[list[float]]:
    """(C, H, W) -> the probabilities of every pixel, in the order of PIXELS."""
    probs = []
    for y, x in PIXELS:
        powers = [math.exp(v) for v in logits[:, y, x].tolist()]
        probs.append([p / sum(powers) for p in powers])
    return probs


def slow_cross_entropy(logits: torch.Tensor, target: torch.Tensor, balance: str) -> float:
    """Eq. 11 of one frame over the strokes of both classes: their mean, or the mean of the two class means."""
    costs = {0: [], 1: []}
    for probs, (y, x) in zip(softmax_of(logits), PIXELS, strict=True):
        label = int(target[y, x])
        if label != 255:
            costs[label].append(-math.log(probs[label]))
    groups = [costs[0], costs[1]] if balance == "class" else [costs[0] + costs[1]]
    means = [sum(group) / len(group) for group in groups if group]
    return sum(means) / len(means) if means else 0.0


def affinities(frame: torch.Tensor) -> list[list[float]]:
    """Eq. 13 without its factor 1/N, of all pairs of pixels: frame (3, H, W) in [0, 1]."""
    colors = [(255 * frame[:, y, x]).tolist() for y, x in PIXELS]

    def g(i: int, j: int) -> float:
        place = sum((a - b) ** 2 for a, b in zip(PIXELS[i], PIXELS[j], strict=True))
        color = sum((a - b) ** 2 for a, b in zip(colors[i], colors[j], strict=True))
        return math.exp(-place / (2 * SIGMA_XY**2) - color / (2 * SIGMA_RGB**2))

    return [[g(i, j) for j in range(len(PIXELS))] for i in range(len(PIXELS))]


def slow_region_weight(foreground: float, beta: float) -> float:
    """Eq. 18: above 0.3 is reliable foreground, below 0.05 reliable background."""
    return 1.0 if foreground > 0.3 or foreground < 0.05 else 1.0 + beta


def slow_energy(probs: list[list[float]], g: list[list[float]], w: list[float], normalization: str) -> float:
    """Eqs. 15 and 17 of one frame: each pixel's probabilities, affinities (13) and weights (18)."""
    n = len(PIXELS)
    total = 0.0
    for i in range(n):
        differ = [sum(a * (1 - b) for a, b in zip(probs[i], probs[j], strict=True)) for j in range(n)]
        if normalization == "row":
            total += w[i] * sum(a * b for a, b in zip(g[i], differ, strict=True)) / sum(g[i]) / n
        else:
            total += w[i] * sum(g[i][j] * differ[j] for j in range(n) if j != i)
    return total / n if normalization == "pixel" else total


@pytest.mark.parametrize("balance", ["pixel", "class"])
@pytest.mark.parametrize("seed", range(3))
def test_partial_cross_entropy_equals_a_slow_loop_of_equation_11(balance, seed):
    logits, _, target = random_clips(seed=seed)
    logits, target = logits.flatten(0, 1), target.flatten(0, 1)
    each = [slow_cross_entropy(x, t, balance) for x, t in zip(logits, target, strict=True)]
    assert 0.0 in each
    assert float(partial_cross_entropy(logits, target, balance)) == pytest.approx(sum(each) / len(each), rel=1e-12)


def test_the_sum_over_unequal_labels_in_equation_12_equals_equation_15():
    """Sum over c_a != c_b of g P_ca(i) P_cb(j) = g sum_c P_c(i) (1 - P_c(j)) where P sums to one; three classes."""
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(3, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)
    frame = torch.rand(3, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)
    probs, g, n = softmax_of(logits), affinities(frame), len(PIXELS)
    expected = sum(
        g[i][j] * probs[i][a] * probs[j][b]
        for i in range(n)
        for j in range(n)
        for a in range(3)
        for b in range(3)
        if i != j and a != b
    )
    kernel = ExactFilter(crf_features(frame[None], SIGMA_XY, SIGMA_RGB))
    ones = torch.ones(1, n, dtype=torch.float64)
    energy = crf_energy(logits.softmax(dim=0).flatten(1)[None], ones, kernel, "none")
    assert float(energy) == pytest.approx(expected, rel=1e-12)


def test_the_energy_of_a_hard_mask_equals_the_potts_model_of_equation_14():
    generator = torch.Generator().manual_seed(5)
    frame = torch.rand(3, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)
    labels = (torch.rand(len(PIXELS), generator=generator) < 0.4).long()
    g, n = affinities(frame), len(PIXELS)
    expected = sum(g[i][j] for i in range(n) for j in range(n) if labels[i] != labels[j])
    probs = torch.nn.functional.one_hot(labels, 2).T.double()[None]
    kernel = ExactFilter(crf_features(frame[None], SIGMA_XY, SIGMA_RGB))
    energy = crf_energy(probs, torch.ones(1, n, dtype=torch.float64), kernel, "none")
    assert float(energy) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("normalization", ["none", "pixel", "row"])
@pytest.mark.parametrize("balance", ["pixel", "class"])
def test_the_joint_loss_of_clips_equals_slow_loops_of_equations_11_to_19(normalization, balance):
    logits, frames, target = random_clips()
    config = LOSS.model_copy(update={"normalization": normalization, "balance": balance})
    terms = joint_loss(ClipPrediction(logits, torch.zeros(2, 3, 2, 1, 1)), frames, target, config, 0.0)
    cross_entropy = energy = 0.0
    for b in range(2):
        for t in range(3):
            cross_entropy += slow_cross_entropy(logits[b, t], target[b, t], balance) / 6
            probs = softmax_of(logits[b, t])
            w = [slow_region_weight(foreground, config.beta) for _, foreground in probs]
            energy += slow_energy(probs, affinities(frames[b, t]), w, normalization) / 6
    # the loss is computed in single precision
    assert float(terms.partial_cross_entropy) == pytest.approx(cross_entropy, rel=1e-5)
    assert float(terms.regularizer) == pytest.approx(energy, rel=1e-5)
    assert float(terms.total) == pytest.approx(cross_entropy + 0.7 * energy, rel=1e-5)


def test_the_random_clips_have_pixels_in_all_three_regions_of_equation_18():
    foreground = [p[1] for frame in random_clips()[0].flatten(0, 1) for p in softmax_of(frame)]
    assert min(foreground) < 0.04 and max(foreground) > 0.5 and any(0.06 < p < 0.29 for p in foreground)


@pytest.mark.parametrize("normalization", ["none", "row"])
def test_the_gradient_of_the_joint_loss_equals_finite_differences_of_slow_loops_with_constant_weights(normalization):
    logits, frames, target = random_clips(batch=1, length=1, seed=6)
    config = LOSS.model_copy(update={"normalization": normalization})
    x = logits.clone().requires_grad_()
    joint_loss(ClipPrediction(x, torch.zeros(1, 1, 2, 1, 1)), frames, target, config, 0.0).total.backward()
    g, weights = affinities(frames[0, 0]), [slow_region_weight(p[1], config.beta) for p in softmax_of(logits[0, 0])]
    assert len(set(weights)) == 2

    def value(changed: torch.Tensor) -> float:
        energy = slow_energy(softmax_of(changed), g, weights, normalization)
        return slow_cross_entropy(changed, target[0, 0], config.balance) + config.weight * energy

    slopes, step = torch.zeros_like(logits[0, 0]), 1e-5
    for place in ((c, y, z) for c in range(2) for y, z in PIXELS):
        up, down = logits[0, 0].clone(), logits[0, 0].clone()
        up[place] += step
        down[place] -= step
        slopes[place] = (value(up) - value(down)) / (2 * step)
    torch.testing.assert_close(x.grad[0, 0], slopes, rtol=1e-3, atol=1e-5 * float(slopes.abs().max()))


@pytest.mark.parametrize("normalization", ["none", "pixel", "row"])
@pytest.mark.parametrize("kind", ["exact", "lattice"])
def test_the_gradient_of_the_energy_through_the_softmax_equals_finite_differences(kind, normalization):
    """Also if the rows are divided by their sums, after which the affinities are not symmetric."""
    logits, frames, _ = random_clips(batch=1, length=2, seed=7)
    config = LOSS.model_copy(update={"filter": kind, "normalization": normalization})
    x = logits[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda z: regularizer(z.softmax(dim=1), frames[0], config), x)
