"""Winograd's 3x3 convolution equals PyTorch's in values and gradients, and cached filters follow their weights."""

from itertools import pairwise

import pytest
import torch
from torch.nn.functional import conv2d

from ssvos.config import BackboneConfig, ModelConfig
from ssvos.models import winograd
from ssvos.models.conv_norm import FrozenBatchNorm, conv_norm
from ssvos.models.loop_conv import LoopConv
from ssvos.models.network import Network


@pytest.fixture
def winograd_everywhere(monkeypatch):
    """All 3x3 convolutions of the network use Winograd's algorithm, in double precision as well."""

    def is_faster(x, weight, dilation):
        return weight.shape[-2:] == (3, 3)

    monkeypatch.setattr(winograd, "is_faster", is_faster)


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (9, 11), (7, 16)])
def test_values_and_gradients_equal_those_of_pytorch(size, dilation):
    generator = torch.Generator().manual_seed(0)
    x, weight, bias, grad = (
        torch.randn(shape, dtype=torch.float64, generator=generator)
        for shape in ((2, 3, *size), (5, 3, 3, 3), (5, 1, 1), (2, 5, *size))
    )
    leaves = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    y = winograd.convolve(*leaves, dilation)
    expected = conv2d(x, weight, bias[:, 0, 0], 1, dilation, dilation)
    torch.testing.assert_close(y, expected, atol=1e-11, rtol=0)
    gradients = torch.autograd.grad(y, leaves, grad)
    for one, other in zip(gradients, torch.autograd.grad(expected, leaves, grad), strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=0)
    of_weight = winograd.weight_gradient(x.detach(), grad, dilation)
    torch.testing.assert_close(of_weight, gradients[1], atol=1e-11, rtol=0)


def test_a_weight_gradient_computed_in_blocks_equals_the_whole(monkeypatch):
    x, grad = torch.randn(1, 7, 5, 6, dtype=torch.float64), torch.randn(1, 2, 5, 6, dtype=torch.float64)
    whole = winograd.weight_gradient(x, grad, 1)
    monkeypatch.setattr(winograd, "_CHANNELS_AT_ONCE", 3)
    torch.testing.assert_close(winograd.weight_gradient(x, grad, 1), whole)


def test_the_bias_may_depend_on_the_position():
    x, weight = torch.randn(2, 3, 6, 5, dtype=torch.float64), torch.randn(4, 3, 3, 3, dtype=torch.float64)
    bias = torch.randn(2, 4, 6, 5, dtype=torch.float64, requires_grad=True)
    y = winograd.convolve(x, weight, bias, 1)
    torch.testing.assert_close(y, conv2d(x, weight, None, 1, 1) + bias, atol=1e-11, rtol=0)
    y.square().sum().backward()
    torch.testing.assert_close(bias.grad, 2 * y.detach())


def test_the_rounding_error_in_single_precision_is_small_at_the_sizes_of_the_network():
    x, weight, bias = torch.randn(1, 512, 15, 30), torch.randn(512, 512, 3, 3), torch.zeros(512, 1, 1)
    assert winograd.is_faster(x, weight, 1)
    exact = conv2d(x.double(), weight.double(), None, 1, 1)
    error = (winograd.convolve(x, weight, bias, 1) - exact).abs().max() / exact.abs().max()
    assert error < 3e-5


@pytest.mark.parametrize(
    ("shape", "channels", "kernel", "dilation", "dtype", "expected"),
    [
        ((1, 512, 15, 30), 512, 3, 1, torch.float32, True),
        ((1, 512, 30, 54), 512, 3, 3, torch.float32, True),
        ((1, 512, 15, 30), 512, 3, 6, torch.float32, False),  # the tiles of the 36 subgrids are mostly empty
        ((1, 512, 15, 30), 512, 1, 1, torch.float32, False),
        ((1, 32, 15, 30), 512, 3, 1, torch.float32, False),
        ((1, 512, 15, 30), 512, 3, 1, torch.bfloat16, False),
        ((1, 512, 15, 30), 512, 3, 1, torch.float64, False),
    ],
)
def test_it_is_used_only_for_large_3x3_convolutions_in_float32(shape, channels, kernel, dilation, dtype, expected):
    x, weight = torch.empty(shape, dtype=dtype), torch.empty(channels, shape[1], kernel, kernel, dtype=dtype)
    assert winograd.is_faster(x, weight, dilation) is expected
    with torch.autocast("cpu", torch.bfloat16):
        assert not winograd.is_faster(x, weight, dilation)


@pytest.mark.usefixtures("winograd_everywhere")
def test_cached_filters_follow_the_weights():
    torch.manual_seed(0)
    conv, x = LoopConv(3, 4, 3, 1, 1), torch.randn(1, 3, 6, 7)
    other = LoopConv(3, 4, 3, 1, 1)
    optimizer = torch.optim.SGD(conv.parameters(), lr=1.0)
    outputs = []

    def check() -> None:
        with torch.inference_mode():
            outputs.append(conv(x))
            expected = conv2d(x, conv.weight, conv.bias, 1, 1)
            torch.testing.assert_close(outputs[-1], expected, atol=1e-4, rtol=1e-5)
            cached = vars(conv)["_winograd_filters"].filters
            conv(x)
            assert vars(conv)["_winograd_filters"].filters is cached

    check()
    conv(x).sum().backward()
    optimizer.step()
    check()
    conv.load_state_dict(other.state_dict())
    check()
    conv.weight = torch.nn.Parameter(torch.randn(4, 3, 3, 3))
    check()
    assert all((a - b).abs().max() > 1e-3 for a, b in pairwise(outputs))
    assert list(conv.state_dict()) == ["weight", "bias"]


@pytest.mark.usefixtures("winograd_everywhere")
def test_cached_filters_follow_frozen_statistics():
    torch.manual_seed(0)
    conv, norm, x = torch.nn.Conv2d(3, 4, 3, 1, 1, bias=False), FrozenBatchNorm(4), torch.randn(1, 3, 6, 7)
    with torch.inference_mode():
        conv_norm(conv, norm, x)
    norm.load_state_dict(norm.state_dict() | {"running_var": torch.tensor([0.5, 1.0, 2.0, 3.0])})
    with torch.inference_mode():
        torch.testing.assert_close(conv_norm(conv, norm, x), norm(conv(x)), atol=1e-4, rtol=1e-5)


def test_the_network_computes_the_same_with_and_without_winograd(monkeypatch):
    torch.manual_seed(0)
    network = Network(ModelConfig(backbone=BackboneConfig(name="resnet18", width=8))).double()
    frames = torch.rand(1, 3, 3, 64, 96, dtype=torch.float64)
    scribble = torch.full((1, 64, 96), 255, dtype=torch.uint8)
    scribble[:, 20:24, 30:60], scribble[:, 50:54] = 1, 0

    def logits_and_gradients() -> list[torch.Tensor]:
        prediction = network(frames, scribble)
        loss = prediction.logits.square().mean() + prediction.coarse_logits.square().mean()
        return [prediction.logits, *torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)]

    without = logits_and_gradients()
    monkeypatch.setattr(winograd, "is_faster", lambda x, weight, dilation: weight.shape[-2:] == (3, 3))
    for one, other in zip(logits_and_gradients(), without, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-6)


@pytest.mark.usefixtures("winograd_everywhere")
def test_training_frees_the_filters_that_inference_cached():
    network = Network(ModelConfig(backbone=BackboneConfig(name="resnet18", width=8))).eval()
    frames, scribble = torch.rand(1, 2, 3, 64, 96), torch.full((1, 64, 96), 255, dtype=torch.uint8)
    scribble[:, 20:24], scribble[:, 50:54] = 1, 0
    with torch.inference_mode():
        network(frames, scribble)
    assert any("_winograd_filters" in vars(module) for module in network.modules())
    network.train()
    assert not any("_winograd_filters" in vars(module) for module in network.modules())
