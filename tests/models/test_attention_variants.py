"""The attention variants against slow loops of their papers' equations, and their limits."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ssvos.config import AttentionConfig
from ssvos.models.attention import ScribbleAttention, gather_strokes
from ssvos.models.attention_variants import ATTENTION_VARIANTS, CrissCross, NonLocal, PointWise

HEIGHT, WIDTH = 4, 5
POSITIONS = [(y, x) for y in range(HEIGHT) for x in range(WIDTH)]


def variant(kind: str, channels: int, scale: float = 0.7, spread: float = 0.8, **config) -> nn.Module:
    """A variant with random weights; with the default spread its attention is far from uniform."""
    torch.manual_seed(0)
    module = ATTENTION_VARIANTS[kind](
        channels, AttentionConfig(kind=kind, **{"grid": (HEIGHT, WIDTH)} | config)
    ).double()
    for name, parameter in module.named_parameters():
        nn.init.constant_(parameter, scale) if name == "scale" else nn.init.normal_(parameter, std=spread)
    return module


def sample(channels: int, height: int = HEIGHT, width: int = WIDTH, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64)


def softmax(scores: list[float]) -> list[float]:
    total = sum(math.exp(s) for s in scores)
    return [math.exp(s) / total for s in scores]


def linear(layer: nn.Module, v: Tensor) -> Tensor:
    """A 1x1 convolution, or a linear layer, of one position's features."""
    return layer.weight.reshape(layer.weight.shape[:2]) @ v + layer.bias


def slow_attention(module: nn.Module, x: Tensor, attended: Callable, factor: float) -> Tensor:
    """z_i = gamma W_z sum_j softmax_j(theta(x_i) . phi(x_j)) g(x_j) + x_i over j in attended(i)."""
    out = x.clone()
    for n in range(len(x)):
        for y, z in POSITIONS:
            others = attended(y, z)
            query = linear(module.query, x[n, :, y, z])
            weights = softmax([factor * float(linear(module.key, x[n, :, a, b]) @ query) for a, b in others])
            values = [linear(module.value, x[n, :, a, b]) for a, b in others]
            context = sum(w * v for w, v in zip(weights, values, strict=True))
            out[n, :, y, z] += module.scale[0] * linear(module.back, context)
    return out


def cross_of(y: int, x: int) -> list[tuple[int, int]]:
    """The H + W - 1 positions of a row and a column."""
    return [(a, b) for a, b in POSITIONS if a == y or b == x]


def point_wise_loop(module: PointWise, x: Tensor) -> Tensor:
    """z_i = sum_j F_collect(x_i, j - i) x_j, concatenated with sum_j F_distribute(x_j, i - j) x_j.

    The frame has the size of the grid. F: the map of a position at an offset.
    """
    out = x.clone()

    def reduced_and_map(branch: nn.Module, features: Tensor) -> tuple[Tensor, Tensor]:
        reduced = linear(branch.reduce[0], features).clamp(min=0)
        over_complete = linear(branch.predict[2], linear(branch.predict[0], reduced).clamp(min=0))
        return reduced, over_complete.reshape(2 * HEIGHT - 1, 2 * WIDTH - 1)

    def at(over_complete: Tensor, origin: tuple[int, int], target: tuple[int, int]) -> float:
        return float(over_complete[target[0] - origin[0] + HEIGHT - 1, target[1] - origin[1] + WIDTH - 1])

    for n in range(len(x)):
        collect = {i: reduced_and_map(module.collect, x[n, :, i[0], i[1]]) for i in POSITIONS}
        distribute = {i: reduced_and_map(module.distribute, x[n, :, i[0], i[1]]) for i in POSITIONS}
        for i in POSITIONS:
            weights = softmax([at(collect[i][1], i, j) for j in POSITIONS])
            collected = sum(w * collect[j][0] for w, j in zip(weights, POSITIONS, strict=True))
            weights = softmax([at(distribute[j][1], j, i) for j in POSITIONS])
            distributed = sum(w * distribute[j][0] for w, j in zip(weights, POSITIONS, strict=True))
            context = linear(module.back, torch.cat([collected, distributed]))
            out[n, :, i[0], i[1]] += module.scale[0] * context
    return out


@pytest.mark.parametrize("scaled", [False, True])
def test_non_local_equals_a_slow_loop_over_all_pairs(scaled):
    module, x = variant("non_local", 6, scaled=scaled), sample(6)
    with torch.no_grad():
        expected = slow_attention(module, x, lambda y, z: POSITIONS, 3**-0.5 if scaled else 1.0)
        torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("scaled", [False, True])
def test_criss_cross_equals_two_slow_loops_over_rows_and_columns(scaled):
    module, x = variant("criss_cross", 6, scaled=scaled), sample(6)
    factor = 3**-0.5 if scaled else 1.0
    with torch.no_grad():
        once = slow_attention(module, x, cross_of, factor)
        torch.testing.assert_close(module.attend_once(x), once)
        torch.testing.assert_close(module(x), slow_attention(module, once, cross_of, factor))


def test_point_wise_equals_a_slow_loop_over_offsets():
    module, x = variant("point_wise", 8), sample(8)
    with torch.no_grad():
        torch.testing.assert_close(module(x), point_wise_loop(module, x))


def test_scribble_attention_with_strokes_everywhere_is_non_local():
    module, x = variant("non_local", 6), sample(6)
    scribble = ScribbleAttention(6, AttentionConfig()).double()
    scribble.load_state_dict(module.state_dict())
    everywhere = torch.ones(2, HEIGHT, WIDTH, dtype=torch.bool)
    torch.testing.assert_close(module(x), scribble(x, gather_strokes(x, everywhere)))


@pytest.mark.parametrize("kind", ATTENTION_VARIANTS)
def test_scale_starts_at_zero_so_a_variant_starts_as_the_identity(kind):
    module, x = ATTENTION_VARIANTS[kind](8, AttentionConfig(kind=kind)), sample(8).float()
    assert torch.equal(module(x), x)
    module(x).square().sum().backward()
    assert torch.isfinite(module.scale.grad).all() and module.scale.grad.abs() > 0


@pytest.mark.parametrize("kind", ATTENTION_VARIANTS)
def test_gradients_equal_finite_differences(kind):
    module = variant(kind, 4, grid=(2, 2), scaled=True)
    x = sample(4, 2, 3, batch=1).requires_grad_()
    names = [name for name, _ in module.named_parameters()]

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), x)

    assert torch.autograd.gradcheck(call, (x, *module.parameters()))


@pytest.mark.parametrize("kind", ATTENTION_VARIANTS)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (6, 1), (3, 4), (9, 11)])
def test_any_size_is_kept_with_finite_gradients_and_independent_samples(kind, size):
    module, x = variant(kind, 8), sample(8, *size).requires_grad_()
    out = module(x)
    assert out.shape == x.shape
    out.square().sum().backward()
    gradients = [x.grad, *(p.grad for p in module.parameters())]
    assert all(torch.isfinite(g).all() for g in gradients)
    torch.testing.assert_close(module(x[1:]), out[1:])


def influenced(function: Callable[[Tensor], Tensor], y: int, x: int) -> Tensor:
    """The outputs (H, W) that change when the input changes at one position only."""
    before = sample(6, batch=1)
    after = before.clone()
    after[:, :, y, x] += 1.0
    with torch.no_grad():
        return (function(after) - function(before)).abs().amax(dim=(0, 1)) > 1e-9


def test_one_pass_of_criss_cross_reaches_row_and_column_and_two_passes_reach_all():
    module = variant("criss_cross", 6, spread=0.3)
    for y, x in ((0, 0), (2, 3)):
        expected = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
        expected[y, :] = expected[:, x] = True
        assert torch.equal(influenced(module.attend_once, y, x), expected)
        assert influenced(module, y, x).all()


def test_a_constant_map_collects_from_one_offset_and_distributes_to_it():
    """The last layer gives every position the offset (1, 2), one down and two to the right, for any features."""
    module, x = variant("point_wise", 8, scale=1.0), sample(8)
    for branch in (module.collect, module.distribute):
        nn.init.zeros_(branch.predict[2].weight)
        nn.init.zeros_(branch.predict[2].bias)
        with torch.no_grad():
            branch.predict[2].bias.view(2 * HEIGHT - 1, 2 * WIDTH - 1)[HEIGHT - 1 + 1, WIDTH - 1 + 2] = 100.0
    with torch.no_grad():
        context = module(x) - x
        for y, z in ((1, 2), (2, 2)):  # positions whose offsets are inside the frame
            collected = linear(module.collect.reduce[0], x[0, :, y + 1, z + 2]).clamp(min=0)
            distributed = linear(module.distribute.reduce[0], x[0, :, y - 1, z - 2]).clamp(min=0)
            expected = linear(module.back, torch.cat([collected, distributed]))
            torch.testing.assert_close(context[0, :, y, z], expected)
        lower = x.roll(1, dims=2)
        torch.testing.assert_close((module(lower) - lower)[:, :, 2, 2], context[:, :, 1, 2])


def test_a_larger_frame_is_pooled_to_the_grid_and_the_output_is_interpolated():
    module, x = variant("point_wise", 8), sample(8)
    large = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    with torch.no_grad():
        small, context = module(x) - x, module(large) - large
    # at twice the size, an output pixel is a quarter of a cell away from the centre of its cell
    inner = (9 * small[:, :, 1, 1] + 3 * small[:, :, 0, 1] + 3 * small[:, :, 1, 0] + small[:, :, 0, 0]) / 16
    torch.testing.assert_close(context[:, :, 2, 2], inner)
    torch.testing.assert_close(context[:, :, 0, 0], small[:, :, 0, 0])


def test_a_smaller_frame_fills_the_grid_by_repetition():
    module, x = variant("point_wise", 8), sample(8, 2, WIDTH)
    with torch.no_grad():
        repeated = x.repeat_interleave(2, dim=2)
        context = (module(repeated) - repeated).unflatten(2, (2, 2)).mean(dim=3)
        torch.testing.assert_close(module(x) - x, context)


class LargestOutput(TorchDispatchMode):
    """Records the largest number of elements in the output of any operation."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        tensors = out if isinstance(out, tuple | list) else [out]
        self.elements = max([self.elements, *(t.numel() for t in tensors if isinstance(t, Tensor))])
        return out


@pytest.mark.parametrize(("kind", "backward"), [(k, b) for k in ("non_local", "criss_cross") for b in (False, True)])
def test_no_matrix_of_all_pairs_is_built(kind, backward):
    height, width, channels = 24, 32, 8
    module = ATTENTION_VARIANTS[kind](channels, AttentionConfig(kind=kind))
    x = torch.randn(1, channels, height, width)
    with LargestOutput() as largest:
        out = module(x)
        if backward:
            out.sum().backward()
    assert largest.elements <= height * width * (height + width) < (height * width) ** 2 / 10


def test_the_variants_with_query_and_key_have_the_parameters_of_scribble_attention():
    def shapes(module: nn.Module) -> dict:
        return {name: p.shape for name, p in module.named_parameters()}

    expected = shapes(ScribbleAttention(12, AttentionConfig()))
    assert shapes(NonLocal(12, AttentionConfig())) == shapes(CrissCross(12, AttentionConfig())) == expected
