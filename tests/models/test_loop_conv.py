"""Convolutions of a loop: gradients computed once for all steps equal those computed step by step."""

import pytest
import torch

from ssvos.models.loop_conv import LoopConv, unrolled

STEPS = 4


def recurrence(convs: list[LoopConv], x: torch.Tensor) -> torch.Tensor:
    for _ in range(STEPS):
        for conv in convs:
            x = conv(x).tanh()
    return x.square().sum()


def gradients(convs: list[LoopConv], x: torch.Tensor, is_unrolled: bool) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    if is_unrolled:
        with unrolled(convs, STEPS, like=x):
            loss = recurrence(convs, x)
    else:
        loss = recurrence(convs, x)
    return torch.autograd.grad(loss, [x, *(p for conv in convs for p in conv.parameters())])


def make_convs() -> list[LoopConv]:
    torch.manual_seed(0)
    return [LoopConv(3, 5, 3, 1, 2, 2).double(), LoopConv(5, 3, 3, 1, 1).double()]


def test_gradients_of_a_recurrence_equal_those_computed_step_by_step():
    convs, x = make_convs(), torch.randn(2, 3, 6, 7, dtype=torch.float64)
    for gradient, expected in zip(gradients(convs, x, True), gradients(convs, x, False), strict=True):
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(gradient, expected, atol=1e-12, rtol=1e-12)


def test_steps_that_the_loss_does_not_use_add_nothing_to_the_gradient():
    (conv, _), x = make_convs(), torch.randn(1, 3, 4, 4, dtype=torch.float64)
    with unrolled([conv], 3, like=x):
        outputs = [conv(x * k) for k in (1, 2, 3)]
    gradient = torch.autograd.grad(outputs[1].sum(), list(conv.parameters()))
    expected = torch.autograd.grad(conv(x * 2).sum(), list(conv.parameters()))
    for a, b in zip(gradient, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_without_gradients_and_after_an_error_it_is_a_plain_convolution():
    (conv, _), x = make_convs(), torch.randn(1, 3, 4, 4, dtype=torch.float64)
    with torch.no_grad(), unrolled([conv], 1, like=x):
        assert "steps" not in vars(conv)
    with pytest.raises(IndexError), unrolled([conv], 1, like=x):
        conv(x), conv(x)
    assert "steps" not in vars(conv)
    torch.testing.assert_close(conv(x), torch.nn.functional.conv2d(x, conv.weight, conv.bias, 1, 2, 2))


def test_in_mixed_precision_weight_gradients_stay_in_single_precision():
    convs = [conv.float() for conv in make_convs()]
    x = torch.randn(2, 3, 6, 7)
    with torch.autocast("cpu", torch.bfloat16), unrolled(convs, STEPS, like=x.bfloat16()):
        loss = recurrence(convs, x)
    loss.backward()
    plain = gradients(convs, x, False)[1:]
    for parameter, expected in zip((p for conv in convs for p in conv.parameters()), plain, strict=True):
        assert parameter.grad.dtype == torch.float32
        cosine = torch.nn.functional.cosine_similarity(parameter.grad.flatten(), expected.flatten(), dim=0)
        assert cosine > 0.99
