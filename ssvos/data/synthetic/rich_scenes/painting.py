"""Painting of rich things into frames: parts filled at twice the size, textured, shaded, blurred, composed."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from ssvos.data.synthetic.rich_scenes.sketch import Sketch

_FINE = 2
_BITS = 4
NEUTRAL = 128  # this factor in `ink` or texture's alpha keeps a value
LONGEST_BLUR = 10.0


@dataclass(frozen=True)
class Thing:
    """One thing that is painted.

    label: object id, 0: not annotated. points: (T, P, 2) in the frame; matrices: (T, 2, 3), from texture to frame.
    texture: (S, S, 4) uint8, RGB and NEUTRAL. softness: of its edges, in pixels; smear: (T, 2), its way while the
    shutter is open. relief: how much the light makes of its form. shadow: share of light it takes from the ground.
    """

    label: int
    sketch: Sketch
    points: np.ndarray
    matrices: np.ndarray
    texture: np.ndarray
    softness: float
    smear: np.ndarray
    relief: float
    shadow: float


Patch = tuple[slice, slice, np.ndarray]  # where in the frame, and RGB times alpha with alpha, (h, w, 4) uint8


def paint(thing: Thing, t: int, shape: tuple[int, int]) -> Patch | None:
    """What a thing looks like in frame t of `shape`, or none if it is not in the frame."""
    points = thing.points[t]
    margin = 2 + int(3 * thing.softness) + int(min(np.abs(thing.smear[t]).max(), LONGEST_BLUR))
    left, top = (max(int(v) - margin, 0) for v in points.min(axis=0))
    right, bottom = (min(int(v) + margin + 2, side) for v, side in zip(points.max(axis=0), shape[::-1], strict=True))
    if right <= left or bottom <= top:
        return None
    size = (right - left, bottom - top)
    ink = _fill(thing.sketch, points - [left, top], size)
    matrix = thing.matrices[t].copy()
    matrix[:, 2] -= [left, top]
    skin = cv2.warpAffine(thing.texture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    layer = cv2.multiply(skin, ink, scale=1.0 / NEUTRAL)
    if thing.relief and min(size) > 24:
        layer = _shade(layer, thing.relief)
    if thing.softness:
        layer = cv2.GaussianBlur(layer, (0, 0), thing.softness)
    return slice(top, bottom), slice(left, right), smear(layer, thing.smear[t])


def _fill(sketch: Sketch, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Tints of the parts (NEUTRAL: the texture as it is) times coverage, and coverage, (h, w, 4) uint8."""
    plane = np.zeros((size[1] * _FINE, size[0] * _FINE, 4), dtype=np.uint8)
    fine = np.rint(((points + 0.5) * _FINE - 0.5) * 2**_BITS).astype(np.int32)
    for spans, tint in zip(sketch.spans, sketch.tints, strict=True):
        colour = (NEUTRAL * tint[0], NEUTRAL * tint[1], NEUTRAL * tint[2], 255)
        cv2.fillPoly(plane, [fine[span] for span in spans], colour, shift=_BITS)
    return cv2.resize(plane, size, interpolation=cv2.INTER_AREA)


def _shade(layer: np.ndarray, relief: float) -> np.ndarray:
    """Lighter towards the upper left rim, darker towards the lower right one."""
    small = cv2.resize(layer[..., 3], None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    height = cv2.GaussianBlur(small, (0, 0), max(0.05 * max(small.shape), 0.6))
    slope = cv2.filter2D(height, cv2.CV_16S, _SLOPE)
    gain = cv2.convertScaleAbs(slope, alpha=relief, beta=float(NEUTRAL))
    large = cv2.resize(gain, layer.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    keep = np.full_like(large, NEUTRAL)
    return cv2.multiply(layer, cv2.merge([large, large, large, keep]), scale=1.0 / NEUTRAL)


_SLOPE = np.array([[-1, -1, 0], [-1, 0, 1], [0, 1, 1]], np.float32)


def smear(image: np.ndarray, way: np.ndarray) -> np.ndarray:
    """Blur an image along a way (2,) in pixels, at most LONGEST_BLUR; ways below a pixel leave it as it is."""
    length = float(np.hypot(*way))
    if length < 1.0:
        return image
    half = np.asarray(way) / 2 * min(1.0, LONGEST_BLUR / length)
    kernel = _line(*np.rint(8 * half).astype(int).tolist())
    return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE)


@lru_cache(maxsize=4096)
def _line(x: int, y: int) -> np.ndarray:
    """A kernel that averages along the line from (-x, -y) to (x, y), in eighths of a pixel."""
    half = np.array([x, y]) / 8
    reach = int(np.ceil(np.abs(half).max()))
    along = np.linspace(-1, 1, 4 * reach + 1)[:, None] * half + reach
    low = np.floor(along).astype(int)
    part = along - low
    kernel = np.zeros((2 * reach + 2, 2 * reach + 2), np.float32)  # a row and a column more for the last neighbours
    for dx in range(2):
        for dy in range(2):
            weight = np.abs(1 - dx - part[:, 0]) * np.abs(1 - dy - part[:, 1])
            np.add.at(kernel, (low[:, 1] + dy, low[:, 0] + dx), weight)
    return kernel[:-1, :-1] / kernel.sum()


def compose(image: np.ndarray, patch: Patch) -> None:
    """Lay a patch over an image (H, W, 3) uint8, in place."""
    rows, columns, layer = patch
    rest = cv2.cvtColor(255 - layer[..., 3], cv2.COLOR_GRAY2RGB)
    below = cv2.multiply(image[rows, columns], rest, scale=1.0 / 255.0)
    image[rows, columns] = cv2.add(below, cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB))


def mark(mask: np.ndarray, patch: Patch, label: int) -> None:
    """Write a label where a patch covers at least half of a pixel, in place; (H, W) uint8."""
    rows, columns, layer = patch
    mask[rows, columns][layer[..., 3] >= 128] = label
