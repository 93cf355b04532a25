"""GrabCut and optical flow as evidence for a network: against a loop, and the cases in which it has no weight."""

import cv2
import numpy as np
import pytest
import torch

from ssvos.baselines.grabcut_flow import GrabCutFlow, with_flow
from ssvos.baselines.trivial import grabcut_flow
from ssvos.config import FlowConfig

HEIGHT, WIDTH = 40, 64


def square(top: int, left: int, number: int = 1, side: int = 14) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top : top + side, left : left + side] = number
    return mask


def odds_of(*masks: np.ndarray, sure: float = 3.0) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.where(mask > 0, sure, -sure) for mask in masks])).float()


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (HEIGHT // 2, WIDTH // 2)])
def test_evidence_equals_a_slow_loop(shape):
    """For two objects, also with a mask twice as large as the log-odds."""
    config = FlowConfig(weight=2.5, agreement=0.7)
    rng = np.random.default_rng(0)
    mask = square(4, 6, 3) + square(20, 30, 7)
    odds = rng.normal(0, 2, (2, *shape)) + np.stack([6.0 * _block_means(mask == n, shape) - 3 for n in (7, 3)])
    result = with_flow(torch.from_numpy(odds), mask, [7, 3], config)
    for k, number in enumerate((7, 3)):
        share = _block_means(mask == number, shape)
        common = either = 0
        for y in range(shape[0]):
            for x in range(shape[1]):
                in_network, in_flow = odds[k, y, x] > 0, share[y, x] > 0.5
                common, either = common + (in_network and in_flow), either + (in_network or in_flow)
        weight = 2.5 * min(1.0, common / either / 0.7)
        assert weight > 0
        expected = odds[k] + weight * (2 * share - 1)
        torch.testing.assert_close(result[k], torch.from_numpy(expected), rtol=1e-6, atol=1e-6)


def _block_means(plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Means of the blocks of pixels that give `shape`."""
    rows, columns = HEIGHT // shape[0], WIDTH // shape[1]
    return plane.astype(float).reshape(shape[0], rows, shape[1], columns).mean(axis=(1, 3))


def test_evidence_has_full_weight_if_the_masks_agree_and_none_if_they_are_disjoint():
    odds = odds_of(square(4, 6))
    config = FlowConfig(weight=2.0)
    assert with_flow(odds, square(4, 6), [1], config).abs().eq(5.0).all()
    for lost in (square(20, 40), np.zeros((HEIGHT, WIDTH), np.uint8), square(4, 6, number=2)):
        assert torch.equal(with_flow(odds, lost, [1], config), odds)
    nothing = odds_of(np.zeros((HEIGHT, WIDTH), np.uint8))
    assert torch.equal(with_flow(nothing, square(4, 6), [1], config), nothing)


def textured(masks: list[np.ndarray], colors: dict[int, tuple]) -> list[np.ndarray]:
    """Frames on which each object has its own color and a texture that moves with it."""
    rng = np.random.default_rng(1)
    noise = cv2.GaussianBlur(rng.normal(0, 60, (HEIGHT, WIDTH)), (0, 0), 1.5)
    frames = []
    for step, mask in enumerate(masks):
        image = np.full((HEIGHT, WIDTH, 3), 110.0) + noise[..., None]
        for number, color in colors.items():
            image[mask == number] = np.array(color) + np.roll(noise, step, axis=1)[mask == number][:, None]
        frames.append(np.clip(image, 0, 255).astype(np.uint8))
    return frames


def strokes(mask: np.ndarray, *numbers: int) -> np.ndarray:
    scribble = np.full((HEIGHT, WIDTH), 255, np.uint8)
    scribble[1:3, 2:-2] = scribble[-3:-1, 2:-2] = scribble[2:-2, 1:3] = scribble[2:-2, -3:-1] = 0
    for number in numbers:
        rows, columns = np.nonzero(mask == number)
        scribble[rows.min() + 6 : rows.min() + 8, columns.min() + 2 : columns.max() - 1] = number
    return scribble


def test_a_later_object_is_added_and_the_earlier_one_is_kept():
    masks = [square(4, 6 + t, 1) + square(22, 30 + t, 2) for t in range(5)]
    frames = textured(masks, {1: (220, 60, 60), 2: (60, 80, 220)})
    segmenter = GrabCutFlow()
    predicted = [
        segmenter(frame, {0: strokes(masks[0], 1), 2: strokes(masks[2], 2)}.get(t)) for t, frame in enumerate(frames)
    ]
    assert [sorted(set(np.unique(mask)) - {0}) for mask in predicted] == [[1], [1], [1, 2], [1, 2], [1, 2]]
    for number in (1, 2):
        own, true = predicted[4] == number, masks[4] == number
        assert (own & true).sum() / (own | true).sum() > 0.7
    alone = list(grabcut_flow(frames[:2], strokes(masks[0], 1)))
    np.testing.assert_array_equal(predicted[:2], alone)


def test_a_frame_of_another_size_raises_an_error_with_both_sizes():
    segmenter = GrabCutFlow()
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    with pytest.raises(ValueError, match=r"its scribble \(4, 4\)"):
        segmenter(frame, np.zeros((4, 4), np.uint8))
    segmenter(frame, strokes(square(4, 6), 1))
    with pytest.raises(ValueError, match=r"frame is \(50, 64\), the previous frame \(40, 64\)"):
        segmenter(np.zeros((50, 64, 3), np.uint8))
