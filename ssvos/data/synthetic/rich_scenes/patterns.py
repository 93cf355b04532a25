"""Grey patterns of the rich clips: square tiles, computed once per process, from which textures are cropped.

The tiles are always the same. Each clip draws its tile and the rotation, scale and colors of the crop.
"""

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

from ssvos.data.synthetic.rich_scenes.sketch import point
from ssvos.data.synthetic.textures import PATTERNS, Split, noise

TILE = 384  # side in pixels
VARIANTS = 5
_SHAPE = (TILE, TILE)

Family = Callable[[np.random.Generator], np.ndarray]


@cache
def tile(split: Split, family: int, variant: int) -> np.ndarray:
    """A pattern of a family of the split, (TILE, TILE) uint8, over the whole range of greys."""
    rng = np.random.default_rng([len(split), family, variant])
    values = FAMILIES[split][family](rng)
    values = values.astype(np.float32)
    grey = cv2.normalize(values, np.empty_like(values), 0.0, 255.0, cv2.NORM_MINMAX).astype(np.uint8)
    grey.flags.writeable = False
    return grey


def draw_tile(split: Split, rng: np.random.Generator) -> np.ndarray:
    """A random tile of the split."""
    return tile(split, int(rng.integers(len(FAMILIES[split]))), int(rng.integers(VARIANTS)))


@cache
def cloud_tile(variant: int) -> np.ndarray:
    """Smooth noise for masks, shadows and profiles. It gives no texture by itself, so both splits use it."""
    grey = noise(_SHAPE, np.random.default_rng([7, variant]), period=96.0, octaves=4)
    return (255 * grey).astype(np.uint8)


def draw_drift(shape: tuple[int, int], num_frames: int, speed: float, rng: np.random.Generator) -> np.ndarray:
    """Clouds that move over a field of `shape`, (T, *shape) float32 in [0, 1].

    speed: deviation of the motion, in pixels of the cloud tile per frame
    """
    cloud, scale = cloud_tile(int(rng.integers(8))), rng.uniform(0.5, 3)
    place, motion = rng.uniform(60, 250, 2), rng.normal(0, speed, 2)
    planes = []
    for t in range(num_frames):
        matrix = np.array([[scale, 0, place[0] + t * motion[0]], [0, scale, place[1] + t * motion[1]]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        planes.append(cv2.warpAffine(cloud, matrix, shape[::-1], flags=flags, borderMode=cv2.BORDER_REFLECT_101))
    drift: np.ndarray = np.stack(planes).astype(np.float32) / 255.0
    return drift


@cache
def rough_tile(variant: int) -> np.ndarray:
    """Fine noise with mean 128 and deviation 32, for surfaces and for sensor grain."""
    rng = np.random.default_rng([11, variant])
    fine = rng.standard_normal((2 * TILE, 2 * TILE), dtype=np.float32)
    smooth = cv2.GaussianBlur(fine, (0, 0), 0.6 + 0.3 * variant)
    values: np.ndarray = np.clip(np.rint(128 + 32 * smooth / smooth.std()), 0, 255).astype(np.uint8)
    return values


def _clouds(rng: np.random.Generator) -> np.ndarray:
    return noise(_SHAPE, rng, period=rng.uniform(30, 110), octaves=6)


def _billows(rng: np.random.Generator) -> np.ndarray:
    """Ridged noise of several octaves; each octave is weaker where the previous one is low."""
    total, weight = np.zeros(_SHAPE, np.float32), np.ones(_SHAPE, np.float32)
    for octave in range(5):
        ridge = (1 - np.abs(2 * noise(_SHAPE, rng, 90 / 2**octave, 1) - 1)) ** 2 * weight
        total += ridge * 0.6**octave
        weight = np.clip(2 * ridge, 0.2, 1)
    return total


def _wood(rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:TILE, :TILE].astype(np.float32)
    bent = x + rng.uniform(10, 60) * noise(_SHAPE, rng, 160, 2) + 0.1 * y
    wave = np.sin(2 * np.pi * bent / rng.uniform(8, 40))
    values: np.ndarray = np.clip(wave * rng.uniform(0.8, 4), -1, 1) + 0.5 * noise((TILE, TILE), rng, 12, 2)
    return values


def _dots(rng: np.random.Generator) -> np.ndarray:
    period = rng.uniform(10, 28)
    y, x = np.mgrid[:TILE, :TILE].astype(np.float32) + 6 * noise(_SHAPE, rng, 60, 2)
    distance = np.hypot((x % period) - period / 2, (y % period) - period / 2) / period
    values: np.ndarray = np.clip((rng.uniform(0.2, 0.4) - distance) * 10, 0, 1) + 0.25 * noise(_SHAPE, rng, 40, 3)
    return values


def _blots(rng: np.random.Generator) -> np.ndarray:
    level = noise(_SHAPE, rng, rng.uniform(30, 80), 3)
    steps = int(rng.integers(2, 5))
    values: np.ndarray = np.floor(level * steps) / steps + 0.1 * noise(_SHAPE, rng, 6, 2)
    return values


def _nearest_points(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the nearest of `count` random points, and the index of that point; two tiles."""
    ground = np.ones(_SHAPE, np.uint8)
    ground[rng.integers(TILE, size=count), rng.integers(TILE, size=count)] = 0
    return cv2.distanceTransformWithLabels(ground, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)


def _cracks(rng: np.random.Generator) -> np.ndarray:
    _, label = _nearest_points(rng, int(rng.integers(60, 400)))
    edge = cv2.morphologyEx((label % 251).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0
    lines = cv2.GaussianBlur(edge.astype(np.float32), (0, 0), 0.8)
    return 0.7 * noise(_SHAPE, rng, 40, 4) - np.clip(2 * lines, 0, 1)


def _pebbles(rng: np.random.Generator) -> np.ndarray:
    distance, label = _nearest_points(rng, int(rng.integers(150, 900)))
    grey = rng.random(int(label.max()) + 1, dtype=np.float32)[label]
    values: np.ndarray = grey - 0.9 * distance / distance.max() + 0.15 * noise(_SHAPE, rng, 8, 2)
    return values


def _leaves(rng: np.random.Generator) -> np.ndarray:
    """Foliage: overlapping ellipses, later ones lighter."""
    plane = np.zeros(_SHAPE, np.float32)
    count, length = 1500, rng.uniform(7, 16)
    for i in range(count):
        x, y = (int(v) for v in rng.integers(TILE, size=2))
        axes = (int(length * rng.uniform(0.6, 1.4)), int(length * rng.uniform(0.2, 0.55)) + 1)
        grey = 0.15 + 0.5 * i / count + rng.uniform(0, 0.35)
        cv2.ellipse(plane, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, float(grey), -1, cv2.LINE_AA)
    return plane


def _strokes(rng: np.random.Generator) -> np.ndarray:
    """Rows of short strokes, like writing."""
    plane = np.full(_SHAPE, 0.9, np.float32)
    pitch = int(rng.integers(10, 26))
    for row in range(pitch, TILE, pitch):
        x = int(rng.integers(20))
        while x < TILE:
            steps = rng.integers(-pitch // 3, pitch // 3 + 1, size=(4, 2)) + point(x, row - pitch // 3)
            cv2.polylines(plane, [steps.astype(np.int32)], False, 0.1, max(1, pitch // 9), cv2.LINE_AA)
            x += int(pitch * rng.choice([0.6, 0.6, 0.7, 1.4]))
    return plane + 0.08 * noise(_SHAPE, rng, 50, 3)


def _bricks(rng: np.random.Generator) -> np.ndarray:
    height, width, joint = int(rng.integers(14, 40)), int(rng.integers(24, 90)), int(rng.integers(1, 4))
    plane = np.full(_SHAPE, rng.choice([0.05, 0.95]), np.float32)
    for row in range(0, TILE, height):
        for x in range(-int(rng.integers(width)), TILE, width):
            cv2.rectangle(plane, (x, row), (x + width - joint, row + height - joint), float(rng.uniform(0.3, 0.75)), -1)
    return plane + 0.3 * noise(_SHAPE, rng, 20, 4)


def _blocks(rng: np.random.Generator) -> np.ndarray:
    """Overlapping polygons, one grey each, on a gradient: edges and flat regions of all sizes."""
    plane = np.tile(np.linspace(0, 1, TILE, dtype=np.float32), (TILE, 1))
    for _ in range(int(rng.integers(15, 70))):
        corners = rng.integers(TILE, size=2) + rng.normal(0, rng.uniform(10, 70), size=(int(rng.integers(3, 7)), 2))
        hull = cv2.convexHull(corners.astype(np.int32))
        cv2.fillConvexPoly(plane, hull, float(rng.random()), cv2.LINE_AA)
    return plane + 0.1 * noise(_SHAPE, rng, 16, 3)


def _hair(rng: np.random.Generator) -> np.ndarray:
    """Fibres in one direction, like fur, grass or rain."""
    fine = rng.random(_SHAPE, dtype=np.float32)
    length = int(rng.integers(9, 31))
    return cv2.blur(fine, (1, length)) * 2 + 0.5 * noise(_SHAPE, rng, 60, 3)


def _from_texture(family: Callable[[tuple[int, int], np.random.Generator], np.ndarray]) -> Family:
    return lambda rng: family(_SHAPE, rng)


FAMILIES: dict[str, tuple[Family, ...]] = {
    "train": (
        *(_clouds, _billows, _wood, _dots, _blots, _cracks, _pebbles, _leaves, _strokes, _bricks, _blocks, _hair),
    ),
    "val": tuple(_from_texture(family) for family in PATTERNS["val"]),
}
