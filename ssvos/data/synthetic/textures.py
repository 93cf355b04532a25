"""Textures of the embedded data set: photographs from scikit-image's wheel, and procedural patterns.

Training and evaluation clips share neither a photograph nor a family of patterns.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import skimage

Split = Literal["train", "val"]

MIN_CONTRAST = 34.0  # standard deviation of grey; crops below it get more contrast

# Only photographs inside scikit-image's wheel (nothing is downloaded) that are in the public domain, CC0, or without
# known copyright restrictions.
PHOTOS: dict[str, tuple[str, ...]] = {
    "train": ("astronaut.png", "brick.png", "coffee.png", "grass.png", "ihc.png", "rocket.jpg"),
    "val": ("camera.png", "chelsea.png", "coins.png", "gravel.png", "retina.jpg"),
}


@cache
def load_photo(name: str) -> np.ndarray:
    """A photograph from scikit-image, (H, W, 3) uint8 RGB. Raises FileNotFoundError if scikit-image lacks it."""
    path = Path(skimage.__file__).parent / "data" / name
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) if path.is_file() else None
    if image is None:
        raise FileNotFoundError(f"{path}: no such photograph; reinstall scikit-image 0.26 from its wheel")
    if name == "retina.jpg":  # cut off the black border around the eye
        image = image[250:-250, 250:-250]
    image.flags.writeable = False
    return image


def photo_texture(name: str, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A random crop of a photograph, rotated or mirrored, at most 1.3 times enlarged.

    Grey photographs get random colors, and crops of low contrast get more contrast.

    returns: (*shape, 3) float32 in [0, 255]
    """
    image = np.rot90(load_photo(name), k=int(rng.choice([0, 2] if shape[1] > shape[0] else [0, 1, 2, 3])))
    if rng.random() < 0.5:
        image = image[:, ::-1]
    fit = min(image.shape[0] / shape[0], image.shape[1] / shape[1])  # the largest crop of this aspect
    zoom = fit if fit < 0.8 else rng.uniform(max(0.77, 0.45 * fit), fit)
    height, width = (max(2, int(side * zoom)) for side in shape)
    top = int(rng.integers(image.shape[0] - height + 1))
    left = int(rng.integers(image.shape[1] - width + 1))
    crop = np.ascontiguousarray(image[top : top + height, left : left + width])
    crop = cv2.resize(crop, shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
    is_grey = np.array_equal(crop[..., 0], crop[..., 1]) and np.array_equal(crop[..., 0], crop[..., 2])
    gain = float(np.clip(MIN_CONTRAST / max(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).std(), 1.0), 1.0, 4.0))
    mean = crop.mean(axis=(0, 1))
    crop = np.clip((crop - mean) * gain + np.clip(mean, 60, 195), 0.0, 255.0)
    return _colorize(crop[..., 0] / 255.0, rng) if is_grey else crop


def pattern_texture(split: Split, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A procedural texture of one of the split's families, (*shape, 3) float32 in [0, 255]."""
    families = PATTERNS[split]
    values = families[int(rng.integers(len(families)))](shape, rng)
    speckle = noise(shape, rng, period=4.0, octaves=2)
    return _colorize(np.clip(0.88 * values + 0.12 * speckle, 0.0, 1.0), rng)


def match_colors(texture: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Give `texture` the mean and standard deviation of `reference` in each CIE Lab channel.

    Color transfer of Reinhard et al., "Color Transfer between Images", 2001.

    texture, reference: (H, W, 3) float32 RGB in [0, 255], of any size
    returns: the shape of `texture`
    """
    lab = cv2.cvtColor(texture / 255.0, cv2.COLOR_RGB2LAB)
    mean, deviation = (moment.ravel() for moment in cv2.meanStdDev(lab))
    target = cv2.meanStdDev(cv2.cvtColor(reference / 255.0, cv2.COLOR_RGB2LAB))
    lab = (lab - mean) * (target[1].ravel() / np.maximum(deviation, 1.0)) + target[0].ravel()
    return np.clip(cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB), 0.0, 1.0) * 255.0


def noise(shape: tuple[int, int], rng: np.random.Generator, period: float, octaves: int = 4) -> np.ndarray:
    """Smooth noise of several octaves; the coarsest has a period of `period` pixels. (*shape,) float32 in [0, 1]."""
    total = np.zeros(shape, dtype=np.float32)
    for octave in range(octaves):
        cell = max(period / 2**octave, 1.0)
        grid = rng.random([int(side / cell) + 4 for side in shape], dtype=np.float32)
        large = cv2.resize(grid, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)
        total += large[: shape[0], : shape[1]] * 0.55**octave
    return cv2.normalize(total, np.empty_like(total), 0.0, 1.0, cv2.NORM_MINMAX)


def _colorize(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Map values in [0, 1], (H, W), to a ramp of three random colors from dark to light, (H, W, 3)."""
    lightness = np.array([rng.uniform(8, 30), rng.uniform(38, 62), rng.uniform(72, 96)])
    hue = rng.uniform(0, 2 * np.pi) + rng.normal(0.0, 0.5, size=3)
    chroma = rng.uniform(5, 45, size=3)
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1).astype(np.float32)
    ramp = cv2.cvtColor(lab[None], cv2.COLOR_LAB2RGB)[0] * 255.0
    channels = [np.interp(values, [0.0, 0.5, 1.0], ramp[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _rotated_grid(shape: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates, rotated by a random angle and slightly distorted; two (H, W) arrays."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    bend = rng.uniform(0, 14)
    return u + bend * noise(shape, rng, 40.0, 2), v + bend * noise(shape, rng, 40.0, 2)


def _clouds(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    return noise(shape, rng, period=rng.uniform(14, 40))


def _stripes(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    u, _ = _rotated_grid(shape, rng)
    wave = np.sin(2 * np.pi * u / rng.uniform(6, 16))
    return 0.5 + 0.5 * np.clip(wave * rng.uniform(1, 4), -1, 1)


def _dots(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    u, v = _rotated_grid(shape, rng)
    period = rng.uniform(7, 14)
    distance = np.hypot((u % period) - period / 2, (v % period) - period / 2) / period
    spots = np.clip((rng.uniform(0.22, 0.38) - distance) * 12, 0, 1)
    return 0.7 * spots + 0.3 * noise(shape, rng, 30.0)


def _checks(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    u, v = _rotated_grid(shape, rng)
    period = rng.uniform(9, 20)
    product = np.sin(2 * np.pi * u / period) * np.sin(2 * np.pi * v / period)
    values: np.ndarray = 0.5 + 0.5 * np.clip(product * rng.uniform(2, 6), -1, 1)
    return values


def _cells(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Voronoi cells of random grey, darker towards their borders."""
    is_ground = np.ones(shape, dtype=np.uint8)
    count = int(np.prod(shape) / rng.uniform(60, 220)) + 2
    is_ground[rng.integers(shape[0], size=count), rng.integers(shape[1], size=count)] = 0
    distance, label = cv2.distanceTransformWithLabels(is_ground, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    grey = rng.random(int(label.max()) + 1, dtype=np.float32)[label]
    values: np.ndarray = np.clip(0.35 + 0.65 * grey - distance / distance.max() * 0.5, 0, 1)
    return values


def _ridges(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    values: np.ndarray = np.sqrt(np.abs(2 * noise(shape, rng, rng.uniform(16, 34), 3) - 1))
    return values


PATTERNS: dict[str, tuple[Callable[[tuple[int, int], np.random.Generator], np.ndarray], ...]] = {
    "train": (_clouds, _stripes, _dots),
    "val": (_checks, _cells, _ridges),
}
