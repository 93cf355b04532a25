"""Partial cross-entropy: computed by hand, independent of unlabelled pixels and of how a batch is split."""

import math

import pytest
import torch

from ssvos.losses.partial_cross_entropy import partial_cross_entropy

BALANCES = ("pixel", "class")


def random_case(num_frames: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and targets: the last frame has no label, the one before only foreground."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(num_frames, 2, 5, 6, generator=generator)
    target = torch.full((num_frames, 5, 6), 255, dtype=torch.uint8)
    target[:, 0, :4], target[:, 2, 1:3] = 0, 1
    target[-2, 0], target[-1] = 255, 255
    return logits, target


@pytest.mark.parametrize(
    ("balance", "expected"),
    [
        # -log P of the label: background 0.8, 0.5, 0.5; foreground 0.1
        ("pixel", -(math.log(0.8) + 2 * math.log(0.5) + math.log(0.1)) / 4),
        ("class", -((math.log(0.8) + 2 * math.log(0.5)) / 3 + math.log(0.1)) / 2),
    ],
)
def test_equation_11_computed_by_hand(balance, expected):
    foreground = torch.tensor([[[0.2, 0.5, 0.5], [0.1, 0.9, 0.99]]])
    logits = torch.stack([1 - foreground, foreground], dim=1).log()
    target = torch.tensor([[[0, 0, 0], [1, 255, 255]]], dtype=torch.uint8)
    assert float(partial_cross_entropy(logits, target, balance)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("label", [0, 1])
def test_the_loss_of_a_frame_with_only_one_class_is_the_mean_of_that_class(label):
    logits = torch.zeros(1, 2, 2, 2)
    target = torch.full((1, 2, 2), 255, dtype=torch.uint8)
    target[0, 0] = label
    for balance in BALANCES:
        assert float(partial_cross_entropy(logits, target, balance)) == pytest.approx(math.log(2))


@pytest.mark.parametrize("balance", BALANCES)
def test_background_strokes_count(balance):
    target = torch.full((1, 2, 2), 255, dtype=torch.uint8)
    target[0, 0, 0], target[0, 1, 1] = 0, 1
    everything_foreground = torch.stack([torch.full((1, 2, 2), -5.0), torch.full((1, 2, 2), 5.0)], dim=1)
    right = everything_foreground.clone()
    right[0, :, 0, 0] = right[0, :, 0, 0].flip(0)
    loss = [float(partial_cross_entropy(x, target, balance)) for x in (everything_foreground, right)]
    assert loss[0] > 4 and loss[1] < 1e-3


@pytest.mark.parametrize("balance", BALANCES)
def test_logits_at_unlabelled_pixels_do_not_change_value_and_gradient(balance):
    logits, target = random_case()
    unknown = (target == 255)[:, None].expand_as(logits)
    changed = torch.where(unknown, -30 * logits + 7, logits)
    results = []
    for x in (logits.clone().requires_grad_(), changed.clone().requires_grad_()):
        loss = partial_cross_entropy(x, target, balance)
        loss.backward()
        results.append((loss.detach(), x.grad))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    assert not results[0][1][unknown].any() and results[0][1][~unknown].all()


@pytest.mark.parametrize("balance", BALANCES)
def test_without_labels_the_loss_and_its_gradient_are_zero(balance):
    logits = torch.randn(2, 2, 3, 3, requires_grad=True)
    loss = partial_cross_entropy(logits, torch.full((2, 3, 3), 255, dtype=torch.uint8), balance)
    loss.backward()
    assert loss.item() == 0.0 and not logits.grad.any()


@pytest.mark.parametrize("balance", BALANCES)
def test_the_loss_of_a_batch_is_the_mean_of_its_halves(balance):
    logits, target = random_case()
    halves = [partial_cross_entropy(logits[s], target[s], balance) for s in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(partial_cross_entropy(logits, target, balance), sum(halves) / 2)


def test_with_class_balance_the_number_of_background_pixels_has_no_influence():
    logits = torch.zeros(1, 2, 4, 4)
    logits[:, 0, 0] = 1.0
    few, many = (torch.full((1, 4, 4), 255, dtype=torch.uint8) for _ in range(2))
    few[0, 0, 0], many[0, 0] = 0, 0
    few[0, 3, 3] = many[0, 3, 3] = 1
    by_class = [partial_cross_entropy(logits, t, "class") for t in (few, many)]
    by_pixel = [partial_cross_entropy(logits, t, "pixel") for t in (few, many)]
    torch.testing.assert_close(*by_class)
    assert by_pixel[0] > by_pixel[1]


@pytest.mark.parametrize("balance", BALANCES)
def test_gradients_equal_finite_differences(balance):
    logits, target = random_case()
    x = logits.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: partial_cross_entropy(v, target, balance), x)
