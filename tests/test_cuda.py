"""GPU results equal CPU results. Without a GPU every test is skipped with a reason.

`python benchmarks/cuda_check.py` runs these tests and measures the times of docs/speed.md.
"""

import copy
import os
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from conftest import changed, make_network

from ssvos.config import (
    AttentionConfig,
    ColorModelConfig,
    CrfRefinementConfig,
    LossConfig,
    PredictConfig,
    TestTimeTrainingConfig,
)
from ssvos.inference.segmenter import segment
from ssvos.losses.dense_crf import crf_energy, crf_features, regularizer
from ssvos.losses.exact_filter import ExactFilter, exact_filter
from ssvos.losses.joint import joint_loss
from ssvos.losses.permutohedral import LatticeFilter
from ssvos.models.checkpoint import load_checkpoint, save_checkpoint
from ssvos.models.network import Network
from ssvos.training.trainer import first_network, fit

GPU = torch.device("cuda:0")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device in this machine")
HEIGHT, WIDTH, LENGTH = 48, 64, 3
KINDS = [
    {},
    {"keys": "shared"},
    {"source": "previous", "confident": 0.5},
    {"kind": "non_local"},
    {"kind": "criss_cross"},
    {"kind": "point_wise", "grid": (3, 4)},
    {"kind": "none"},
]


@pytest.fixture(autouse=True)
def single_precision() -> Iterator[None]:
    """Turn off TF32, which has 10 bits of precision, for products of float32."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    yield
    matmul.allow_tf32, cudnn.allow_tf32 = before


def distance(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """|actual - expected| / |expected|, in double precision; NaN fails every limit."""
    actual, expected = actual.detach().cpu().double(), expected.detach().cpu().double()
    assert expected.norm() > 0
    return float((actual - expected).norm() / expected.norm())


def photo(height: int = HEIGHT, width: int = WIDTH, count: int = 1) -> torch.Tensor:
    """Smooth images with some noise, (count, 3, height, width) float64."""
    generator = torch.Generator().manual_seed(height)
    coarse = torch.rand(count, 3, 4, 6, generator=generator, dtype=torch.float64)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return (smooth + 0.02 * torch.randn(smooth.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)


def soft_masks(channels: int, count: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(channels)
    return torch.randn(count, channels, HEIGHT, WIDTH, generator=generator, dtype=torch.float64).softmax(dim=1)


def strokes(count: int) -> torch.Tensor:
    """Binary scribbles (count, HEIGHT, WIDTH), each with a stroke of its own, and a background stroke."""
    result = torch.full((count, HEIGHT, WIDTH), 255, dtype=torch.uint8)
    result[:, -6:-4] = 0
    for k in range(count):
        result[k, 4 + 9 * k : 6 + 9 * k, 3 + 8 * k : 30 + 8 * k] = 1
    return result


def clips(batch: int, dtype: torch.dtype) -> torch.Tensor:
    return photo(count=batch * LENGTH).unflatten(0, (batch, LENGTH)).to(dtype)


@pytest.mark.parametrize("kind", [LatticeFilter, ExactFilter, exact_filter])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
@pytest.mark.parametrize("normalization", ["row", "pixel", "none"])
def test_energy_and_gradient_of_a_filter_equal_those_on_the_cpu(kind, dtype, limit, normalization):
    features = crf_features(photo(count=2).to(dtype), 20.0, 15.0)
    values, gradients = [], []
    for device in ("cpu", GPU):
        probs = soft_masks(3, 2).flatten(2).to(device, dtype).requires_grad_()
        energy = crf_energy(probs, torch.ones_like(probs[:, 0]), kind(features.to(device)), normalization)
        energy.sum().backward()
        assert probs.grad.dtype == dtype
        values.append(energy)
        gradients.append(probs.grad)
    assert distance(values[1], values[0]) < limit
    assert distance(gradients[1], gradients[0]) < limit


@pytest.mark.parametrize("num_points", [1, 63, 700, 5000])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_the_fused_exact_filter_is_close_to_the_exact_sum_in_double_precision(num_points, channels):
    fused = pytest.importorskip("ssvos.losses.exact_filter_triton", reason="no Triton", exc_type=ImportError)
    generator = torch.Generator().manual_seed(num_points)
    features = 3.0 * torch.randn(2, 5, num_points, generator=generator)
    values = torch.randn(2, channels, num_points, generator=generator)
    kernel = exact_filter(features.to(GPU))
    assert isinstance(kernel, fused.FusedExactFilter)
    result = kernel.multiply(values.to(GPU))
    assert distance(result, ExactFilter(features.double()).multiply(values.double())) < 1e-5
    assert torch.equal(result, kernel.multiply(values.to(GPU)))


@pytest.mark.parametrize("filter_", ["lattice", "exact"])
@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_the_regularizer_equals_that_on_the_cpu(filter_, scale):
    config = LossConfig(filter=filter_, scale=scale, sigma_xy=20.0)
    results = []
    for device in ("cpu", GPU):
        probs = soft_masks(2).to(device, torch.float32).requires_grad_()
        value = regularizer(probs, photo().to(device, torch.float32), config)
        value.backward()
        results.append((value, probs.grad))
    assert distance(results[1][0], results[0][0]) < 1e-4
    assert distance(results[1][1], results[0][1]) < 1e-3


def gradients(network: Network, frames: torch.Tensor, scribble: torch.Tensor) -> tuple[torch.Tensor, dict]:
    """Fine and coarse logits, flattened, and the gradients of all parameters that have one."""
    network.zero_grad(set_to_none=True)
    prediction = network(frames, scribble)
    both = torch.cat([prediction.logits.flatten(), prediction.coarse_logits.flatten()])
    both.square().mean().backward()
    return both, {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-8), (torch.float32, 1e-4)])
@pytest.mark.parametrize("attention", KINDS)
def test_prediction_and_gradient_of_the_network_equal_those_on_the_cpu(attention, dtype, limit):
    network = make_network(attention=AttentionConfig(**attention)).to(dtype)
    frames, scribble = clips(2, dtype), strokes(2)
    expected, expected_gradients = gradients(network, frames, scribble)
    actual, actual_gradients = gradients(copy.deepcopy(network).to(GPU), frames.to(GPU), scribble.to(GPU))
    assert distance(actual, expected) < limit
    assert actual_gradients.keys() == expected_gradients.keys()
    flat = [torch.cat([g[name].cpu().flatten() for name in g]) for g in (actual_gradients, expected_gradients)]
    assert distance(*flat) < 10 * limit


@pytest.mark.parametrize("attention", KINDS)
def test_steps_with_several_objects_equal_those_on_the_cpu(attention):
    network = make_network(attention=AttentionConfig(**attention)).double()
    logits = []
    for device in ("cpu", GPU):
        network.to(device)
        frames, image_idx = clips(1, torch.float64).to(device), torch.zeros(3, dtype=torch.int64, device=device)
        with torch.inference_mode():
            state = network.begin(network.encode(frames[:, 0]), strokes(3).to(device), image_idx)
            for t in range(LENGTH):
                fine, _, state = network.step(network.encode(frames[:, t]), state)
        logits.append(fine)
    assert distance(logits[1], logits[0]) < 1e-8


@pytest.mark.parametrize(
    "config",
    [
        PredictConfig(),
        PredictConfig(crf_refinement=CrfRefinementConfig(iterations=2, weight=0.3)),
        PredictConfig(color_model=ColorModelConfig(weight=0.3)),
        PredictConfig(test_time_training=TestTimeTrainingConfig(steps=2)),
    ],
    ids=["plain", "crf_refinement", "color_model", "test_time_training"],
)
@pytest.mark.parametrize("keys", ["per_object", "shared"])
def test_masks_of_several_objects_equal_those_on_the_cpu(config, keys):
    network = make_network(7, attention=AttentionConfig(keys=keys))
    frames = list((255 * photo(45, 59, 4)).byte().permute(0, 2, 3, 1).numpy())
    first, late = (np.full((45, 59), 255, np.uint8) for _ in range(2))
    first[40:42], first[4:7, 4:30], first[16:19, 18:44], late[28:31, 30:50] = 0, 1, 2, 3
    masks = [
        np.stack(list(segment(network.to(device), frames, {0: first, 2: late}, config=config)))
        for device in ("cpu", GPU)
    ]
    assert set(np.unique(masks[0])) == {0, 1, 2, 3}
    # where two objects are equally likely, rounding decides
    assert (masks[0] == masks[1]).mean() > 0.99


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_in_mixed_precision_the_prediction_is_close_and_the_loss_is_in_single_precision(precision):
    network, frames, scribble = make_network().to(GPU), clips(2, torch.float32).to(GPU), strokes(2).to(GPU)
    target = scribble[:, None].expand(-1, LENGTH, -1, -1)
    with torch.no_grad(), torch.autocast("cuda", precision):
        prediction = network(frames, scribble)
    exact = network(frames, scribble).logits.softmax(dim=2)
    assert prediction.logits.dtype == precision
    assert 0 < (prediction.logits.float().softmax(dim=2) - exact).abs().max() < 0.1
    loss = joint_loss(prediction, frames, target, LossConfig(sigma_xy=20.0), auxiliary_weight=1.0)
    single = type(prediction)(*(p.float() for p in prediction))
    expected = joint_loss(single, frames, target, LossConfig(sigma_xy=20.0), auxiliary_weight=1.0)
    for term, value in zip(loss, expected, strict=True):
        assert term.dtype == torch.float32
        torch.testing.assert_close(term, value, rtol=1e-5, atol=0)


def trained(data, device: str | torch.device, deterministic: bool = False, **stage):
    config = changed(data.config, epochs=1, clips_per_epoch=8, **stage)
    config = config.model_copy(update={"train": config.train.model_copy(update={"deterministic": deterministic})})
    return fit(first_network(config), data.load(), config, config.train.stage1, device, lambda _: None)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_an_epoch_of_training_equals_that_on_the_cpu(tiny_data, precision):
    expected = trained(tiny_data, "cpu").history[0]
    actual = trained(tiny_data, GPU, precision=precision).history[0]
    close = 1e-3 if precision == "float32" else 0.05
    assert actual["loss"] == pytest.approx(expected["loss"], rel=close)


@pytest.mark.skipif(
    os.environ.get("CUBLAS_WORKSPACE_CONFIG") not in (":4096:8", ":16:8"),
    reason="CUBLAS_WORKSPACE_CONFIG is not set to :4096:8",
)
def test_deterministic_training_gives_the_same_weights_twice(tiny_data):
    first, second = (trained(tiny_data, GPU, deterministic=True).weights for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_network_saved_on_the_gpu_loads_on_the_cpu(tiny_config, tmp_path):
    network = first_network(tiny_config)
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    save_checkpoint(tmp_path / "checkpoint.pt", network.to(GPU).state_dict(), tiny_config.model, {})
    loaded, _ = load_checkpoint(tmp_path / "checkpoint.pt")
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in expected.items())
