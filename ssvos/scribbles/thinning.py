"""Parallel thinning of a binary image (Zhang and Suen 1984), with 64 pixels per machine word; step 1 of III-E."""

from functools import reduce
from itertools import pairwise
from operator import and_, or_

import numpy as np

WORD = 64


def thin(region: np.ndarray) -> np.ndarray:
    """Thin a region to lines one pixel wide.

    region: (H, W) bool
    returns: (H, W) bool, a subset of the region. The published algorithm removes some small regions completely, for
        example a 2x2 square; the caller must handle them
    """
    height, width = region.shape
    row = (width + 2 + WORD - 1) // WORD
    bits = np.zeros((height + 2, row * WORD), dtype=bool)
    bits[1:-1, 1 : width + 1] = region
    image = np.packbits(bits, axis=1, bitorder="little").view("<u8").ravel()
    first, last = 0, height
    while last > first:
        # only rows near a row that the last iteration changed can change
        band = image[first * row : (last + 2) * row]
        changed = np.zeros(last - first, dtype=bool)
        for is_first in (True, False):
            removable = _removable(band, row, is_first)
            band[row:-row] &= ~removable
            changed |= removable.reshape(-1, row).any(axis=1)
        rows = np.flatnonzero(changed) + first
        first, last = (max(0, rows[0] - 2), min(height, rows[-1] + 3)) if rows.size else (0, 0)
    octets = image.reshape(height + 2, row).view(np.uint8)
    return np.unpackbits(octets, axis=1, bitorder="little")[1:-1, 1 : width + 1].astype(bool)


def _removable(image: np.ndarray, row: int, is_first: bool) -> np.ndarray:
    """The pixels that one sub-iteration deletes, as words.

    A pixel is deleted if its ring of 8 neighbours has one run of 2 to 6 object pixels, and both products of side
    neighbours of the sub-iteration are 0.

    image: words, `row` words per row of pixels; the border is empty
    row: words per row
    is_first: whether this is the first sub-iteration
    """
    east, west = image >> np.uint64(1), image << np.uint64(1)
    east[:-1] |= image[1:] << np.uint64(WORD - 1)
    west[1:] |= image[:-1] >> np.uint64(WORD - 1)
    up, middle, down = slice(None, -2 * row), slice(row, -row), slice(2 * row, None)
    n, e, s, w = image[up], east[middle], image[down], west[middle]
    ring = (n, east[up], e, east[down], s, west[down], w, west[up])
    changes = [a ^ b for a, b in zip(ring, ring[1:] + ring[:1], strict=True)]
    # One run has two changes along the ring. If the two are adjacent, the run has 1 or 7 pixels. The number of changes
    # is even, so without adjacent changes there are two (one run) or four, at every other place (two runs).
    has_adjacent_changes = changes[-1] & changes[0]
    for a, b in pairwise(changes):
        has_adjacent_changes |= a & b
    has_two_runs = reduce(and_, changes[::2]) | reduce(and_, changes[1::2])
    is_kept = e & s & (n | w) if is_first else n & w & (e | s)
    removable: np.ndarray = image[middle] & reduce(or_, changes) & ~(has_adjacent_changes | has_two_runs | is_kept)
    return removable
