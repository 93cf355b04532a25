"""CRF refinement against a loop written from the equation, and its effect on masks."""

import math

import numpy as np
import pytest
import torch

from ssvos.config import ColorModelConfig, CrfRefinementConfig
from ssvos.inference.crf_refinement import CrfRefiner

HEIGHT, WIDTH, EDGE = 12, 16, 9


def refine(probs: torch.Tensor, frame: torch.Tensor, config: CrfRefinementConfig) -> torch.Tensor:
    """Refine without a color model, which alone uses the image."""
    return CrfRefiner(config, ColorModelConfig())(probs, np.empty(0), frame)


def two_color_frame() -> torch.Tensor:
    """(1, 3, 12, 16): red left of column 9, blue from there on, with noise."""
    generator = torch.Generator().manual_seed(0)
    frame = torch.zeros(1, 3, HEIGHT, WIDTH)
    frame[:, 0, :, :EDGE], frame[:, 2, :, EDGE:] = 0.8, 0.8
    return (frame + 0.02 * torch.rand(frame.shape, generator=generator)).clamp(0, 1)


def soft_masks(classes: int) -> torch.Tensor:
    """Noise with a bias towards class 1 on the red side and towards the last class on the blue side."""
    logits = 2 * torch.rand(classes, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    logits[1, :, :EDGE] += 0.8
    logits[-1, :, EDGE:] += 0.4
    return logits.softmax(dim=0)


def refined_by_loop(probs: np.ndarray, frame: np.ndarray, config: CrfRefinementConfig) -> np.ndarray:
    """The equation as a loop over all pairs of pixels."""
    height, width = frame.shape[1:]
    points = [(y, x) for y in range(height) for x in range(width)]
    refined = probs.copy()
    for _ in range(config.iterations):
        last = refined.copy()
        for y, x in points:
            total, message = 0.0, np.zeros(len(probs))
            for v, u in points:
                distance = ((y - v) ** 2 + (x - u) ** 2) / (config.sigma_xy * height) ** 2
                distance += (((frame[:, y, x] - frame[:, v, u]) * 255) ** 2).sum() / config.sigma_rgb**2
                affinity = math.exp(-distance / 2)
                total, message = total + affinity, message + affinity * last[:, v, u]
            weights = probs[:, y, x] * np.exp(config.weight * message / total)
            refined[:, y, x] = weights / weights.sum()
    return refined


@pytest.mark.parametrize("classes", [2, 3])
def test_refinement_is_the_mean_field_update_of_the_dense_crf(classes):
    config = CrfRefinementConfig(iterations=2, weight=3.0, sigma_xy=0.4, sigma_rgb=40.0)
    frame, probs = two_color_frame(), soft_masks(classes)
    expected = refined_by_loop(probs.numpy().astype(float), frame[0].numpy().astype(float), config)
    refined = refine(probs, frame, config).numpy()
    assert np.abs(expected - probs.numpy()).max() > 0.2
    np.testing.assert_allclose(refined, expected, atol=0.02)
    np.testing.assert_allclose(refined.sum(axis=0), 1, atol=1e-5)


def test_a_mask_that_extends_over_an_edge_is_moved_back_to_it():
    """The network's mask ends two columns beyond the edge of the colors."""
    foreground = torch.full((HEIGHT, WIDTH), 0.1)
    foreground[:, : EDGE + 2] = 0.7
    probs = refine(torch.stack([1 - foreground, foreground]), two_color_frame(), CrfRefinementConfig(iterations=5))
    assert (probs[1] > 0.5).sum(dim=1).tolist() == [EDGE] * HEIGHT


def test_refinement_without_iterations_changes_nothing():
    probs = soft_masks(2)
    assert refine(probs, two_color_frame(), CrfRefinementConfig()) is probs


def test_exchanging_objects_exchanges_their_masks():
    config, probs = CrfRefinementConfig(iterations=3), soft_masks(3)
    refined, exchanged = (refine(p, two_color_frame(), config) for p in (probs, probs[[0, 2, 1]]))
    torch.testing.assert_close(exchanged, refined[[0, 2, 1]])
