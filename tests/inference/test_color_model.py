"""Colours of a video's own first frame: against loops from the equations, and what they are for."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from ssvos.config import ColorModelConfig, CrfRefinementConfig
from ssvos.inference.color_model import ColorModel, colour_cells
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


def test_bins_of_black_white_and_a_grey_worked_by_hand():
    """CIELAB in 8 bits: L times 255 / 100, a and b plus 128."""
    image = np.array([[[0, 0, 0], [255, 255, 255], [110, 110, 110]]], np.uint8)  # L = 0, 100, 46.4
    assert colour_cells(image, 16).tolist() == [[(0 * 16 + 8) * 16 + 8, (15 * 16 + 8) * 16 + 8, (7 * 16 + 8) * 16 + 8]]


@pytest.mark.parametrize("classes", [2, 3])
def test_evidence_equals_a_slow_loop(classes):
    config = ColorModelConfig(weight=0.7, bins=BINS, limit=2.0)
    image, probs = painted(RED, BLUE), soft_masks(classes)
    probs[:, :, :9] = torch.eye(classes)[1][:, None, None]
    cells = colour_cells(image, BINS)
    model = ColorModel(config)
    model.learn(cells, probs, 1)

    weights = [math.exp(-0.5 * (step / 0.8) ** 2) for step in range(-3, 4)]
    weights = [one / sum(weights) for one in weights]
    bins = list(product(range(BINS), repeat=3))
    logs = np.empty((classes, BINS**3))
    for c in range(classes):
        counts = dict.fromkeys(bins, 0.0)
        for y, x in product(range(HEIGHT), range(WIDTH)):
            cell = int(cells[y, x])
            counts[cell // BINS**2, cell // BINS % BINS, cell % BINS] += float(probs[c, y, x])
        smooth = dict.fromkeys(bins, 0.0)
        for at, other in product(bins, bins):
            steps = [a - b for a, b in zip(at, other, strict=True)]
            if max(map(abs, steps)) <= 3:
                smooth[at] += counts[other] * math.prod(weights[step + 3] for step in steps)
        total = sum(smooth.values())
        logs[c] = [math.log(smooth[one] / total + 1e-5) for one in bins]
    expected = 0.7 * np.maximum(logs - logs.max(axis=0), -2.0)
    assert (expected < -0.7 * 1.9).any()
    np.testing.assert_allclose(model.evidence(cells).numpy(), expected[:, cells.numpy()], atol=1e-4)


def test_a_frame_on_which_objects_begin_leaves_the_earlier_ones_as_they_were():
    model = ColorModel(ColorModelConfig(weight=1.0, bins=BINS))
    first, second = (colour_cells(random_image(seed), BINS) for seed in (0, 1))
    model.learn(first, soft_masks(2), 1)
    early = model._histograms.clone()
    model.learn(second, soft_masks(3, seed=1), 2)
    alone = ColorModel(ColorModelConfig(weight=1.0, bins=BINS))
    alone.learn(second, soft_masks(3, seed=1), 1)
    torch.testing.assert_close(model._histograms, torch.stack([alone._histograms[0], early[1], alone._histograms[2]]))


def test_colours_that_say_nothing_leave_the_refinement_alone():
    """With a limit near 0 the masks are those without colours, with a usual one they are others."""
    refinement, probs, image = CrfRefinementConfig(iterations=2, weight=3.0), soft_masks(2), painted(RED, BLUE)
    plain, mute, loud = (
        CrfRefiner(refinement, colour)(probs, image, as_frame(image), strokes_on(1, 0))
        for colour in (ColorModelConfig(), ColorModelConfig(weight=1.0, limit=1e-6), ColorModelConfig(weight=1.0))
    )
    torch.testing.assert_close(mute, plain, atol=1e-5, rtol=1e-5)
    assert (loud - plain).abs().max() > 0.1


def strokes_on(label_left: int, label_right: int) -> torch.Tensor:
    strokes = torch.full((HEIGHT, WIDTH), 255, dtype=torch.uint8)
    strokes[4:8, 2:6], strokes[4:8, 11:15] = label_left, label_right
    return strokes


@pytest.mark.parametrize("iterations", [0, 3])
def test_colours_of_the_first_frame_decide_where_the_network_does_not(iterations):
    """An undecided network: strokes on the first frame tell which colour is whose, there and when the object is
    elsewhere; a colour that was not there says nothing."""
    refined = CrfRefiner(CrfRefinementConfig(iterations=iterations), ColorModelConfig(weight=1.0, rounds=8))
    undecided = torch.full((2, HEIGHT, WIDTH), 0.5)
    first, moved, strange = painted(RED, BLUE), painted(BLUE, RED, edge=5), painted(GREEN, GREEN)
    found = refined(undecided, first, as_frame(first), strokes_on(1, 0))
    assert (found[1, :, :9] > 0.8).all() and (found[1, :, 9:] < 0.2).all()
    found = refined(undecided, moved, as_frame(moved))
    assert (found[1, :, :5] < 0.2).all() and (found[1, :, 5:] > 0.8).all()
    found = refined(undecided, strange, as_frame(strange))
    torch.testing.assert_close(found, undecided)


def test_exchanged_objects_come_back_exchanged():
    image = painted(RED, BLUE)
    image[:4] = GREEN
    probs, settings = soft_masks(3), (CrfRefinementConfig(iterations=2), ColorModelConfig(weight=1.0))
    strokes = strokes_on(1, 2)
    plain, other = CrfRefiner(*settings), CrfRefiner(*settings)
    changed = torch.where(strokes == 255, strokes, 3 - strokes)
    for seed in (1, 2):
        probs, image = soft_masks(3, seed), image if seed == 1 else np.roll(image, 3, axis=1)
        given = (strokes, changed) if seed == 1 else (None, None)
        found = plain(probs, image, as_frame(image), given[0])
        exchanged = other(probs[[0, 2, 1]], image, as_frame(image), given[1])
        torch.testing.assert_close(exchanged, found[[0, 2, 1]], atol=1e-5, rtol=1e-4)
