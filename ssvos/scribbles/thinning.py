"""Parallel thinning of a binary image (Zhang and Suen 1984), 64 pixels a machine word; step 1 of III-E."""

from functools import reduce
from itertools import pairwise
from operator import and_, or_

import numpy as np

WORD = 64


def thin(region: np.ndarray) -> np.ndarray:
    """Thin a region to lines one pixel wide.

    region:  (H, W) bool
    returns: (H, W) bool, a subset of the region. A tiny blob, such as a 2x2 square, can vanish altogether:
             that is the published algorithm, and the caller's to mend.
    """
    height, width = region.shape
    row = (width + 2 + WORD - 1) // WORD
    bits = np.zeros((height + 2, row * WORD), dtype=bool)
    bits[1:-1, 1 : width + 1] = region
    image = np.packbits(bits, axis=1, bitorder="little").view("<u8").ravel()
    first, last = 0, height
    while last > first:
        # Only rows near those that the last iteration changed can change: the rest is settled.
        band = image[first * row : (last + 2) * row]
        changed = np.zeros(last - first, dtype=bool)
        for is_first in (True, False):
            doomed = _removable(band, row, is_first)
            band[row:-row] &= ~doomed
            changed |= doomed.reshape(-1, row).any(axis=1)
        rows = np.flatnonzero(changed) + first
        first, last = (max(0, rows[0] - 2), min(height, rows[-1] + 3)) if rows.size else (0, 0)
    octets = image.reshape(height + 2, row).view(np.uint8)
    return np.unpackbits(octets, axis=1, bitorder="little")[1:-1, 1 : width + 1].astype(bool)


def _removable(image: np.ndarray, row: int, is_first: bool) -> np.ndarray:
    """The pixels that one sub-iteration deletes, as words; `row` words hold one row, borders are empty.

    A pixel goes if its ring of 8 neighbours has one run of 2 to 6 object pixels, and the sub-iteration's
    two products of side neighbours are 0.
    """
    east, west = image >> np.uint64(1), image << np.uint64(1)
    east[:-1] |= image[1:] << np.uint64(WORD - 1)
    west[1:] |= image[:-1] >> np.uint64(WORD - 1)
    up, middle, down = slice(None, -2 * row), slice(row, -row), slice(2 * row, None)
    n, e, s, w = image[up], east[middle], image[down], west[middle]
    ring = (n, east[up], e, east[down], s, west[down], w, west[up])
    changes = [a ^ b for a, b in zip(ring, ring[1:] + ring[:1], strict=True)]
    # One run has two changes of the ring; where they are neighbours, it is a run of 1 or of 7. Their number
    # is even: of changes without neighbours, two make one run and four, every other one, make two runs.
    has_neighbours = changes[-1] & changes[0]
    for a, b in pairwise(changes):
        has_neighbours |= a & b
    has_two_runs = reduce(and_, changes[::2]) | reduce(and_, changes[1::2])
    needed = e & s & (n | w) if is_first else n & w & (e | s)
    return image[middle] & reduce(or_, changes) & ~(has_neighbours | has_two_runs | needed)
