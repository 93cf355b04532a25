"""Dense-CRF energy and scribble-supervised loss against double sums written from Eqs. 12-18."""

import math

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from ssvos.config import LossConfig
from ssvos.losses.dense_crf import crf_energy, crf_features, region_weight, regularizer
from ssvos.losses.exact_filter import ExactFilter
from ssvos.losses.permutohedral import LatticeFilter

HEIGHT, WIDTH, CLASSES = 9, 11, 2
SIGMA_XY, SIGMA_RGB = 4.0, 60.0
NORMALIZATIONS = ("none", "pixel", "row")


def image(seed: int = 0, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)


def unnormalised_probs(seed: int = 1, batch: int = 1) -> torch.Tensor:
    """Soft masks that do not sum to one, so that a test fails if 1 - P is used for the other class."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, CLASSES, HEIGHT * WIDTH, generator=generator, dtype=torch.float64)


def strong_weight(batch: int = 1) -> torch.Tensor:
    """w of Eq. 18 with beta = 5, on a random region."""
    generator = torch.Generator().manual_seed(2)
    unreliable = torch.rand(batch, HEIGHT * WIDTH, generator=generator, dtype=torch.float64) < 0.4
    return 1.0 + 5.0 * unreliable.double()


def double_sum(frame: torch.Tensor, probs: torch.Tensor, w: torch.Tensor, normalization: str) -> float:
    """Eqs. 12-18 pixel pair by pixel pair: frame (3, H, W) in [0, 1], probs (C, N), w (N,)."""
    color = (255 * frame).flatten(1).T.tolist()
    place = [(y, x) for y in range(HEIGHT) for x in range(WIDTH)]
    p, n = probs.T.tolist(), HEIGHT * WIDTH
    total = 0.0
    for i in range(n):
        row, row_sum = 0.0, 0.0
        for j in range(n):
            near = sum((a - b) ** 2 for a, b in zip(place[i], place[j], strict=True)) / SIGMA_XY**2
            alike = sum((a - b) ** 2 for a, b in zip(color[i], color[j], strict=True)) / SIGMA_RGB**2
            g = math.exp(-0.5 * (near + alike))
            row_sum += g
            if normalization == "row" or i != j:
                row += g * sum(a * (1 - b) for a, b in zip(p[i], p[j], strict=True))
        total += float(w[i]) * (row / row_sum if normalization == "row" else row)
    return total if normalization == "none" else total / n


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_the_energy_equals_the_double_sum_of_equations_12_to_18(normalization):
    frames, probs, w = image(), unnormalised_probs(), strong_weight()
    energy = crf_energy(probs, w, ExactFilter(crf_features(frames, SIGMA_XY, SIGMA_RGB)), normalization)
    expected = double_sum(frames[0], probs[0], w[0], normalization)
    assert float(energy[0]) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("kind", [ExactFilter, LatticeFilter])
def test_the_gradient_equals_finite_differences(kind, normalization):
    kernel = kind(crf_features(image(), SIGMA_XY, SIGMA_RGB))
    probs, w = unnormalised_probs().requires_grad_(), strong_weight()
    assert torch.autograd.gradcheck(lambda p: crf_energy(p, w, kernel, normalization), probs)


def test_the_gradient_of_the_raw_energy_equals_the_analytic_gradient():
    """d/dP sum_i w_i sum_c P_c (G (1 - P_c))_i = w o G(1 - P) - G^T (w o P), with no diagonal in G."""
    f = crf_features(image(), SIGMA_XY, SIGMA_RGB)[0]
    g = torch.exp(-0.5 * (f[:, :, None] - f[:, None]).square().sum(dim=0)).fill_diagonal_(0)
    probs, w = unnormalised_probs().requires_grad_(), strong_weight()
    crf_energy(probs, w, ExactFilter(f[None]), "none").sum().backward()
    p = probs.detach()[0]
    expected = w[0] * ((1 - p) @ g.T) - (w[0] * p) @ g
    torch.testing.assert_close(probs.grad[0], expected)


def test_the_gradient_of_the_row_normalised_energy_equals_the_analytic_gradient():
    """G = D^-1 K is not symmetric: w o (1 - G P) - G^T (w o P), where G^T v = K (D^-1 v)."""
    f = crf_features(image(), SIGMA_XY, SIGMA_RGB)[0]
    g = torch.exp(-0.5 * (f[:, :, None] - f[:, None]).square().sum(dim=0))
    g = g / g.sum(dim=1, keepdim=True)
    probs, w = unnormalised_probs().requires_grad_(), strong_weight()
    crf_energy(probs, w, ExactFilter(f[None]), "row").sum().backward()
    p = probs.detach()[0]
    expected = (w[0] * (1 - p @ g.T) - (w[0] * p) @ g) / (HEIGHT * WIDTH)
    torch.testing.assert_close(probs.grad[0], expected)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("kind", [ExactFilter, LatticeFilter])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_energy_of_a_softmax_is_the_same_with_one_class_unfiltered(kind, classes, normalization):
    kernel = kind(crf_features(image(batch=2), SIGMA_XY, SIGMA_RGB))
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, classes, HEIGHT * WIDTH, generator=generator, dtype=torch.float64)
    results = []
    for sums_to_one in (False, True):
        x = logits.clone().requires_grad_()
        energy = crf_energy(x.softmax(dim=1), strong_weight(batch=2), kernel, normalization, sums_to_one)
        energy.sum().backward()
        results.append((energy.detach(), x.grad))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_hard_mask_of_one_class_has_zero_energy_and_a_mixed_mask_does_not(normalization):
    kernel = ExactFilter(crf_features(image(), SIGMA_XY, SIGMA_RGB))
    w = torch.ones(1, HEIGHT * WIDTH, dtype=torch.float64)
    same = torch.zeros(1, 2, HEIGHT * WIDTH, dtype=torch.float64)
    same[:, 1] = 1.0
    split = same.clone()
    split[:, :, ::2] = split[:, :, ::2].flip(1)
    assert float(crf_energy(same, w, kernel, normalization)) == pytest.approx(0.0, abs=1e-9)
    assert float(crf_energy(split, w, kernel, normalization)) > 0.1


def test_features_are_position_and_color_divided_by_their_bandwidths():
    frames = image()
    features = crf_features(frames, 100.0, 15.0)
    y, x = 7, 3
    red, green, blue = (255 * frames[0, :, y, x] / 15).tolist()
    assert features[0, :, y * WIDTH + x].tolist() == pytest.approx([0.07, 0.03, red, green, blue])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_only_scores_between_the_thresholds_are_unreliable(dtype):
    score = torch.tensor([[0.0, 0.0499, 0.05, 0.1, 0.3, 0.3001, 1.0]], dtype=dtype, requires_grad=True)
    w = region_weight(score, 0.1, 0.05, 0.3)
    assert w[0].tolist() == pytest.approx([1, 1, 1.1, 1.1, 1.1, 1, 1])
    assert not w.requires_grad


def natural_case(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A photograph of 60x107 and a soft mask of the person in it, like the output of a partly trained network."""
    photo = cv2.resize(data.astronaut(), (107, 60), interpolation=cv2.INTER_AREA)
    frames = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
    y, x = np.mgrid[:60, :107]
    blob = 1 / (1 + np.exp(((x - 50) / 22.0) ** 2 + ((y - 30) / 25.0) ** 2 - 2))
    noise = cv2.GaussianBlur(np.random.default_rng(seed).standard_normal((60, 107)), (0, 0), 3)
    foreground = torch.from_numpy(np.clip(0.9 * blob + 0.5 * noise, 0.01, 0.99))
    return frames, torch.stack([1 - foreground, foreground])[None].float()


@pytest.mark.parametrize(("normalization", "tolerance"), [("row", 0.01), ("pixel", 0.03), ("none", 0.03)])
def test_on_a_photograph_the_lattice_is_close_to_the_exact_sum_in_value_and_gradient(normalization, tolerance):
    frames, probs = natural_case()
    w = region_weight(probs[:, 1].flatten(1), 0.1, 0.05, 0.3)
    results = []
    for kind in (ExactFilter, LatticeFilter):
        p = probs.flatten(2).clone().requires_grad_()
        # 12.5 pixels at 60 rows correspond to 100 pixels at 480 rows
        value = crf_energy(p, w, kind(crf_features(frames, 12.5, 15.0)), normalization)
        value.sum().backward()
        results.append((value.item(), p.grad))
    (exact, exact_gradient), (lattice, gradient) = results
    assert lattice == pytest.approx(exact, rel=tolerance)
    assert torch.cosine_similarity(gradient.flatten(), exact_gradient.flatten(), dim=0) > 0.995


def test_the_region_weight_changes_the_value_and_has_no_gradient():
    frames, probs = natural_case()
    config = LossConfig(filter="exact", beta=5.0, scale=0.25)
    without = config.model_copy(update={"regularizer": "dense_crf"})
    assert regularizer(probs, frames, config) > 1.02 * regularizer(probs, frames, without)
    frames, logits = frames[..., :32, 20:70], probs[..., :32, 20:70].log()
    combined = logits.clone().requires_grad_()
    regularizer(combined.softmax(dim=1), frames, config.model_copy(update={"scale": 1.0})).backward()
    separate = logits.clone().requires_grad_()
    w = region_weight(logits.softmax(dim=1)[:, 1].flatten(1), 5.0, config.unreliable_above, config.unreliable_below)
    kernel = ExactFilter(crf_features(frames, config.sigma_xy, config.sigma_rgb))
    crf_energy(separate.softmax(dim=1).flatten(2), w, kernel, "row").mean().backward()
    torch.testing.assert_close(combined.grad, separate.grad)


def test_with_beta_0_the_scribble_supervised_loss_equals_the_dense_crf_loss():
    frames, probs = natural_case()
    ours = LossConfig(beta=0.0, scale=0.5)
    crf = LossConfig(regularizer="dense_crf", beta=5.0, scale=0.5)
    assert regularizer(probs, frames, ours) == regularizer(probs, frames, crf)


def test_the_row_normalised_energy_hardly_depends_on_the_image_size_and_the_raw_sum_does():
    frames, probs = natural_case()
    ratio = {}
    for normalization in ("row", "none"):
        whole, half = (
            regularizer(probs, frames, LossConfig(normalization=normalization, scale=s, sigma_xy=12.5))
            for s in (1.0, 0.5)
        )
        ratio[normalization] = float(whole / half)
    assert 0.8 < ratio["row"] < 1.25 and ratio["none"] > 3


def test_at_half_scale_sigma_xy_shrinks_with_the_image():
    """The large image has a block of four pixels for each pixel of the small one: at half scale both are equal."""
    small, constant = image().float(), torch.tensor([0.7, 0.3])[None, :, None, None]
    large = small.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    config = LossConfig(filter="exact", normalization="pixel", sigma_rgb=60.0)
    energy = regularizer(
        constant.expand(1, 2, 2 * HEIGHT, 2 * WIDTH),
        large,
        config.model_copy(update={"scale": 0.5, "sigma_xy": 8.0}),
    )
    expected = regularizer(
        constant.expand(1, 2, HEIGHT, WIDTH), small, config.model_copy(update={"scale": 1.0, "sigma_xy": 4.0})
    )
    torch.testing.assert_close(energy, expected)


def test_a_batch_is_the_mean_of_its_images():
    frames, probs = natural_case()
    frames, probs = torch.cat([frames, frames.flip(-1)]), torch.cat([probs, probs.flip(-2)])
    config = LossConfig(scale=0.5)
    alone = [regularizer(probs[n : n + 1], frames[n : n + 1], config) for n in range(2)]
    torch.testing.assert_close(regularizer(probs, frames, config), sum(alone) / 2)
