"""Label propagation: moving objects are followed, objects may begin late, and what is stored does not grow."""

import cv2
import numpy as np
import pytest
import torch

from ssvos.baselines import label_propagation
from ssvos.baselines.label_propagation import FRAMES, LabelPropagation
from ssvos.config import RoiConfig

HEIGHT, WIDTH = 96, 160
COLORS = {1: (200, 60, 40), 2: (40, 90, 210)}


def disk(row: int, column: int, radius: int = 16) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (y - row) ** 2 + (x - column) ** 2 <= radius**2


def scene(step: int) -> np.ndarray:
    """Object 1 moves to the right at the top, object 2 to the left at the bottom; (H, W) of ids."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[disk(26, 40 + 3 * step)] = 1
    mask[disk(70, 120 - 3 * step)] = 2
    return mask


def picture(mask: np.ndarray) -> np.ndarray:
    """Colored objects on a grey texture."""
    noise = cv2.GaussianBlur(np.random.default_rng(1).normal(0, 40, (HEIGHT, WIDTH)), (0, 0), 2.0)
    image = np.full((HEIGHT, WIDTH, 3), 120.0) + noise[..., None]
    for label, color in COLORS.items():
        image[mask == label] = np.array(color) + 0.5 * noise[mask == label][:, None]
    return np.clip(image, 0, 255).astype(np.uint8)


def strokes(mask: np.ndarray, *labels: int) -> np.ndarray:
    """A stroke along the middle of each object, and background strokes above, below and beside it."""
    scribble = np.full(mask.shape, 255, np.uint8)
    for label in labels:
        rows, columns = np.nonzero(mask == label)
        top, bottom, left, right = rows.min() - 6, rows.max() + 4, max(0, columns.min() - 8), columns.max() + 6
        scribble[top : top + 2, left : right + 2] = scribble[bottom : bottom + 2, left : right + 2] = 0
        scribble[top:bottom, left : left + 2] = scribble[top:bottom, right : right + 2] = 0
        row = int(rows.mean())
        scribble[row - 1 : row + 2, columns.min() + 4 : columns.max() - 3] = label
    return scribble


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def test_two_moving_objects_are_followed():
    propagate = LabelPropagation()
    for step in range(6):
        truth = scene(step)
        mask = propagate(picture(truth), None if step else strokes(truth, 1, 2))
        assert mask.dtype == np.uint8 and mask.shape == truth.shape
        for label in (1, 2):
            assert overlap(mask == label, truth == label) > 0.75, (step, label)


def test_an_object_may_begin_late_and_leaves_the_earlier_one_alone():
    propagate = LabelPropagation()
    for step in range(6):
        truth = scene(step)
        late = strokes(truth, 2) if step == 3 else None
        mask = propagate(picture(truth), late if step else strokes(truth, 1))
        assert set(np.unique(mask)) == ({0, 1} if step < 3 else {0, 1, 2})
        assert overlap(mask == 1, truth == 1) > 0.7
        assert step < 3 or overlap(mask == 2, truth == 2) > 0.7


def test_the_same_input_gives_the_same_masks():
    first, second = ([LabelPropagation()(picture(scene(0)), strokes(scene(0), 1, 2))] for _ in range(2))
    assert np.array_equal(first[0], second[0])


def test_before_any_scribble_masks_are_empty():
    propagate = LabelPropagation()
    assert not propagate(picture(scene(0))).any()
    only_background = np.full((HEIGHT, WIDTH), 255, np.uint8)
    only_background[4, 4:] = 0
    assert not propagate(picture(scene(1)), only_background).any()
    assert propagate(picture(scene(2)), strokes(scene(2), 1)).any()


def test_what_is_stored_does_not_grow_with_the_video():
    propagate = LabelPropagation()
    counts = []
    for step in range(4 * FRAMES):
        propagate(picture(scene(step % 6)), None if step else strokes(scene(0), 1))
        counts.append(len(propagate._firsts) + len(propagate._recent))
    assert max(counts) == 1 + FRAMES and counts[-1] == 1 + FRAMES


@pytest.mark.parametrize("shape", [(33, 47), (40, 200), (500, 60)])
def test_any_frame_size_works(shape):
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    scribble = np.full(shape, 255, np.uint8)
    scribble[10:12, 10:30], scribble[2, 2:30] = 1, 0
    propagate = LabelPropagation()
    assert propagate(image, scribble).shape == shape and propagate(image).shape == shape


def test_a_scribble_of_another_size_is_refused():
    with pytest.raises(ValueError, match="give both the same height and width"):
        LabelPropagation()(picture(scene(0)), np.full((HEIGHT, WIDTH + 1), 255, np.uint8))


def test_a_frame_of_another_size_than_the_previous_one_is_refused():
    propagate = LabelPropagation()
    propagate(picture(scene(0)), strokes(scene(0), 1))
    with pytest.raises(ValueError, match="give all the same size"):
        propagate(picture(scene(1))[:-8])


def test_strokes_keep_their_label_in_the_stored_first_frame(monkeypatch):
    """A stroke of background across the object stays background there, whatever the classifier says."""
    monkeypatch.setattr(label_propagation, "ROI", RoiConfig())  # the whole frame, so that cells are easy to find
    propagate = LabelPropagation()
    truth = scene(0)
    scribble = strokes(truth, 1)
    scribble[18:26, 24:40] = 0
    propagate(picture(truth), scribble)
    labels = propagate._firsts[0].labels
    rows, columns = (size / cells for size, cells in zip((HEIGHT, WIDTH), labels.shape[-2:], strict=True))
    inside = labels[0, 0, int(20 / rows), int(30 / columns)]
    assert float(inside) == pytest.approx(1.0, abs=1e-5)
    assert torch.allclose(labels.sum(dim=1), torch.ones(1))


def test_small_frames_are_enlarged_at_most_twice(monkeypatch):
    sizes = []
    original = label_propagation.cell_keys
    monkeypatch.setattr(
        label_propagation, "cell_keys", lambda trunk, s: sizes.append(trunk.s8.shape) or original(trunk, s)
    )
    LabelPropagation()(picture(scene(0)), strokes(scene(0), 1))
    assert sizes[0][-2:] == (2 * HEIGHT // 8, 2 * WIDTH // 8)
