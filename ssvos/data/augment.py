"""Resizing of frames and scribbles, and augmentation of clips; thin strokes survive both."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from ssvos.config import AugmentConfig
from ssvos.labels import UNLABELLED

_MIN_BLUR = 0.3  # pixels; a weaker blur has no effect
_STROKE_SHARE = 0.25  # share of a warped pixel that a stroke must cover to label it


def resize_frame(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a frame (H, W, 3) uint8 to (height, width, 3): by area if it shrinks, else bilinearly."""
    if frame.shape[:2] == (height, width):
        return frame
    shrinks = frame.shape[0] > height or frame.shape[1] > width
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_scribble(scribble: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a scribble (H, W) uint8 to (height, width).

    A pixel that any stroke touches has the label that covers most of it. Nearest-neighbour sampling would lose most of
    a thin stroke.
    """
    if scribble.shape == (height, width):
        return scribble
    # two steps, because INTER_AREA interpolates instead of averaging if one side shrinks and the other grows
    shrunk = (min(width, scribble.shape[1]), min(height, scribble.shape[0]))
    return _transform_planes(
        scribble,
        lambda plane: cv2.resize(
            cv2.resize(plane, shrunk, interpolation=cv2.INTER_AREA),
            (width, height),
            interpolation=cv2.INTER_NEAREST,
        ),
        threshold=0.0,
    )


def _transform_planes(
    scribble: np.ndarray, transform: Callable[[np.ndarray], np.ndarray], threshold: float
) -> np.ndarray:
    """Transform the plane of each label; a pixel gets the label with the largest value above `threshold`."""
    best: np.ndarray | None = None
    result: np.ndarray | None = None
    for label in np.unique(scribble):
        if label == UNLABELLED:
            continue
        share = transform((scribble == label).astype(np.float32))
        if best is None or result is None:
            best, result = np.full(share.shape, threshold, np.float32), np.full(share.shape, UNLABELLED, np.uint8)
        result[share > best] = label
        best = np.maximum(best, share)
    if result is None:
        shape = transform(np.zeros(scribble.shape, np.float32)).shape
        return np.full(shape, UNLABELLED, np.uint8)
    return result


@dataclass(frozen=True)
class Variation:
    """One draw of the augmentation. It is the same for all frames of a clip, except for `cutout`.

    flip: mirror the frames
    reverse: reverse the clip in time
    scale: magnification
    rotation: rotation, degrees
    shift: shift, shares of width and height
    gain: factor of each colour channel
    offset: added to all channels, 0-255
    shear: horizontal shear, pixels per pixel
    blur: standard deviation of a Gaussian blur, pixels; 0: none
    cutout: per frame () or a rectangle: top, left, height and width in shares of the frame, and its RGB colour, 0-255
    """

    flip: bool
    reverse: bool
    scale: float
    rotation: float
    shift: tuple[float, float]
    gain: tuple[float, float, float]
    offset: float
    shear: float = 0.0
    blur: float = 0.0
    cutout: tuple[tuple[float, ...], ...] = ()

    def affine(self, height: int, width: int) -> np.ndarray | None:
        """The (2, 3) matrix from input to output pixels of a frame; None for the identity."""
        if self.scale == 1.0 and self.rotation == 0.0 and self.shear == 0.0:
            return None
        matrix: np.ndarray = cv2.getRotationMatrix2D((width / 2, height / 2), self.rotation, self.scale)
        # rotation and shear are both about the centre
        matrix = matrix @ np.array([[1, self.shear, -self.shear * height / 2], [0, 1, 0], [0, 0, 1]])
        matrix[:, 2] += (self.shift[0] * width, self.shift[1] * height)
        return matrix

    def frame(self, frame: np.ndarray, number: int = 0) -> np.ndarray:
        """Apply the variation to frame `number` of the clip, (H, W, 3) uint8."""
        varied = self._adjust_colour(self._warp(frame))
        if self.blur:
            varied = cv2.GaussianBlur(varied, (0, 0), self.blur)
        window = self._window(number, frame.shape[:2])
        if window:
            varied = np.array(varied)
            varied[window] = self.cutout[number][4:]
        return varied

    def _window(self, number: int, shape: tuple[int, ...]) -> tuple[slice, slice] | None:
        """The rectangle of frame `number` to paint over, if any."""
        if number >= len(self.cutout) or not self.cutout[number]:
            return None
        top, left, height, width = (
            round(part * side) for part, side in zip(self.cutout[number], 2 * shape, strict=False)
        )
        return slice(top, top + height), slice(left, left + width)

    def _warp(self, frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        frame = frame[:, ::-1] if self.flip else frame
        matrix = self.affine(height, width)
        if matrix is not None:
            frame = cv2.warpAffine(
                np.ascontiguousarray(frame), matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101
            )
        return frame

    def _adjust_colour(self, frame: np.ndarray) -> np.ndarray:
        if self.gain == (1.0, 1.0, 1.0) and self.offset == 0.0:
            return frame
        adjusted = frame * np.array(self.gain, np.float32) + np.float32(self.offset)
        clipped: np.ndarray = np.clip(adjusted, 0, 255)
        return clipped.astype(np.uint8)

    def scribble(self, scribble: np.ndarray, number: int = 0) -> np.ndarray:
        """Apply the variation to the labels of frame `number`, (H, W) uint8.

        Pixels from outside the frame and in the painted rectangle are unlabelled.
        """
        height, width = scribble.shape
        scribble = scribble[:, ::-1] if self.flip else scribble
        matrix = self.affine(height, width)
        if matrix is not None:
            scribble = _transform_planes(
                np.ascontiguousarray(scribble),
                lambda plane: cv2.warpAffine(plane, matrix, (width, height), flags=cv2.INTER_LINEAR),
                _STROKE_SHARE,
            )
        window = self._window(number, scribble.shape)
        if window:
            scribble = np.array(scribble)
            scribble[window] = UNLABELLED
        return scribble


def draw_variation(config: AugmentConfig, rng: np.random.Generator, length: int = 1) -> Variation:
    """Draw a variation of a clip.

    Every field takes its random numbers from `rng` for all parameters, so that a changed parameter does not change the
    other draws.

    config: parameters of the augmentation
    rng: the generator
    length: frames of the clip
    """
    flip, reverse, scale, rotation, *rest = rng.random(10)
    low, high = np.log(config.scale_min), np.log(max(config.scale_min, config.scale_max))
    scale = float(np.exp(low + scale * (high - low)))
    max_shift = max(0.0, scale - 1.0) / 2  # an enlarged clip still covers the frame
    # a child generator, because further draws from `rng` would change the draws that follow the augmentation
    (child,) = rng.spawn(1)
    shear, blur = child.random(2)
    red, green, blue = (float(1.0 + config.color * (g - 0.5)) for g in rest[2:5])
    return Variation(
        flip=bool(flip < config.flip),
        reverse=bool(reverse < config.reverse),
        scale=scale,
        rotation=float((2 * rotation - 1) * config.rotation),
        shift=(float((2 * rest[0] - 1) * max_shift), float((2 * rest[1] - 1) * max_shift)),
        gain=(red, green, blue),
        offset=float(config.color * 100 * (rest[5] - 0.5)),
        shear=float((2 * shear - 1) * config.shear),
        blur=float(blur * config.blur) if blur * config.blur > _MIN_BLUR else 0.0,
        cutout=tuple(_draw_cutout(config.cutout, child) for _ in range(length)) if config.cutout else (),
    )


def _draw_cutout(share: float, rng: np.random.Generator) -> tuple[float, ...]:
    """With probability `share` a rectangle of a tenth to a third of the frame's sides, in one colour; else ().

    The first frame is no exception, although the network knows the object only by its strokes there.
    """
    is_cut, top, left, height, width, *colour = rng.random(8)
    if is_cut >= share:
        return ()
    height, width = 0.1 + 0.23 * height, 0.1 + 0.23 * width
    return (top * (1 - height), left * (1 - width), height, width, *(255 * c for c in colour))


def split_strokes(scribble: np.ndarray, share: float, rng: np.random.Generator, cell: int = 16) -> np.ndarray:
    """Select a random part of the strokes of a binary scribble, cell by cell.

    scribble: (H, W) uint8 of 0, 1 and 255
    share: share of each label's cells to select; at least one, so that the network always sees the object
    rng: the generator
    cell: side of a square cell, pixels
    returns: (H, W) uint8; strokes outside the selected cells are 255
    """
    if share >= 1.0:
        return scribble
    height, width = scribble.shape
    rows, columns = -(-height // cell), -(-width // cell)
    selected = scribble.copy()
    for label in (0, 1):
        y, x = np.nonzero(scribble == label)
        if len(y) == 0:
            continue
        cells = (y // cell) * columns + x // cell
        stroke_cells = np.unique(cells)
        count = max(1, round(share * len(stroke_cells)))
        is_selected = np.zeros(rows * columns, bool)
        is_selected[rng.permutation(stroke_cells)[:count]] = True
        outside = ~is_selected[cells]
        selected[y[outside], x[outside]] = UNLABELLED
    return selected
