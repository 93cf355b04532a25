"""The region of interest surrounds the objects, keeps the frame's proportions and stays inside the frame."""

import numpy as np
import pytest

from ssvos.config import RoiConfig
from ssvos.data.roi import FollowingRoi, Roi

SHAPE = (100, 200)
CONFIG = RoiConfig(margin=0.5, stroke_margin=1.0, smallest=0.2)


def plane(top: int, bottom: int, left: int, right: int, label: int = 1, rest: int = 0) -> np.ndarray:
    labels = np.full(SHAPE, rest, np.uint8)
    labels[top:bottom, left:right] = label
    return labels


def test_the_region_of_strokes_and_of_masks_computed_by_hand():
    following = FollowingRoi(CONFIG)
    # strokes of 16x16: a margin of 16 on each side gives 48x48, and 0.48 of the height is the larger share
    strokes = plane(42, 58, 92, 108, rest=255)
    assert following.of_frame(SHAPE, None, strokes) == Roi(26, 74, 52, 148)
    # a mask of 20x20 at (60, 100): 40x40 with its margin, so 0.4; half of the way from the first region, 0.44
    assert following.of_frame(SHAPE, plane(50, 70, 90, 110), None) == Roi(33, 77, 56, 144)


def test_without_a_margin_the_region_is_the_whole_frame():
    following = FollowingRoi(RoiConfig())
    assert following.of_frame(SHAPE, None, plane(40, 60, 90, 110, rest=255)) == Roi(0, 100, 0, 200)


def test_the_region_follows_an_object_into_the_corner_and_stays_inside_the_frame():
    following = FollowingRoi(CONFIG)
    following.of_frame(SHAPE, None, plane(45, 55, 95, 105, rest=255))
    for _ in range(20):
        roi = following.of_frame(SHAPE, plane(0, 10, 190, 200), None)
    assert (roi.top, roi.right) == (0, 200) and roi.shape == (20, 40)


def test_all_objects_are_surrounded_those_that_begin_too():
    following = FollowingRoi(CONFIG)
    first = following.of_frame(SHAPE, None, plane(10, 16, 20, 26, rest=255))
    second = following.of_frame(SHAPE, plane(10, 20, 20, 30), plane(80, 86, 160, 166, label=2, rest=255))
    assert first.shape == (20, 40)
    assert second.top <= 10 and second.left <= 20 and second.bottom >= 86 and second.right >= 166


def test_the_region_grows_to_the_whole_frame_while_no_object_is_visible():
    following = FollowingRoi(CONFIG)
    areas = [np.prod(following.of_frame(SHAPE, None, plane(45, 55, 95, 105, rest=255)).shape)]
    for _ in range(12):
        areas.append(np.prod(following.of_frame(SHAPE, np.zeros(SHAPE, np.uint8), None).shape))
    assert areas[0] < 0.1 * areas[-1] and areas == sorted(areas) and areas[-1] == 100 * 200


def test_background_strokes_outside_the_region_of_the_objects_strokes_make_it_the_whole_frame():
    strokes = plane(45, 55, 95, 105, rest=255)
    strokes[2, :] = 0
    assert FollowingRoi(CONFIG).of_frame(SHAPE, None, strokes) == Roi(0, 100, 0, 200)
    strokes[40, 90:110] = 0
    assert FollowingRoi(CONFIG).of_frame(SHAPE, None, strokes).shape == (30, 60)


@pytest.mark.parametrize("seed", range(5))
def test_a_mask_of_the_region_is_pasted_where_it_was_cropped(seed):
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 3, SHAPE).astype(np.uint8)
    top, left = rng.integers(0, 50, 2).tolist()
    roi = Roi(top, top + 40, left, left + 80)
    pasted = roi.paste(roi.crop(mask), SHAPE)
    outside = pasted.copy()
    roi.crop(outside)[:] = 0
    assert np.array_equal(roi.crop(pasted), roi.crop(mask)) and not outside.any()


def test_regions_of_any_masks_have_the_frames_proportions_and_stay_inside_it():
    rng = np.random.default_rng(0)
    following = FollowingRoi(CONFIG)
    for _ in range(50):
        top, left = rng.integers(0, 70), rng.integers(0, 170)
        roi = following.of_frame(SHAPE, plane(top, top + rng.integers(1, 30), left, left + rng.integers(1, 30)), None)
        height, width = roi.shape
        assert abs(width - 2 * height) <= 3
        assert 0 <= roi.top < roi.bottom <= 100 and 0 <= roi.left < roi.right <= 200


def test_a_point_of_the_region_is_found_in_another_region():
    old, new = Roi(10, 50, 20, 100), Roi(20, 40, 60, 100)
    move = new.move_from(old)
    for axis, (start, side, old_start, old_side) in enumerate([(20, 20, 10, 40), (60, 40, 20, 80)]):
        for share in (0.0, 0.3, 1.0):
            old_share = move.scale[axis] * share + move.offset[axis]
            assert old_start + old_share * old_side == pytest.approx(start + share * side)
