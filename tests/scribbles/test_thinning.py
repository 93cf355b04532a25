"""Thinning against a slow loop over Zhang and Suen's two rules."""

import numpy as np
import pytest
from scipy.ndimage import binary_opening, label

from ssvos.scribbles.thinning import thin

RING = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


def slow_thin(region: np.ndarray) -> np.ndarray:
    image = np.pad(region, 1).astype(int)
    changed = True
    while changed:
        changed = False
        for is_first in (True, False):
            removable = []
            for y, x in np.argwhere(image):
                ring = [image[y + dy, x + dx] for dy, dx in RING]
                runs = sum(a == 0 and b == 1 for a, b in zip(ring, ring[1:] + ring[:1], strict=True))
                north, east, south, west = ring[0::2]
                first = north * east * south == 0 and east * south * west == 0
                second = north * east * west == 0 and north * south * west == 0
                if runs == 1 and 2 <= sum(ring) <= 6 and (first if is_first else second):
                    removable.append((y, x))
            for y, x in removable:
                image[y, x] = 0
            changed |= bool(removable)
    return image[1:-1, 1:-1].astype(bool)


@pytest.mark.parametrize("seed", range(8))
def test_thinning_equals_the_published_rules(seed):
    rng = np.random.default_rng(seed)
    shape = (rng.integers(5, 40), rng.integers(55, 140))  # one to three machine words per row
    region = binary_opening(rng.random(shape) < 0.85, iterations=1) | (rng.random(shape) < 0.1)
    np.testing.assert_array_equal(thin(region), slow_thin(region))


def test_a_bar_becomes_a_line_one_pixel_high():
    bar = np.zeros((20, 90), dtype=bool)
    bar[5:12, 10:80] = True
    assert thin(bar)[:, 20:70].sum(axis=0).tolist() == [1] * 50


def test_thinning_preserves_the_number_of_components_and_holes():
    y, x = np.ogrid[:60, :150]
    ring = np.abs(np.hypot(y - 30, x - 40) - 18) < 6
    region = ring | (np.hypot(y - 30, x - 110) < 20)
    line = thin(region)
    eight = np.ones((3, 3))
    assert label(line, eight)[1] == label(region, eight)[1] == 2
    assert label(~line)[1] == label(~region)[1] == 2


def test_an_empty_region_stays_empty():
    assert not thin(np.zeros((7, 9), dtype=bool)).any()
