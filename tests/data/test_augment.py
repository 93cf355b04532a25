"""Resizing and augmentation of scribbles: thin strokes survive, and unlabelled pixels are never labelled."""

import numpy as np
import pytest

from ssvos.config import AugmentConfig
from ssvos.data.augment import Variation, draw_variation, resize_frame, resize_scribble, split_strokes

IDENTITY = Variation(False, False, 1.0, 0.0, (0.0, 0.0), (1.0, 1.0, 1.0), 0.0)


def make_variation(**changes) -> Variation:
    return Variation(**(vars(IDENTITY) | changes))


def make_scribble(height: int = 60, width: int = 80) -> np.ndarray:
    scribble = np.full((height, width), 255, np.uint8)
    scribble[10:13, 8:50] = 1
    scribble[30:50, 60:63] = 2
    scribble[-5:-2, 5:70] = 0
    return scribble


@pytest.mark.parametrize("size", [(50, 37), (50, 60), (25, 40), (200, 20), (13, 11)])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_line_one_pixel_wide_survives_resizing_at_every_position(size, axis):
    """Also if one side shrinks and the other grows, as for a portrait video at a landscape size."""
    lost = []
    for position in range((200, 40)[axis]):
        scribble = np.full((200, 40), 255, np.uint8)
        scribble[(position, slice(None)) if axis == 0 else (slice(None), position)] = 1
        is_complete = (resize_scribble(scribble, *size) == 1).any(axis=axis).all()
        if not is_complete:
            lost.append(position)
    assert not lost


@pytest.mark.parametrize("size", [(30, 40), (45, 61), (20, 23), (90, 40), (120, 160), (97, 131)])
def test_resizing_labels_only_pixels_that_a_stroke_touches(size):
    scribble = make_scribble()
    resized = resize_scribble(scribble, *size)
    rows, columns = scribble.shape[0] / size[0], scribble.shape[1] / size[1]
    for y, x in np.argwhere(resized != 255):
        # the pixels of the original that this pixel covers, and one more on each side for rounding
        covered = scribble[
            max(0, int(y * rows) - 1) : int(np.ceil((y + 1) * rows)) + 1,
            max(0, int(x * columns) - 1) : int(np.ceil((x + 1) * columns)) + 1,
        ]
        assert resized[y, x] in covered
    assert set(np.unique(resized)) == {0, 1, 2, 255}


def test_halving_gives_a_pixel_the_label_that_covers_most_of_it():
    scribble = np.array(
        [[255, 255, 255, 1, 0, 0], [255, 255, 255, 255, 0, 1], [2, 2, 255, 1, 1, 1], [255, 0, 255, 1, 0, 1]],
        dtype=np.uint8,
    )
    assert resize_scribble(scribble, 2, 3).tolist() == [[255, 1, 0], [2, 1, 1]]


def test_doubling_repeats_every_pixel():
    scribble = make_scribble()
    np.testing.assert_array_equal(resize_scribble(scribble, 120, 160), scribble.repeat(2, axis=0).repeat(2, axis=1))


def test_the_same_size_and_an_unlabelled_scribble_change_nothing():
    scribble, blank = make_scribble(), np.full((60, 80), 255, np.uint8)
    np.testing.assert_array_equal(resize_scribble(scribble, 60, 80), scribble)
    assert resize_scribble(blank, 30, 20).tolist() == np.full((30, 20), 255).tolist()


def test_frames_shrink_by_averaging():
    frame = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    expected = frame.reshape(2, 2, 3, 2, 3).mean(axis=(1, 3))
    assert np.abs(resize_frame(frame, 2, 3) - expected).max() <= 1
    assert resize_frame(frame, 4, 6) is frame


def test_flipping_the_input_flips_the_output():
    frame = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    flip = make_variation(flip=True)
    np.testing.assert_array_equal(flip.scribble(make_scribble()), make_scribble()[:, ::-1])
    np.testing.assert_array_equal(flip.frame(frame), frame[:, ::-1])
    for warp in (make_variation(scale=1.3, shift=(0.05, -0.1)), make_variation(rotation=20.0)):
        both = Variation(**(vars(warp) | {"flip": True}))
        np.testing.assert_array_equal(both.scribble(make_scribble()), warp.scribble(make_scribble()[:, ::-1]))
        np.testing.assert_array_equal(both.frame(frame), warp.frame(frame[:, ::-1]))


def test_the_identity_variation_changes_nothing():
    frame = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    np.testing.assert_array_equal(IDENTITY.frame(frame), frame)
    np.testing.assert_array_equal(IDENTITY.scribble(make_scribble()), make_scribble())


def test_pixels_from_outside_the_frame_are_unlabelled():
    all_labelled = np.zeros((60, 80), np.uint8)
    all_labelled[20:40, 30:50] = 1
    smaller = make_variation(scale=0.5).scribble(all_labelled)
    assert (smaller[:12] == 255).all() and (smaller[:, :16] == 255).all()
    assert (smaller[-12:] == 255).all() and (smaller[:, -16:] == 255).all()
    assert set(np.unique(smaller[20:40, 28:52])) == {0, 1}
    bright = np.full((60, 80, 3), 200, np.uint8)  # frames are reflected at the border, not filled with black
    assert (make_variation(scale=0.5).frame(bright) == 200).all()
    rotated = make_variation(rotation=45.0).scribble(all_labelled)
    assert rotated[0, 0] == rotated[0, -1] == rotated[-1, 0] == rotated[-1, -1] == 255


@pytest.mark.parametrize(
    "warp", [make_variation(scale=1.7), make_variation(rotation=30.0), make_variation(scale=1.2, shift=(0.1, 0.05))]
)
def test_a_warped_stroke_lies_on_the_warped_image_of_its_object(warp):
    """The stroke is painted into the frame: where the warped scribble is object, the warped frame has its colour."""
    scribble = make_scribble()
    frame = np.zeros((60, 80, 3), np.uint8)
    frame[scribble == 1] = 200
    moved, image = warp.scribble(scribble), warp.frame(frame)
    assert (moved == 1).sum() > 50
    assert (image[moved == 1] >= 0.2 * 200).all()
    assert (image[moved == 0] < 100).all()


def test_colour_changes_frames_only():
    tinted = make_variation(gain=(2.0, 1.0, 0.5), offset=10.0)
    frame = np.full((2, 2, 3), 100, np.uint8)
    assert tinted.frame(frame)[0, 0].tolist() == [210, 110, 60]
    np.testing.assert_array_equal(tinted.scribble(make_scribble()), make_scribble())


def test_a_changed_parameter_does_not_change_the_other_draws():
    wide = AugmentConfig(flip=0.5, reverse=0.5, scale_min=0.8, scale_max=1.5, rotation=30.0, color=0.4)
    for changed in (
        {"flip": 0.0},
        {"reverse": 0.0},
        {"scale_max": 2.5},
        {"rotation": 0.0},
        {"color": 0.0},
    ):
        for seed in range(20):
            rng, other_rng = (np.random.default_rng(seed) for _ in range(2))
            one = draw_variation(wide, rng)
            other = draw_variation(wide.model_copy(update=changed), other_rng)
            assert rng.random() == other_rng.random()
            name = next(iter(changed)).split("_")[0]
            own = {"color": {"gain", "offset"}, "scale": {"scale", "shift"}}.get(name, {name})
            assert all(vars(one)[f] == vars(other)[f] for f in vars(one).keys() - own)


def test_draws_lie_in_their_ranges_and_flips_have_the_configured_frequency():
    config = AugmentConfig(flip=0.3, scale_min=0.5, scale_max=2.0, rotation=15.0, color=0.2)
    draws = [draw_variation(config, np.random.default_rng(seed)) for seed in range(500)]
    assert 0.24 < np.mean([d.flip for d in draws]) < 0.36
    assert not any(d.reverse for d in draws)
    assert all(0.5 <= d.scale <= 2.0 and abs(d.rotation) <= 15.0 for d in draws)
    assert 0.4 < np.mean([d.scale > 1 for d in draws]) < 0.6  # larger as often as smaller
    assert all(0.9 <= g <= 1.1 for d in draws for g in d.gain)
    plain = draw_variation(AugmentConfig(flip=0.0), np.random.default_rng(0))
    assert plain == IDENTITY


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.9])
def test_selected_strokes_are_a_part_of_all_strokes_with_every_label(share):
    scribble = np.where(make_scribble() == 2, 255, make_scribble()).astype(np.uint8)
    for seed in range(10):
        selected = split_strokes(scribble, share, np.random.default_rng(seed))
        labelled = selected != 255
        np.testing.assert_array_equal(selected[labelled], scribble[labelled])
        assert set(np.unique(selected)) == {0, 1, 255}
        assert labelled.sum() < (scribble != 255).sum()


def test_strokes_are_selected_by_cell_and_completely_at_share_one():
    scribble = np.full((32, 64), 255, np.uint8)
    scribble[4, :] = 1  # four cells
    selected = split_strokes(scribble, 0.5, np.random.default_rng(0))
    by_cell = (selected[4].reshape(4, 16) == 1).sum(axis=1)
    assert sorted(by_cell.tolist()) == [0, 0, 16, 16]
    np.testing.assert_array_equal(split_strokes(scribble, 1.0, np.random.default_rng(0)), scribble)
    blank = np.full((32, 64), 255, np.uint8)
    np.testing.assert_array_equal(split_strokes(blank, 0.5, np.random.default_rng(0)), blank)


def test_a_cutout_has_one_colour_is_unlabelled_and_differs_between_frames():
    rng = np.random.default_rng(0)
    frame, labels = rng.integers(0, 256, (60, 80, 3), np.uint8), np.ones((60, 80), np.uint8)
    variation = draw_variation(AugmentConfig(flip=0.0, cutout=1.0), np.random.default_rng(1), length=4)
    windows = set()
    for number in range(4):
        cut = variation.scribble(labels, number) == 255
        rows, columns = np.flatnonzero(cut.any(axis=1)), np.flatnonzero(cut.any(axis=0))
        assert cut.sum() == len(rows) * len(columns) and 0.005 < cut.mean() < 0.13
        varied = variation.frame(frame, number)
        assert len(np.unique(varied[cut], axis=0)) == 1 and np.array_equal(varied[~cut], frame[~cut])
        windows.add((rows[0], columns[0]))
    assert len(windows) == 4
    assert labels.all() and frame.std() > 60  # the arguments are unchanged


def test_the_share_of_frames_with_a_cutout_is_the_configured_one():
    plain = draw_variation(AugmentConfig(), np.random.default_rng(0), length=400)
    half = draw_variation(AugmentConfig(cutout=0.5), np.random.default_rng(0), length=400)
    assert not plain.cutout and 160 < sum(map(bool, half.cutout)) < 240


def test_shear_blur_and_cutout_change_no_other_draw():
    strong = AugmentConfig(shear=0.3, blur=2.0, cutout=0.5)
    for config in (AugmentConfig(), strong):
        rng = np.random.default_rng(3)
        draw_variation(config, rng, length=5)
        assert rng.random() == pytest.approx(np.random.default_rng(3).random(11)[10], abs=0)
    one, other = (draw_variation(config, np.random.default_rng(3)) for config in (AugmentConfig(), strong))
    assert (one.flip, one.scale, one.gain) == (other.flip, other.scale, other.gain) and other.shear != 0


def test_strokes_of_a_sheared_clip_move_with_its_pixels():
    frame = np.zeros((60, 80, 3), np.uint8)
    frame[20:40, 38:42] = 255
    labels = np.where(frame[..., 0] > 0, 1, 255).astype(np.uint8)
    variation = make_variation(shear=0.5)
    bright, strokes = variation.frame(frame)[..., 0] > 128, variation.scribble(labels) == 1
    assert (bright & ~strokes).sum() <= 0.05 * bright.sum() and strokes.sum() < 1.4 * bright.sum()
    top, bottom = (np.flatnonzero(bright[row]).mean() for row in (22, 37))
    assert bottom - top == pytest.approx(0.5 * 15, abs=1.0)
    assert np.flatnonzero(bright[30]).mean() == pytest.approx(39.5, abs=1.0)  # sheared about the centre


def test_blur_preserves_the_mean_and_lowers_the_contrast():
    frame = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    variation = make_variation(blur=2.0)
    blurred = variation.frame(frame).astype(float)
    assert blurred.std() < 0.3 * frame.std() and blurred.mean() == pytest.approx(frame.mean(), abs=1.5)
