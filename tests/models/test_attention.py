"""Scribble attention against a slow loop of Eqs. 8-10, and its limits."""

import math

import pytest
import torch

from ssvos.config import AttentionConfig, BackboneConfig, ModelConfig
from ssvos.models.attention import ScribbleAttention, Strokes, gather_strokes
from ssvos.models.network import Network

CHANNELS, HEIGHT, WIDTH = 6, 4, 5


def attention(scaled: bool = False, scale: float = 0.7) -> ScribbleAttention:
    torch.manual_seed(0)
    module = ScribbleAttention(CHANNELS, AttentionConfig(scaled=scaled)).double()
    torch.nn.init.constant_(module.scale, scale)
    return module


def sample(seed: int = 1, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Features, and strokes: two in the first sample, four in the second."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, CHANNELS, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)
    has_stroke = torch.zeros(batch, HEIGHT, WIDTH, dtype=torch.bool)
    has_stroke[0, 0, 1] = has_stroke[0, 3, 4] = True
    has_stroke[1:, 2, :4] = True
    return x, has_stroke


def slow_loop(module: ScribbleAttention, x, first, has_stroke, scaled: bool) -> torch.Tensor:
    """Eqs. 8-10, one query position and one stroke at a time."""

    def linear(layer, v):
        return layer.weight @ v + layer.bias

    out = x.clone()
    for n in range(len(x)):
        strokes = [tuple(i) for i in has_stroke[n].nonzero().tolist()]
        for j in ((y, z) for y in range(HEIGHT) for z in range(WIDTH)):
            query = linear(module.query, x[n, :, j[0], j[1]])
            affinity = [float(linear(module.key, first[n, :, y, z]) @ query) for y, z in strokes]
            if scaled:
                affinity = [a / math.sqrt(CHANNELS // 2) for a in affinity]
            total = sum(math.exp(a) for a in affinity)
            context = sum(
                math.exp(a) / total * linear(module.value, first[n, :, y, z])
                for a, (y, z) in zip(affinity, strokes, strict=True)
            )
            out[n, :, j[0], j[1]] += module.scale[0] * linear(module.back, context)
    return out


@pytest.mark.parametrize("scaled", [False, True])
def test_attention_equals_a_slow_loop_of_equations_8_to_10(scaled):
    module = attention(scaled)
    first, has_stroke = sample()
    x, _ = sample(seed=2)
    with torch.no_grad():
        expected = slow_loop(module, x, first, has_stroke, scaled)
        torch.testing.assert_close(module(x, gather_strokes(first, has_stroke)), expected)


def test_features_outside_the_strokes_of_the_initial_frame_have_no_influence():
    module = attention()
    first, has_stroke = sample()
    changed = torch.where(has_stroke[:, None], first, torch.full_like(first, 1e3))
    x, _ = sample(seed=2)
    expected = module(x, gather_strokes(first, has_stroke))
    assert torch.equal(module(x, gather_strokes(changed, has_stroke)), expected)
    moved = first + has_stroke[:, None]
    assert not torch.allclose(module(x, gather_strokes(moved, has_stroke)), expected)


def test_a_sample_without_strokes_is_unchanged_and_has_finite_gradients():
    module = attention()
    x, has_stroke = sample()
    has_stroke[0] = False
    x.requires_grad_()
    out = module(x, gather_strokes(x, has_stroke))
    assert torch.equal(out[0], x[0]) and not torch.equal(out[1], x[1])
    out.square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())
    torch.testing.assert_close(x.grad[0], 2 * x[0].detach())


def test_a_batch_without_strokes_is_unchanged():
    module = attention()
    x, has_stroke = sample()
    assert torch.equal(module(x, gather_strokes(x, torch.zeros_like(has_stroke))), x)


def test_scale_starts_at_zero_so_attention_starts_as_the_identity():
    module = ScribbleAttention(CHANNELS, AttentionConfig()).double()
    x, has_stroke = sample()
    assert torch.equal(module(x, gather_strokes(x, has_stroke)), x)


@pytest.mark.parametrize("kind", ["scribble", "non_local", "criss_cross", "point_wise"])
def test_scale_starts_at_initial_scale(kind):
    attention = AttentionConfig(kind=kind, initial_scale=0.25)
    network = Network(ModelConfig(backbone=BackboneConfig(name="resnet18", width=8), attention=attention))
    assert network.attention.scale.tolist() == [0.25]


def test_padding_of_the_strokes_has_no_influence():
    module = attention()
    x, has_stroke = sample()
    strokes = gather_strokes(x, has_stroke)
    garbage = torch.full((2, 3, CHANNELS), 50.0, dtype=torch.float64)
    wider = Strokes(
        torch.cat([strokes.features, garbage], 1),
        torch.cat([strokes.is_stroke, torch.zeros(2, 3, dtype=torch.bool)], 1),
    )
    torch.testing.assert_close(module(x, wider), module(x, strokes))
    alone = module(x[:1], gather_strokes(x[:1], has_stroke[:1]))
    torch.testing.assert_close(module(x, strokes)[:1], alone)


def test_gathering_returns_every_stroke_once_padded_to_the_longest_sample():
    x, has_stroke = sample()
    strokes = gather_strokes(x, has_stroke)
    assert strokes.features.shape == (2, 4, CHANNELS)
    assert strokes.is_stroke.tolist() == [[True, True, False, False], [True] * 4]
    torch.testing.assert_close(strokes.features[0, :2], torch.stack([x[0, :, 0, 1], x[0, :, 3, 4]]))
    torch.testing.assert_close(strokes.features[1], x[1, :, 2, :4].T)


def test_the_order_of_the_strokes_has_no_influence():
    module = attention()
    x, has_stroke = sample()
    strokes = gather_strokes(x, has_stroke)
    reversed_strokes = Strokes(strokes.features.flip(1), strokes.is_stroke.flip(1))
    torch.testing.assert_close(module(x, reversed_strokes), module(x, strokes))
