"""Painting of sprites into frames: parts are filled at twice the size, textured, shaded, blurred and composited."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from ssvos.data.synthetic.rich_scenes.sketch import Sketch

_SUPERSAMPLING = 2
_SUBPIXEL_BITS = 4
NEUTRAL = 128  # factor of 1, in the tints of a layer and in a texture's alpha
LONGEST_BLUR = 10.0


@dataclass(frozen=True)
class Sprite:
    """One painted thing: an object, a distractor, an occluder or clutter.

    label: object id; 0: not annotated
    points: of the sketch in the frame, (T, P, 2)
    matrices: from texture to frame, (T, 2, 3)
    texture: (S, S, 4) uint8, RGB and NEUTRAL
    softness: blur of its edges in pixels
    motion: in pixels while the shutter is open, (T, 2)
    relief: strength of the shading by its shape
    shadow: share of the light that it blocks on the ground
    """

    label: int
    sketch: Sketch
    points: np.ndarray
    matrices: np.ndarray
    texture: np.ndarray
    softness: float
    motion: np.ndarray
    relief: float
    shadow: float


Patch = tuple[slice, slice, np.ndarray]  # rows and columns in the frame; RGB times alpha, and alpha, (h, w, 4) uint8


def paint(sprite: Sprite, t: int, shape: tuple[int, int]) -> Patch | None:
    """The image of a sprite in frame t of size `shape` = (H, W), or None if it is outside the frame."""
    points = sprite.points[t]
    margin = 2 + int(3 * sprite.softness) + int(min(np.abs(sprite.motion[t]).max(), LONGEST_BLUR))
    left, top = (max(int(v) - margin, 0) for v in points.min(axis=0))
    right, bottom = (min(int(v) + margin + 2, side) for v, side in zip(points.max(axis=0), shape[::-1], strict=True))
    if right <= left or bottom <= top:
        return None
    size = (right - left, bottom - top)
    tints = _fill(sprite.sketch, points - [left, top], size)
    matrix = sprite.matrices[t].copy()
    matrix[:, 2] -= [left, top]
    warped = cv2.warpAffine(sprite.texture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    layer: np.ndarray = cv2.multiply(warped, tints, scale=1.0 / NEUTRAL)
    if sprite.relief and min(size) > 24:
        layer = _shade(layer, sprite.relief)
    if sprite.softness:
        layer = cv2.GaussianBlur(layer, (0, 0), sprite.softness)
    return slice(top, bottom), slice(left, right), blur_along(layer, sprite.motion[t])


def _fill(sketch: Sketch, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Tints of the parts (NEUTRAL: the texture is unchanged) times coverage, and coverage, (h, w, 4) uint8."""
    plane = np.zeros((size[1] * _SUPERSAMPLING, size[0] * _SUPERSAMPLING, 4), dtype=np.uint8)
    fine = np.rint(((points + 0.5) * _SUPERSAMPLING - 0.5) * 2**_SUBPIXEL_BITS).astype(np.int32)
    for spans, tint in zip(sketch.spans, sketch.tints, strict=True):
        color = (NEUTRAL * tint[0], NEUTRAL * tint[1], NEUTRAL * tint[2], 255)
        cv2.fillPoly(plane, [fine[span] for span in spans], color, shift=_SUBPIXEL_BITS)
    return cv2.resize(plane, size, interpolation=cv2.INTER_AREA)


def _shade(layer: np.ndarray, relief: float) -> np.ndarray:
    """Lighter towards the upper left rim, darker towards the lower right one."""
    small = cv2.resize(layer[..., 3], None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    height = cv2.GaussianBlur(small, (0, 0), max(0.05 * max(small.shape), 0.6))
    slope = cv2.filter2D(height, cv2.CV_16S, _SLOPE)
    gain = cv2.convertScaleAbs(slope, alpha=relief, beta=float(NEUTRAL))
    large = cv2.resize(gain, layer.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    alpha_gain = np.full_like(large, NEUTRAL)
    return cv2.multiply(layer, cv2.merge([large, large, large, alpha_gain]), scale=1.0 / NEUTRAL)


_SLOPE = np.array([[-1, -1, 0], [-1, 0, 1], [0, 1, 1]], np.float32)


def blur_along(image: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Blur an image along a motion vector (2,) in pixels, at most LONGEST_BLUR; motion below a pixel has no effect."""
    length = float(np.hypot(*motion))
    if length < 1.0:
        return image
    half = np.asarray(motion) / 2 * min(1.0, LONGEST_BLUR / length)
    kernel = _line_kernel(*np.rint(8 * half).astype(int).tolist())
    return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE)


@lru_cache(maxsize=4096)
def _line_kernel(x: int, y: int) -> np.ndarray:
    """A kernel that averages along the line from (-x, -y) to (x, y), in eighths of a pixel."""
    half = np.array([x, y]) / 8
    reach = int(np.ceil(np.abs(half).max()))
    along = np.linspace(-1, 1, 4 * reach + 1)[:, None] * half + reach
    low = np.floor(along).astype(int)
    part = along - low
    kernel = np.zeros((2 * reach + 2, 2 * reach + 2), np.float32)  # one row and column more for the last neighbours
    for dx in range(2):
        for dy in range(2):
            weight = np.abs(1 - dx - part[:, 0]) * np.abs(1 - dy - part[:, 1])
            np.add.at(kernel, (low[:, 1] + dy, low[:, 0] + dx), weight)
    normalised: np.ndarray = kernel[:-1, :-1] / kernel.sum()
    return normalised


def compose(image: np.ndarray, patch: Patch) -> None:
    """Composite a patch over an image (H, W, 3) uint8, in place."""
    rows, columns, layer = patch
    transparency = cv2.cvtColor(255 - layer[..., 3], cv2.COLOR_GRAY2RGB)
    below = cv2.multiply(image[rows, columns], transparency, scale=1.0 / 255.0)
    image[rows, columns] = cv2.add(below, cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB))


def write_label(mask: np.ndarray, patch: Patch, label: int) -> None:
    """Write a label into a mask (H, W) uint8, in place, at pixels that a patch covers by at least half."""
    rows, columns, layer = patch
    mask[rows, columns][layer[..., 3] >= 128] = label
