"""Bringing frames and scribbles to the training size, and varying clips; thin strokes survive both."""

from dataclasses import dataclass

import cv2
import numpy as np

from ssvos.config import AugmentConfig
from ssvos.labels import UNLABELLED

_LEAST_BLUR = 0.3  # pixels; below it nothing changes
_STROKE_SHARE = 0.25  # a warped pixel is labelled if this much of it lies under the stroke


def resize_frame(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (height, width, 3) uint8, by area when it shrinks."""
    if frame.shape[:2] == (height, width):
        return frame
    shrinks = frame.shape[0] > height or frame.shape[1] > width
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_scribble(scribble: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W) uint8 scribble -> (height, width): a pixel is labelled if any stroke touches it, by the label that covers
    most of it. Nearest-neighbour sampling would lose most of a thin stroke, and a maximum over ids would let 255 win.
    """
    if scribble.shape == (height, width):
        return scribble
    # one side after the other: where one shrinks and the other grows, INTER_AREA would fall back to sampling
    shrunk = (min(width, scribble.shape[1]), min(height, scribble.shape[0]))
    return _by_plane(
        scribble,
        lambda plane: cv2.resize(
            cv2.resize(plane, shrunk, interpolation=cv2.INTER_AREA),
            (width, height),
            interpolation=cv2.INTER_NEAREST,
        ),
        threshold=0.0,
    )


def _by_plane(scribble: np.ndarray, transform, threshold: float) -> np.ndarray:
    """Transform each label's own plane and let the strongest one above `threshold` win."""
    labels = [label for label in np.unique(scribble) if label != UNLABELLED]
    best, result = None, None
    for label in labels:
        share = transform((scribble == label).astype(np.float32))
        if best is None:
            best, result = (
                np.full(share.shape, threshold, np.float32),
                np.full(share.shape, UNLABELLED, np.uint8),
            )
        wins = share > best
        result[wins] = label
        best = np.maximum(best, share)
    if result is None:
        empty = transform(np.zeros(scribble.shape, np.float32))
        return np.full(empty.shape, UNLABELLED, np.uint8)
    return result


@dataclass(frozen=True)
class Variation:
    """One draw of an augmentation, applied alike to all frames of a clip, but for what is cut out of each."""

    flip: bool
    reverse: bool
    scale: float
    rotation: float  # degrees
    shift: tuple[float, float]  # in shares of width and height
    gain: tuple[float, float, float]
    offset: float
    shear: float = 0.0
    blur: float = 0.0  # standard deviation in pixels
    cutout: tuple[tuple[float, ...], ...] = ()  # of each frame (), or top, left, height and width in shares, and colour

    def affine(self, height: int, width: int) -> np.ndarray | None:
        """The (2, 3) matrix that takes input to output pixels; None for the identity."""
        if self.scale == 1.0 and self.rotation == 0.0 and self.shear == 0.0:
            return None
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), self.rotation, self.scale)
        # sheared about the middle, as it is turned
        matrix = matrix @ np.array([[1, self.shear, -self.shear * height / 2], [0, 1, 0], [0, 0, 1]])
        matrix[:, 2] += (self.shift[0] * width, self.shift[1] * height)
        return matrix

    def frame(self, frame: np.ndarray, number: int = 0) -> np.ndarray:
        """Frame `number` of the clip, (H, W, 3) uint8 -> (H, W, 3) uint8."""
        varied = self._coloured(self._moved(frame))
        if self.blur:
            varied = cv2.GaussianBlur(varied, (0, 0), self.blur)
        window = self._window(number, frame.shape[:2])
        if window:
            varied = np.array(varied)
            varied[window] = self.cutout[number][4:]
        return varied

    def _window(self, number: int, shape: tuple[int, ...]) -> tuple[slice, slice] | None:
        """What is cut out of a frame."""
        if number >= len(self.cutout) or not self.cutout[number]:
            return None
        top, left, height, width = (
            round(part * side) for part, side in zip(self.cutout[number], 2 * shape, strict=False)
        )
        return slice(top, top + height), slice(left, left + width)

    def _moved(self, frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        frame = frame[:, ::-1] if self.flip else frame
        matrix = self.affine(height, width)
        if matrix is not None:
            frame = cv2.warpAffine(
                np.ascontiguousarray(frame), matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101
            )
        return frame

    def _coloured(self, frame: np.ndarray) -> np.ndarray:
        if self.gain == (1.0, 1.0, 1.0) and self.offset == 0.0:
            return frame
        return np.clip(frame * np.float32(self.gain) + np.float32(self.offset), 0, 255).astype(np.uint8)

    def scribble(self, scribble: np.ndarray, number: int = 0) -> np.ndarray:
        """Labels of frame `number`, (H, W) uint8 -> (H, W) uint8; what comes in from outside the frame, or is cut out
        of it, is unlabelled."""
        height, width = scribble.shape
        scribble = scribble[:, ::-1] if self.flip else scribble
        matrix = self.affine(height, width)
        if matrix is not None:
            scribble = _by_plane(
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
    """Draw one variation of a clip of `length` frames; every field takes its number from `rng` whatever the parameters,
    so that a changed parameter does not change the other draws."""
    flip, reverse, scale, rotation, *rest = rng.random(10)
    low, high = np.log(config.scale_min), np.log(max(config.scale_min, config.scale_max))
    scale = float(np.exp(low + scale * (high - low)))
    room = max(0.0, scale - 1.0) / 2  # a magnified clip is shifted within itself
    # from a generator of their own: what follows in a clip's stream stays what it is
    (later,) = rng.spawn(1)
    shear, blur = later.random(2)
    gain = tuple(float(1.0 + config.color * (g - 0.5)) for g in rest[2:5])
    return Variation(
        flip=bool(flip < config.flip),
        reverse=bool(reverse < config.reverse),
        scale=scale,
        rotation=float((2 * rotation - 1) * config.rotation),
        shift=(float((2 * rest[0] - 1) * room), float((2 * rest[1] - 1) * room)),
        gain=gain,
        offset=float(config.color * 100 * (rest[5] - 0.5)),
        shear=float((2 * shear - 1) * config.shear),
        blur=float(blur * config.blur) if blur * config.blur > _LEAST_BLUR else 0.0,
        cutout=tuple(_draw_cutout(config.cutout, later) for _ in range(length)) if config.cutout else (),
    )


def _draw_cutout(share: float, rng: np.random.Generator) -> tuple[float, ...]:
    """Nothing, or with probability `share` a rectangle of a tenth to a third of the frame's sides, in one colour. The
    first frame, whose strokes the object is known by, may lose a part of it like any other."""
    is_cut, top, left, height, width, *colour = rng.random(8)
    if is_cut >= share:
        return ()
    height, width = 0.1 + 0.23 * height, 0.1 + 0.23 * width
    return (top * (1 - height), left * (1 - width), height, width, *(255 * c for c in colour))


def split_strokes(scribble: np.ndarray, share: float, rng: np.random.Generator, cell: int = 16) -> np.ndarray:
    """Keep a random `share` of the strokes of a binary scribble (H, W), cell by cell; the rest becomes 255.

    Every label that occurs keeps at least one cell, so that a network always sees some of the object.
    """
    if share >= 1.0:
        return scribble
    height, width = scribble.shape
    rows, columns = -(-height // cell), -(-width // cell)
    kept = scribble.copy()
    for label in (0, 1):
        y, x = np.nonzero(scribble == label)
        if len(y) == 0:
            continue
        cells = (y // cell) * columns + x // cell
        touched = np.unique(cells)
        count = max(1, round(share * len(touched)))
        chosen = np.zeros(rows * columns, bool)
        chosen[rng.permutation(touched)[:count]] = True
        drop = ~chosen[cells]
        kept[y[drop], x[drop]] = UNLABELLED
    return kept
