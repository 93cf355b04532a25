"""Colored textures of the rich clips: random crops of photographs and patterns, rotated, colored and blended."""

from functools import cache

import cv2
import numpy as np

from ssvos.data.synthetic.rich_scenes.patterns import TILE, cloud_tile, draw_tile, rough_tile
from ssvos.data.synthetic.textures import PHOTOS, Split, load_photo

# These photographs of scikit-image's wheel are also in the public domain, CC0 or without known restrictions: the clock
# by its photographer, the deep field by NASA, the cell by its owners, and the corner of a page.
RICH_PHOTOS: dict[str, tuple[str, ...]] = {
    "train": (*PHOTOS["train"], "cell.png", "clock_motion.png", "hubble_deep_field.jpg", "text.png"),
    "val": PHOTOS["val"],
}
PHOTO_SHARE = 0.5
BLEND_SHARE = 0.35
ROUGHNESS = 36.0  # deviation of the added detail in 128ths of the light; at most 0.7 of it is used


@cache
def _pyramid(name: str) -> tuple[np.ndarray, ...]:
    """A photograph at full size, at half of it, at a quarter, and so on down to a shorter side of 100 to 200 pixels."""
    levels = [cv2.cvtColor(load_photo(name), cv2.COLOR_RGB2RGBA)]  # OpenCV warps four channels twice as fast as three
    while min(levels[-1].shape[:2]) >= 200:
        levels.append(cv2.pyrDown(levels[-1]))
    return tuple(levels)


@cache
def _is_grey(name: str) -> bool:
    return np.array_equal(load_photo(name)[..., 0], load_photo(name)[..., 2])


def draw_material(split: Split, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A texture of the split, (*shape, 3) uint8: one source, or two sources blended by a cloud."""
    first = _add_roughness(_draw_source(split, shape, rng), rng)
    if rng.random() >= BLEND_SHARE:
        return first
    second = _draw_source(split, shape, rng)
    cloud = crop_tile(cloud_tile(int(rng.integers(8))), shape, rng, (0.6, 2.0))
    contrast = float(rng.uniform(2, 12))
    weight = np.clip((cloud.astype(np.float32) / 255.0 - rng.uniform(0.35, 0.65)) * contrast + 0.5, 0.0, 1.0)
    return cv2.blendLinear(first, second, weight, 1.0 - weight)


def _add_roughness(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add the fine detail of a surface from a short distance, which enlarged photographs and patterns lack."""
    strength = ROUGHNESS * (rng.random() - 0.3)
    if strength < 1.0:
        return texture
    relief = crop_tile(rough_tile(int(rng.integers(4))), texture.shape[:2], rng, (0.8, 1.6))
    layer = cv2.addWeighted(relief, strength / 32.0, relief, 0.0, 128.0 - 4.0 * strength)
    return cv2.multiply(texture, cv2.cvtColor(layer, cv2.COLOR_GRAY2RGB), scale=1.0 / 128.0)


def crop_tile(
    tile: np.ndarray, shape: tuple[int, int], rng: np.random.Generator, scales: tuple[float, float]
) -> np.ndarray:
    """A random crop of a tile, rotated and enlarged by a factor in `scales`; (*shape,) uint8."""
    scale = float(np.exp(rng.uniform(*np.log(scales))))
    matrix = _crop_matrix(tile.shape[:2], shape, scale, rng.uniform(0, 2 * np.pi), rng)
    return cv2.warpAffine(tile, matrix, shape[::-1], flags=_INVERSE, borderMode=cv2.BORDER_REFLECT_101)


_INVERSE = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


def _crop_matrix(
    source: tuple[int, int], shape: tuple[int, int], scale: float, angle: float, rng: np.random.Generator
) -> np.ndarray:
    """Matrix (2, 3) from a texture of `shape` to a random place in its source.

    scale: texture pixels per source pixel
    """
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    linear = np.array([[cos, -sin], [sin, cos]])
    place = rng.uniform(0.2, 0.8, size=2) * source[::-1]
    return np.hstack([linear, (place - linear @ (np.array(shape[::-1]) / 2))[:, None]])


def _draw_source(split: Split, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    if rng.random() < PHOTO_SHARE:
        names = RICH_PHOTOS[split]
        name = names[int(rng.integers(len(names)))]
        return _photo(name, shape, rng)
    scale = max(shape) / TILE
    grey = crop_tile(draw_tile(split, rng), shape, rng, (0.35 * max(scale, 0.4), 1.6 * max(scale, 0.4)))
    return cv2.applyColorMap(grey, draw_ramp(rng))


def _photo(name: str, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A random crop of a photograph, at most 1.6 times enlarged, with changed colors; (*shape, 3) uint8."""
    levels = _pyramid(name)
    fit = max(shape[0] / levels[0].shape[0], shape[1] / levels[0].shape[1])  # the whole photograph fills the texture
    scale = float(np.exp(rng.uniform(np.log(min(fit, 1.0)), np.log(max(min(3 * fit, 1.4), fit)))))
    level = int(np.clip(np.round(np.log2(1.0 / scale)), 0, len(levels) - 1))
    image = levels[level]
    angle = rng.normal(0, 0.2) + rng.choice([0, 0, 0, np.pi / 2, np.pi, -np.pi / 2])
    matrix = _crop_matrix(image.shape[:2], shape, scale * 2**level, angle, rng)
    crop = cv2.warpAffine(image, matrix, shape[::-1], flags=_INVERSE, borderMode=cv2.BORDER_REFLECT_101)
    crop = cv2.cvtColor(crop, cv2.COLOR_RGBA2RGB)
    if rng.random() < 0.5:
        crop = cv2.flip(crop, 1)
    if _is_grey(name) or rng.random() < 0.15:
        return cv2.applyColorMap(np.ascontiguousarray(crop[..., 1]), draw_ramp(rng))
    return change_colors(crop, rng)


def draw_ramp(rng: np.random.Generator) -> np.ndarray:
    """Colors for 256 greys, (256, 1, 3) uint8: a ramp of two to five colors of similar hue, mostly dark to light."""
    stops = int(rng.integers(2, 6))
    lightness = np.sort(rng.uniform(5, 97, stops)) if rng.random() < 0.8 else rng.uniform(10, 95, stops)
    hue = _draw_hue(rng) + rng.normal(0.0, rng.choice([0.3, 1.0]), stops)
    chroma = rng.gamma(1.3, 12.0) * rng.uniform(0.4, 1.0, stops)
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1).astype(np.float32)
    rgb = cv2.cvtColor(lab[None], cv2.COLOR_LAB2RGB)
    return np.rint(255 * cv2.resize(rgb, (256, 1)).reshape(256, 1, 3)).astype(np.uint8)


def _draw_hue(rng: np.random.Generator) -> float:
    """A hue angle of CIE Lab; half of the hues are those of soil and plants, as in most outdoor videos."""
    return rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else rng.normal(1.6, 0.5)


def change_colors(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rotate the hues and change saturation, contrast and brightness: (H, W, 3) uint8 -> (H, W, 3) uint8."""
    grey = np.full((3, 3), 1 / 3)
    saturation = rng.uniform(0.3, 1.3)
    angle = rng.normal(0, 0.2 if rng.random() < 0.7 else 1.5)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turn = np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * grey
    contrast = rng.uniform(0.6, 1.4)
    linear = contrast * (saturation * turn + (1 - saturation) * grey)
    offset = np.full(3, 128 + rng.uniform(-45, 45)) - linear @ np.full(3, 118.0)
    return cv2.transform(image, np.hstack([linear, offset[:, None]]))


def match_statistics(texture: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Give `texture` the mean and deviation of `reference` in each channel; both (H, W, 3) uint8, of any size."""
    mean, deviation = (m.ravel() for m in cv2.meanStdDev(texture))
    target_mean, target_deviation = (m.ravel() for m in cv2.meanStdDev(reference))
    gain = target_deviation / np.maximum(deviation, 4.0)
    greys = np.arange(256)[:, None]
    table = np.clip(np.rint((greys - mean) * gain + target_mean), 0, 255).astype(np.uint8)
    return cv2.LUT(texture, table[None])
