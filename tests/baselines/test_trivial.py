"""The baselines without training: empty masks, the first mask copied, GrabCut with optical flow."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from ssvos.baselines.grabcut_flow import segment_first, warp_mask
from ssvos.baselines.trivial import copy_first, empty, grabcut_flow
from ssvos.labels import read_labels

SHAPE = (72, 112)


def _smooth(seed: int, color: tuple[int, int, int]) -> np.ndarray:
    """A texture around one color, twice the frame's size, (2H, 2W, 3) float."""
    rng = np.random.default_rng(seed)
    waves = cv2.GaussianBlur(rng.normal(0, 1, (2 * SHAPE[0], 2 * SHAPE[1])), (0, 0), 1.5)
    return np.array(color) + 90 * waves[..., None]


def _scene(num_frames: int, step: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Frames and masks of two textured squares that move right by `step` pixels per frame on a static background."""
    background, red, blue = _smooth(0, (110, 110, 110)), _smooth(1, (190, 70, 60)), _smooth(2, (60, 80, 190))
    frames, masks = [], []
    for t in range(num_frames):
        frame, mask = background[: SHAPE[0], : SHAPE[1]].copy(), np.zeros(SHAPE, np.uint8)
        for label, texture, top, left in ((1, red, 10, 14), (2, blue, 42, 30)):
            rows, columns = slice(top, top + 22), slice(left + step * t, left + step * t + 22)
            frame[rows, columns] = texture[:22, :22]
            mask[rows, columns] = label
        frames.append(np.clip(frame, 0, 255).astype(np.uint8))
        masks.append(mask)
    return frames, masks


def _scribble(mask: np.ndarray) -> np.ndarray:
    """A line through each square, and a frame of background strokes."""
    scribble = np.full(SHAPE, 255, np.uint8)
    scribble[3:5, 3:-3] = scribble[-5:-3, 3:-3] = scribble[3:-3, 3:5] = scribble[3:-3, -5:-3] = 0
    for label in (1, 2):
        rows, columns = np.nonzero(mask == label)
        scribble[rows.min() + 10 : rows.min() + 12, columns.min() + 4 : columns.max() - 3] = label
    return scribble


def _jaccard(truth: np.ndarray, predicted: np.ndarray) -> float:
    return float((truth & predicted).sum() / (truth | predicted).sum())


def test_empty_has_no_object_in_any_frame() -> None:
    predictions = list(empty(np.full((4, 5), 3, np.uint8), 3))
    assert len(predictions) == 3
    assert all(a.shape == (4, 5) and a.dtype == np.uint8 and not a.any() for a in predictions)


def test_copy_first_yields_independent_copies_of_the_mask() -> None:
    mask = np.array([[0, 1], [2, 255]], np.uint8)
    predictions = list(copy_first(mask, 3))
    predictions[0][:] = 9
    assert len(predictions) == 3
    np.testing.assert_array_equal(predictions[2], [[0, 1], [2, 0]])


def test_warp_mask_reads_labels_at_the_positions_that_the_flow_points_to() -> None:
    mask = np.zeros((6, 8), np.uint8)
    mask[1:3, 1:4] = 1
    mask[4, 5:7] = 2
    flow = np.zeros((6, 8, 2), np.float32)
    flow[..., 0] = -1  # this frame's content was one pixel further left
    expected = np.zeros_like(mask)
    expected[:, 1:] = mask[:, :-1]
    np.testing.assert_array_equal(warp_mask(mask, flow), expected)


def test_warp_mask_fills_pixels_from_outside_the_frame_with_background() -> None:
    flow = np.full((4, 4, 2), 0, np.float32)
    flow[..., 0] = 3
    warped = warp_mask(np.ones((4, 4), np.uint8), flow)
    np.testing.assert_array_equal(warped, np.repeat([[1, 0, 0, 0]], 4, axis=0))


def test_grabcut_segments_both_objects_and_flow_tracks_them() -> None:
    frames, masks = _scene(num_frames=8, step=3)
    predictions = list(grabcut_flow(iter(frames), _scribble(masks[0])))
    assert len(predictions) == 8 and predictions[0].shape == SHAPE and predictions[0].dtype == np.uint8
    for label in (1, 2):
        assert _jaccard(masks[0] == label, predictions[0] == label) > 0.85
        assert _jaccard(masks[7] == label, predictions[7] == label) > 0.7
        assert _jaccard(masks[0] == label, masks[7] == label) < 0.1, (
            "the objects must move for the test to mean anything"
        )


def test_stroke_pixels_keep_their_labels_in_the_first_frame() -> None:
    frames, masks = _scene(1, 0)
    scribble = _scribble(masks[0])
    predicted = segment_first(frames[0], scribble)
    known = scribble != 255
    np.testing.assert_array_equal(predicted[known], scribble[known])


def test_strokes_of_one_pixel_survive_when_grabcut_works_on_a_smaller_frame() -> None:
    frames, masks = _scene(1, 0)
    scale = 12
    frame = cv2.resize(frames[0], None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    truth = np.kron(masks[0], np.ones((scale, scale), np.uint8))
    scribble = np.full(truth.shape, 255, np.uint8)
    scribble[40, 40:-40] = scribble[-40, 40:-40] = scribble[40:-40, 40] = scribble[40:-40, -40] = 0
    for label in (1, 2):
        rows, columns = np.nonzero(truth == label)
        scribble[rows.min() + 130, columns.min() + 40 : columns.max() - 40] = label
    predicted = segment_first(frame, scribble)
    assert all(_jaccard(truth == label, predicted == label) > 0.6 for label in (1, 2))


def test_the_masks_of_a_video_do_not_depend_on_earlier_calls() -> None:
    frames, masks = _scene(3, 3)
    scribble = _scribble(masks[0])
    first = list(grabcut_flow(frames, scribble))
    cv2.setRNGSeed(99)
    np.testing.assert_array_equal(first, list(grabcut_flow(frames, scribble)))


def test_swapping_the_ids_swaps_the_masks() -> None:
    frames, masks = _scene(3, 3)
    swap = np.arange(256, dtype=np.uint8)
    swap[[1, 2]] = [2, 1]
    scribble = _scribble(masks[0])
    plain = np.stack(list(grabcut_flow(frames, scribble)))
    np.testing.assert_array_equal(swap[plain], list(grabcut_flow(frames, swap[scribble])))


def test_frames_are_read_one_at_a_time() -> None:
    frames, masks = _scene(3, 3)
    read = []
    predictions = grabcut_flow((read.append(t) or frame for t, frame in enumerate(frames)), _scribble(masks[0]))
    next(predictions)
    assert read == [0]


@pytest.mark.parametrize("value", [0, 255])
def test_a_scribble_without_objects_gives_background(value: int) -> None:
    frames, _ = _scene(2, 3)
    assert not np.any(list(grabcut_flow(frames, np.full(SHAPE, value, np.uint8))))


def test_a_scribble_without_background_strokes_still_segments_its_object() -> None:
    frames, _ = _scene(2, 0)
    scribble = np.full(SHAPE, 255, np.uint8)
    scribble[18:24, 18:30] = 1
    predictions = list(grabcut_flow(frames, scribble))
    assert (predictions[0][18:24, 18:30] == 1).all()


def test_an_object_stroke_over_the_whole_frame_gives_the_whole_frame() -> None:
    frames, _ = _scene(1, 0)
    assert (next(grabcut_flow(frames, np.ones(SHAPE, np.uint8))) == 1).all()


def test_a_frame_of_another_size_than_its_scribble_raises_an_error() -> None:
    frames, masks = _scene(1, 0)
    with pytest.raises(ValueError, match=r"frame is \(70, 112, 3\), its scribble \(72, 112\)"):
        list(grabcut_flow([frames[0][:70]], _scribble(masks[0])))


def test_a_real_clip_is_tracked() -> None:
    root = os.environ.get("SSVOS_REAL_DATA")
    if not root:
        pytest.skip("SSVOS_REAL_DATA is unset: no real clips to test")
    images = sorted(Path(root, "davis/JPEGImages/480p/bus").glob("*.jpg"))[:12]
    masks = [read_labels(p) for p in sorted(Path(root, "davis/Annotations/480p/bus").glob("*.png"))[:12]]
    core = cv2.erode(masks[0], np.ones((41, 41), np.uint8))
    around = cv2.dilate(masks[0], np.ones((41, 41), np.uint8))
    scribble = np.where(core > 0, 1, np.where(around > 0, 255, 0)).astype(np.uint8)
    frames = (cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) for path in images)
    *_, last = grabcut_flow(frames, scribble)
    assert _jaccard(masks[-1] == 1, last == 1) > 0.8
