"""The region of interest: the part of the frame around the objects, which follows them from frame to frame.

Enlarged to the size at which a frame is segmented, it shows small objects in more cells, gives growing objects the same
size in every frame, and leaves similar things far away out of sight.
"""

from typing import NamedTuple

import numpy as np

from ssvos.config import RoiConfig
from ssvos.labels import BACKGROUND, UNLABELLED
from ssvos.models.grid import Move

_INERTIA = 0.5  # share of the previous region in the next one


class Roi(NamedTuple):
    """Rows `top` to `bottom` and columns `left` to `right` of a frame, the ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left

    def crop(self, image: np.ndarray) -> np.ndarray:
        """The region of an image (H, W, ...), a view."""
        return image[self.top : self.bottom, self.left : self.right]

    def move_from(self, old: "Roi") -> Move:
        """Where this region lies in another region of the same frame."""
        (height, width), (old_height, old_width) = self.shape, old.shape
        offset = ((self.top - old.top) / old_height, (self.left - old.left) / old_width)
        return Move((height / old_height, width / old_width), offset)

    def paste(self, mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """The mask (H, W) of a frame of which only the region has been segmented; the rest is background."""
        if mask.shape == shape:
            return mask
        whole = np.full(shape, BACKGROUND, mask.dtype)
        whole[self.top : self.bottom, self.left : self.right] = mask
        return whole


class FollowingRoi:
    """The region of interest of each frame of a video.

    It has the frame's proportions and surrounds all objects, with a margin. It moves gradually, except on a frame on
    which objects begin. A frame without an object enlarges it, so that an object that was hidden is found again.
    """

    def __init__(self, config: RoiConfig):
        self.config = config
        self._center, self._scale = np.zeros(2), 1.0
        self._is_placed = False

    def of_frame(self, shape: tuple[int, int], previous: np.ndarray | None, scribble: np.ndarray | None) -> Roi:
        """The region of the next frame.

        shape: (height, width) of the frame
        previous: mask of the previous frame, (H, W); None on the first frame
        scribble: strokes of objects that begin on this frame, (H, W), or None

        Raises ValueError if the previous frame has another size.
        """
        if previous is not None and previous.shape != shape:
            raise ValueError(f"frame is {shape}, the previous frame {previous.shape}; give all the same size")
        size = np.array(shape)
        if not self.config.margin:
            return Roi(0, shape[0], 0, shape[1])
        boxes = [] if previous is None else [_box(previous != BACKGROUND, self.config.margin)]
        if scribble is not None:
            strokes = (scribble != BACKGROUND) & (scribble != UNLABELLED)
            boxes.append(_box(strokes, self.config.stroke_margin))
        found = [box for box in boxes if box is not None]
        if found:
            start, end = np.min([box[0] for box in found], axis=0), np.max([box[1] for box in found], axis=0)
            center, scale = (start + end) / 2, float(max(self.config.smallest, *((end - start) / size)))
        else:
            center, scale = size / 2, 1.0
        if self._is_placed and scribble is None:
            center = _INERTIA * self._center + (1 - _INERTIA) * center
            scale = _INERTIA * self._scale + (1 - _INERTIA) * scale
        self._scale = min(1.0, scale)
        half = self._scale * size / 2
        self._center, self._is_placed = np.clip(center, half, size - half), True
        roi = _rounded(self._center - half, self._center + half)
        if scribble is not None and (scribble == BACKGROUND).any() and not (roi.crop(scribble) == BACKGROUND).any():
            # strokes of background tell the objects apart from what surrounds them
            self._center, self._scale = size / 2, 1.0
            return Roi(0, shape[0], 0, shape[1])
        return roi


def _box(plane: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Start and end (row, column) of a plane's box, larger on every side by `margin` of its longer side; None if the
    plane (H, W) bool is empty."""
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    if not len(rows):
        return None
    start, end = np.array([rows[0], columns[0]]), np.array([rows[-1], columns[-1]]) + 1
    around = margin * np.max(end - start)
    return start - around, end + around


def _rounded(start: np.ndarray, end: np.ndarray) -> Roi:
    (top, left), (bottom, right) = np.round(start).astype(int).tolist(), np.round(end).astype(int).tolist()
    return Roi(top, bottom, left, right)
