"""The proximal loss: cross-entropy to the network's own mask after mean-field inference of the dense CRF."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from ssvos.config import ProximalConfig
from ssvos.losses.dense_crf import crf_energy, crf_features
from ssvos.losses.exact_filter import ExactFilter
from ssvos.losses.mean_field import mean_field
from ssvos.losses.proximal import proximal_loss

WHOLE = ProximalConfig(weight=1.0, scale=1.0)


def two_halves(height: int = 12, width: int = 16) -> torch.Tensor:
    """A frame with a dark left half and a bright right half, (1, 3, H, W)."""
    generator = torch.Generator().manual_seed(0)
    frame = torch.full((1, 3, height, width), 0.2)
    frame[..., width // 2 :] = 0.8
    return frame + 0.01 * torch.rand(frame.shape, generator=generator)


def unlabelled(frame: torch.Tensor) -> torch.Tensor:
    return torch.full((len(frame), *frame.shape[-2:]), 255, dtype=torch.uint8)


def noisy_logits(frame: torch.Tensor, strength: float = 1.0) -> torch.Tensor:
    """Logits of an object on the right, with noise that is often stronger; float64."""
    generator = torch.Generator().manual_seed(1)
    odds = strength * torch.sign(frame[:, 0] - 0.5) + 1.5 * torch.randn(frame[:, 0].shape, generator=generator)
    return torch.stack([-odds / 2, odds / 2], dim=1).double()


def test_mean_field_equals_a_slow_loop_of_its_equation():
    frame = two_halves(5, 7)
    features = crf_features(frame, 3.0, 20.0).double()
    log_probs = noisy_logits(frame).log_softmax(dim=1).flatten(2)
    f, unary = features[0].T.numpy(), log_probs[0].numpy()
    num = len(f)
    affinity = np.array([[np.exp(-0.5 * ((f[i] - f[j]) ** 2).sum()) for j in range(num)] for i in range(num)])
    q = np.exp(unary)
    for _ in range(3):
        updated = np.zeros_like(q)
        for i in range(num):
            message = [sum(affinity[i, j] * q[c, j] for j in range(num)) / affinity[i].sum() for c in range(2)]
            scores = np.exp(unary[:, i] + 4.0 * np.array(message))
            updated[:, i] = scores / scores.sum()
        q = updated
    probs = mean_field(log_probs, ExactFilter(features), 4.0, 3)[0].numpy()
    np.testing.assert_allclose(probs, q, atol=1e-12)


def test_mean_field_lowers_the_energy_and_finds_the_halves():
    frame = two_halves()
    kernel, logits = ExactFilter(crf_features(frame, 4.0, 20.0).double()), noisy_logits(frame)
    log_probs = logits.log_softmax(dim=1).flatten(2)
    probs = mean_field(log_probs, kernel, 6.0, 5)
    ones = torch.ones(1, log_probs.shape[2], dtype=torch.float64)
    before, after = (crf_energy(p, ones, kernel, "row") for p in (log_probs.exp(), probs))
    assert after < 0.3 * before
    truth = (frame[:, 0] > 0.5).flatten(1)
    agreement = [float(((p[:, 1] > 0.5) == truth).double().mean()) for p in (log_probs.exp(), probs)]
    assert agreement[0] < 0.85 and agreement[1] > 0.98


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_mask_is_a_constant_for_the_gradient(scale):
    """The gradient of the cross-entropy is (softmax - mask) / number of pixels, at the size of the loss."""
    frame = two_halves()
    logits = noisy_logits(frame).requires_grad_()
    config = WHOLE.model_copy(update={"scale": scale})
    (gradient,) = torch.autograd.grad(proximal_loss(logits, frame, unlabelled(frame), config), logits)
    size = [round(side * scale) for side in frame.shape[-2:]]
    small = interpolate(logits, size=size, mode="bilinear", align_corners=False, antialias=True)
    features = crf_features(
        interpolate(frame, size=size, mode="area").double(), config.sigma_xy * size[0], config.sigma_rgb
    )
    from ssvos.losses.permutohedral import LatticeFilter

    log_probs = small.detach().log_softmax(dim=1).flatten(2)
    mask = mean_field(log_probs, LatticeFilter(features), config.pull, config.iterations)
    direct = ((log_probs.exp() - mask) / log_probs.shape[2]).view_as(small)
    (expected,) = torch.autograd.grad(small, logits, direct)
    torch.testing.assert_close(gradient, expected, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_exact_filter_gives_nearly_the_same_loss(scale):
    frame = two_halves(24, 32)
    logits, config = noisy_logits(frame), WHOLE.model_copy(update={"scale": scale})
    exact = config.model_copy(update={"filter": "exact"})
    lattice, expected = (proximal_loss(logits, frame, unlabelled(frame), one) for one in (config, exact))
    assert lattice == pytest.approx(float(expected), rel=0.02) and lattice != expected


def test_the_exact_filter_with_a_stored_matrix_equals_chunks():
    features = crf_features(two_halves(), 4.0, 20.0).double()
    values = torch.rand(1, 3, 12 * 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    stored, chunks = ExactFilter(features, store_matrix=True), ExactFilter(features, chunk=1000)
    torch.testing.assert_close(stored.multiply(values), chunks.multiply(values), atol=1e-12, rtol=1e-12)


def test_gradient_descent_finds_the_halves():
    frame = two_halves()
    logits = noisy_logits(frame).requires_grad_()
    optimizer = torch.optim.SGD([logits], lr=100.0)
    for _ in range(50):
        optimizer.zero_grad()
        proximal_loss(logits, frame, unlabelled(frame), WHOLE).backward()
        optimizer.step()
    foreground = logits.detach().softmax(dim=1)[:, 1]
    assert ((foreground > 0.5) == (frame[:, 0] > 0.5)).double().mean() > 0.98


@pytest.mark.parametrize(("scale", "label"), [(1.0, 0), (1.0, 1), (0.5, 0), (0.5, 1)])
def test_a_stroke_keeps_its_label_against_its_surroundings(scale, label):
    """A stroke of one pixel in a mask of the other class: the loss moves its logits towards its own label."""
    frame = two_halves()
    surroundings = 1 - label
    odds = torch.full((1, 12, 16), 4.0 if surroundings else -4.0, dtype=torch.float64)
    logits = torch.stack([-odds / 2, odds / 2], dim=1).requires_grad_()
    config, target = WHOLE.model_copy(update={"scale": scale}), unlabelled(frame)
    target[0, 6, 9] = label
    (gradient,) = torch.autograd.grad(proximal_loss(logits, frame, target, config), logits)
    slope = gradient[0, 1] - gradient[0, 0]  # descent raises the log-odds where this is negative
    at_stroke = float(slope[6, 9])
    assert at_stroke < -1e-3 if label else at_stroke > 1e-3


def test_the_loss_of_a_batch_is_the_mean_of_its_images():
    frames = torch.cat([two_halves(), two_halves().flip(-1)])
    logits, target = noisy_logits(frames), unlabelled(frames)
    target[0, 3, 3], target[1, 8, 2] = 0, 1
    whole = proximal_loss(logits, frames, target, WHOLE)
    parts = [proximal_loss(logits[k : k + 1], frames[k : k + 1], target[k : k + 1], WHOLE) for k in range(2)]
    torch.testing.assert_close(whole, sum(parts) / 2, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_sign_of_the_bias_decides_the_label_of_uncertain_pixels(scale):
    """In a uniform frame with undecided logits, a positive bias makes the mask background except near the stroke, and a
    negative bias makes it foreground."""
    frame = torch.full((1, 3, 12, 16), 0.5)
    logits, target = torch.zeros(1, 2, 12, 16, dtype=torch.float64, requires_grad=True), unlabelled(frame)
    target[0, :, :4] = 1
    config = WHOLE.model_copy(update={"scale": scale, "pull": 0.5})
    descent = {}
    for bias in (-1.5, 1.5):
        loss = proximal_loss(logits, frame, target, config.model_copy(update={"bias": bias}))
        (gradient,) = torch.autograd.grad(loss, logits)
        descent[bias] = -gradient[0, 1]
    assert (descent[1.5][:, 6:] < 0).all() and (descent[1.5][:, :3] > 0).all()
    assert (descent[-1.5] > 0).all()


def test_the_bias_is_subtracted_only_from_the_log_odds_of_the_mask():
    """The loss of logits l with bias b: the cross-entropy of l to the mask of l - b."""
    frame = two_halves()
    logits, bias = noisy_logits(frame), 0.7
    shifted = logits - torch.tensor([0.0, bias], dtype=torch.float64)[:, None, None]
    features = crf_features(frame.double(), WHOLE.sigma_xy * 12, WHOLE.sigma_rgb)
    mask = mean_field(shifted.log_softmax(dim=1).flatten(2), ExactFilter(features), WHOLE.pull, WHOLE.iterations)
    expected = -(mask * logits.log_softmax(dim=1).flatten(2)).sum(dim=1).mean()
    config = WHOLE.model_copy(update={"bias": bias, "filter": "exact"})
    torch.testing.assert_close(proximal_loss(logits, frame, unlabelled(frame), config), expected, atol=1e-6, rtol=1e-6)
