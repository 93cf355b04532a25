"""The scribble simulation against its description in III-E."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, label

from ssvos.config import ScribbleConfig
from ssvos.scribbles.simulate import scribble_rng, simulate_scribble, stroke_disk
from ssvos.scribbles.thinning import thin

CONFIG = ScribbleConfig()


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def blobs(seed: int) -> np.ndarray:
    """(120, 200) mask of three objects, one in two parts, with specks and unlabelled pixels."""
    generator = np.random.default_rng(seed)
    y, x = np.ogrid[:120, :200]
    mask = np.zeros((120, 200), dtype=np.uint8)
    for object_id in (1, 2, 3, 1):
        cy, cx, r = generator.integers(15, 105), generator.integers(15, 185), generator.integers(4, 25)
        mask[np.hypot(y - cy, (x - cx) * 0.7) < r] = object_id
    mask[generator.random(mask.shape) < 0.001] = 2
    mask[generator.random(mask.shape) < 0.01] = 255
    return mask


@pytest.mark.parametrize("seed", range(5))
def test_every_labelled_pixel_has_the_masks_label(seed):
    mask = blobs(seed)
    scribble = simulate_scribble(mask, rng(seed), CONFIG)
    labelled = scribble != 255
    assert 0.01 < labelled.mean() < 0.3
    np.testing.assert_array_equal(scribble[labelled], mask[labelled])


@pytest.mark.parametrize("seed", range(5))
def test_every_component_of_every_object_has_a_stroke(seed):
    mask = blobs(seed)
    scribble = simulate_scribble(mask, rng(seed), CONFIG)
    for object_id in (1, 2, 3):
        components, num = label(mask == object_id, np.ones((3, 3)))
        assert set(components[scribble == object_id]) == set(range(1, num + 1))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_small_object_that_thinning_removes_has_a_stroke(size):
    mask = np.zeros((40, 60), dtype=np.uint8)
    mask[10 : 10 + size, 20 : 20 + size] = 7
    assert (simulate_scribble(mask, rng(), ScribbleConfig(width=1)) == 7).any()


def test_strokes_computed_in_the_bounding_box_equal_those_of_the_whole_frame():
    mask = blobs(3)
    mask[mask == 255] = 0
    scribble = simulate_scribble(mask, rng(), CONFIG)
    for object_id in (1, 2, 3):
        region = mask == object_id
        whole = binary_dilation(thin(region), stroke_disk(5)) & region
        components, _ = label(region, np.ones((3, 3)))
        thinned = np.isin(components, np.unique(components[thin(region)])) & region
        np.testing.assert_array_equal((scribble == object_id) & thinned, whole & thinned)


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8])
def test_strokes_and_rectangle_have_the_configured_width_and_margin(width):
    mask = np.zeros((100, 200), dtype=np.uint8)
    mask[30:70, 40:160] = 1
    config = ScribbleConfig(width=width, margin_min=0.05, margin_max=0.05)
    scribble = simulate_scribble(mask, rng(), config)
    assert (scribble[:, 100] == 1).sum() == width
    # Two sides of the rectangle cross this column: 10 pixels (5 % of 200) above and below the object.
    rows = np.flatnonzero(scribble[:, 100] == 0)
    assert rows.tolist() == [*range(20 - width, 20), *range(80, 80 + width)]


@pytest.mark.parametrize("turns", range(4))
def test_a_side_of_the_rectangle_is_skipped_if_objects_touch_its_image_edge(turns):
    mask = np.zeros((100, 100), dtype=np.uint8)
    mask[:30, 40:60] = 1
    config = ScribbleConfig(margin_min=0.1, margin_max=0.1)
    scribble = np.rot90(simulate_scribble(np.rot90(mask, turns), rng(), config), -turns)
    # by hand: left, right and bottom sides, 10 pixels away; the first two reach the top edge
    expected = np.zeros((100, 100), dtype=bool)
    expected[:45, 25:30] = expected[:45, 70:75] = expected[40:45, 25:75] = True
    np.testing.assert_array_equal(scribble == 0, expected)


def test_a_side_outside_the_image_is_drawn_at_its_edge():
    mask = np.zeros((60, 100), dtype=np.uint8)
    mask[3:30, 40:60] = 1
    scribble = simulate_scribble(mask, rng(), ScribbleConfig(width=2, margin_min=0.1, margin_max=0.1))
    assert (scribble[:2, 30:70] == 0).all()


def test_objects_on_all_four_edges_still_have_background_strokes():
    mask = np.zeros((50, 80), dtype=np.uint8)
    mask[20:25], mask[:, 30:40] = 1, 1
    scribble = simulate_scribble(mask, rng(), CONFIG)
    assert (scribble == 0).any()
    assert (mask[scribble == 0] == 0).all()


def test_a_frame_without_objects_has_only_background_strokes():
    mask = np.zeros((50, 80), dtype=np.uint8)
    mask[:, ::2] = 255
    scribble = simulate_scribble(mask, rng(), CONFIG)
    assert set(np.unique(scribble)) == {0, 255}
    assert (scribble[:, ::2] == 255).all()


def test_an_unlabelled_mask_gives_an_unlabelled_scribble():
    mask = np.full((30, 30), 255, dtype=np.uint8)
    assert (simulate_scribble(mask, rng(), CONFIG) == 255).all()


def test_permuted_object_ids_permute_the_scribble():
    mask = blobs(1)
    permutation = np.arange(256, dtype=np.uint8)
    permutation[[1, 2, 3]] = 3, 1, 2
    scribble = simulate_scribble(mask, rng(), CONFIG)
    np.testing.assert_array_equal(simulate_scribble(permutation[mask], rng(), CONFIG), permutation[scribble])


def test_the_generator_depends_only_on_seed_sequence_and_frame():
    keys = [(0, "bear", "00000"), (1, "bear", "00000"), (0, "bea", "r00000"), (0, "bear", "00001")]
    draws = [scribble_rng(*key).random() for key in keys]
    assert len(set(draws)) == len(keys)
    assert [scribble_rng(*key).random() for key in reversed(keys)] == draws[::-1]
    assert draws[0] == 0.4030921602768339  # recorded: another value would change every published scribble
