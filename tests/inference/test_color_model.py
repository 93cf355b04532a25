"""The color model against loops written from its equations, and its effect on masks."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from ssvos.config import ColorModelConfig, CrfRefinementConfig
from ssvos.inference.color_model import ColorModel, color_bins
from ssvos.inference.crf_refinement import CrfRefiner

HEIGHT, WIDTH, BINS = 12, 16, 4
RED, BLUE, GREEN = (200, 30, 30), (30, 30, 200), (30, 200, 30)


def painted(left: tuple, right: tuple, edge: int = 9) -> np.ndarray:
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    image[:, :edge], image[:, edge:] = left, right
    return image


def as_frame(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def soft_masks(classes: int, seed: int = 0) -> torch.Tensor:
    return (6 * torch.randn(classes, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))).softmax(dim=0)


def random_image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def test_color_bins_of_black_white_and_grey_computed_by_hand():
    """8-bit CIELAB stores L times 255 / 100, and a and b plus 128."""
    image = np.array([[[0, 0, 0], [255, 255, 255], [110, 110, 110]]], np.uint8)  # L = 0, 100, 46.4
    assert color_bins(image, 16).tolist() == [[(0 * 16 + 8) * 16 + 8, (15 * 16 + 8) * 16 + 8, (7 * 16 + 8) * 16 + 8]]


@pytest.mark.parametrize("classes", [2, 3])
def test_the_evidence_equals_a_slow_loop(classes):
    config = ColorModelConfig(weight=0.7, bins=BINS, limit=2.0)
    image, probs = painted(RED, BLUE), soft_masks(classes)
    probs[:, :, :9] = torch.eye(classes)[1][:, None, None]
    pixel_bins = color_bins(image, BINS)
    model = ColorModel(config)
    model.learn(pixel_bins, probs, 1)

    weights = [math.exp(-0.5 * (step / 0.8) ** 2) for step in range(-3, 4)]
    weights = [weight / sum(weights) for weight in weights]
    bins = list(product(range(BINS), repeat=3))
    logs = np.empty((classes, BINS**3))
    for c in range(classes):
        counts = dict.fromkeys(bins, 0.0)
        for y, x in product(range(HEIGHT), range(WIDTH)):
            number = int(pixel_bins[y, x])
            counts[number // BINS**2, number // BINS % BINS, number % BINS] += float(probs[c, y, x])
        smooth = dict.fromkeys(bins, 0.0)
        for target, source in product(bins, bins):
            steps = [a - b for a, b in zip(target, source, strict=True)]
            if max(map(abs, steps)) <= 3:
                smooth[target] += counts[source] * math.prod(weights[step + 3] for step in steps)
        total = sum(smooth.values())
        logs[c] = [math.log(smooth[number] / total + 1e-5) for number in bins]
    expected = 0.7 * np.maximum(logs - logs.max(axis=0), -2.0)
    assert (expected < -0.7 * 1.9).any()
    np.testing.assert_allclose(model.evidence(pixel_bins).numpy(), expected[:, pixel_bins.numpy()], atol=1e-4)


def test_learning_new_objects_does_not_change_the_histograms_of_the_known_ones():
    model = ColorModel(ColorModelConfig(weight=1.0, bins=BINS))
    first, second = (color_bins(random_image(seed), BINS) for seed in (0, 1))
    model.learn(first, soft_masks(2), 1)
    before = model._histograms.clone()
    model.learn(second, soft_masks(3, seed=1), 2)
    new = ColorModel(ColorModelConfig(weight=1.0, bins=BINS))
    new.learn(second, soft_masks(3, seed=1), 1)
    torch.testing.assert_close(model._histograms, torch.stack([new._histograms[0], before[1], new._histograms[2]]))


def test_a_color_model_with_a_limit_near_0_does_not_change_the_masks():
    """With the usual limit they differ."""
    refinement, probs, image = CrfRefinementConfig(iterations=2, weight=3.0), soft_masks(2), painted(RED, BLUE)
    plain, limited, usual = (
        CrfRefiner(refinement, color)(probs, image, as_frame(image), strokes_on(1, 0))
        for color in (ColorModelConfig(), ColorModelConfig(weight=1.0, limit=1e-6), ColorModelConfig(weight=1.0))
    )
    torch.testing.assert_close(limited, plain, atol=1e-5, rtol=1e-5)
    assert (usual - plain).abs().max() > 0.1


def strokes_on(label_left: int, label_right: int) -> torch.Tensor:
    strokes = torch.full((HEIGHT, WIDTH), 255, dtype=torch.uint8)
    strokes[4:8, 2:6], strokes[4:8, 11:15] = label_left, label_right
    return strokes


@pytest.mark.parametrize("iterations", [0, 3])
def test_the_colors_of_the_first_frame_decide_if_the_network_is_undecided(iterations):
    """The strokes on the first frame assign the colors to the classes, on this frame and on one where the object has
    moved. A color that the first frame lacks decides nothing."""
    refiner = CrfRefiner(CrfRefinementConfig(iterations=iterations), ColorModelConfig(weight=1.0, rounds=8))
    undecided = torch.full((2, HEIGHT, WIDTH), 0.5)
    first, moved, unseen = painted(RED, BLUE), painted(BLUE, RED, edge=5), painted(GREEN, GREEN)
    probs = refiner(undecided, first, as_frame(first), strokes_on(1, 0))
    assert (probs[1, :, :9] > 0.8).all() and (probs[1, :, 9:] < 0.2).all()
    probs = refiner(undecided, moved, as_frame(moved))
    assert (probs[1, :, :5] < 0.2).all() and (probs[1, :, 5:] > 0.8).all()
    probs = refiner(undecided, unseen, as_frame(unseen))
    torch.testing.assert_close(probs, undecided)


def test_exchanging_objects_exchanges_their_masks():
    image = painted(RED, BLUE)
    image[:4] = GREEN
    probs, settings = soft_masks(3), (CrfRefinementConfig(iterations=2), ColorModelConfig(weight=1.0))
    strokes = strokes_on(1, 2)
    refiner, refiner_of_exchanged = CrfRefiner(*settings), CrfRefiner(*settings)
    exchanged_strokes = torch.where(strokes == 255, strokes, 3 - strokes)
    for seed in (1, 2):
        probs, image = soft_masks(3, seed), image if seed == 1 else np.roll(image, 3, axis=1)
        first, second = (strokes, exchanged_strokes) if seed == 1 else (None, None)
        refined = refiner(probs, image, as_frame(image), first)
        exchanged = refiner_of_exchanged(probs[[0, 2, 1]], image, as_frame(image), second)
        torch.testing.assert_close(exchanged, refined[[0, 2, 1]], atol=1e-5, rtol=1e-4)
