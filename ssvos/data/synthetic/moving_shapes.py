"""Shapes of the embedded data set: outlines that deform over time, their paths, and the path of the camera."""

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from ssvos.config import SyntheticConfig

REFERENCE_WIDTH = 224  # speeds are in pixels per frame at this width
MAX_STEP = 6.0  # largest speed
LEAVING_SHARE = 0.12  # of shapes that leave the frame and come back
_SUBPIXEL_BITS = 4


class Outline(Protocol):
    """A deforming outline around the origin."""

    @property
    def reach(self) -> float:
        """Largest distance of its points from the origin."""
        ...

    def polygons(self, t: float) -> list[np.ndarray]:
        """Polygons whose union is the shape at time t (in frames), each (N, 2) float, in pixels."""
        ...


@dataclass(frozen=True)
class Blob:
    """A contour in polar coordinates: a Fourier series in the angle with coefficients that oscillate over time.

    radius: in pixels
    stretch: ratio of the two axes
    rest, swing, phase, rate: mean, amplitude, phase and frequency of the coefficients, (K,) for the harmonics 2..K+1
    """

    radius: float
    stretch: float
    rest: np.ndarray
    swing: np.ndarray
    phase: np.ndarray
    rate: np.ndarray
    reach: float

    def polygons(self, t: float) -> list[np.ndarray]:
        angle = np.linspace(0.0, 2 * np.pi, 120, endpoint=False)
        harmonic = np.arange(2, 2 + len(self.rest))
        coefficient = self.rest + self.swing * np.sin(self.rate * t + self.phase)
        waves = np.cos(np.outer(angle, harmonic) + self.phase) @ coefficient
        radius = self.radius * np.clip(1.0 + waves, 0.45, 1.75)
        root = np.sqrt(self.stretch)
        return [np.stack([radius * np.cos(angle) * root, radius * np.sin(angle) / root], axis=-1)]


@dataclass(frozen=True)
class Figure:
    """An oval body with swinging limbs.

    radius: of the body in pixels
    rest, swing, phase, rate: mean, amplitude, phase and frequency of each limb's angle, (L,)
    length: of each limb in pixels, (L,)
    """

    radius: float
    rest: np.ndarray
    swing: np.ndarray
    phase: np.ndarray
    rate: np.ndarray
    length: np.ndarray
    reach: float

    def polygons(self, t: float) -> list[np.ndarray]:
        angle = np.linspace(0.0, 2 * np.pi, 64, endpoint=False)
        circle = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        parts = [circle * [self.radius, 0.68 * self.radius]]
        turn = self.rest + self.swing * np.sin(self.rate * t + self.phase)
        for i, limb in enumerate(turn):
            root = np.array([np.cos(self.rest[i]) * 0.75, np.sin(self.rest[i]) * 0.5]) * self.radius
            axis = np.array([np.cos(limb), np.sin(limb)])
            half = 0.5 * self.length[i]
            oval = circle[:, :1] * half * axis + circle[:, 1:] * 0.22 * self.radius * [-axis[1], axis[0]]
            parts.append(root + half * axis + oval)
        return parts


@dataclass(frozen=True)
class MovingShape:
    """An outline that moves over the frame.

    centre: (x, y) in pixels, (T, 2)
    angle: in radians, (T,)
    scale: (T,)
    """

    outline: Outline
    centre: np.ndarray
    angle: np.ndarray
    scale: np.ndarray

    @property
    def extent(self) -> float:
        """Radius in pixels, at scale 1, of a disk that contains the outline at all times."""
        return self.outline.reach

    def coverage(self, t: int, shape: tuple[int, int]) -> np.ndarray:
        """The share of each pixel that the shape covers in frame t: `shape` = (H, W) float32 in [0, 1]."""
        fine = 3
        plane = np.zeros((shape[0] * fine, shape[1] * fine), dtype=np.uint8)
        for polygon in self.outline.polygons(t):
            points = (polygon @ self._linear(t).T + self.centre[t] + 0.5) * fine - 0.5
            fixed_point = np.rint(points * 2**_SUBPIXEL_BITS).astype(np.int32)
            cv2.fillPoly(plane, [fixed_point], 255, shift=_SUBPIXEL_BITS)
        return cv2.resize(plane, shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255.0

    def texture_to_frame(self, t: int, side: int) -> np.ndarray:
        """Matrix (2, 3) from a texture of `side` x `side` pixels, centred on the shape, to frame t."""
        linear = self._linear(t)
        offset = self.centre[t] - linear @ np.full(2, (side - 1) / 2)
        return np.hstack([linear, offset[:, None]])

    def _linear(self, t: int) -> np.ndarray:
        linear: np.ndarray = self.scale[t] * _rotation(self.angle[t])
        return linear


def draw_shape(config: SyntheticConfig, share: float, rng: np.random.Generator) -> MovingShape:
    """A random shape on a random path that covers about `share` of the frame, or half of that if it leaves it."""
    radius = np.sqrt(share * config.height * config.width / np.pi)
    is_leaving = rng.random() < LEAVING_SHARE
    if is_leaving:  # a large shape would not leave the frame before the clip ends
        radius *= 0.7
    outline: Outline = _draw_blob(radius, rng) if rng.random() < 0.55 else _draw_figure(0.92 * radius, rng)
    t = np.arange(config.num_frames)
    turn = rng.uniform(-0.04, 0.04) * t + rng.uniform(0, 0.3) * np.sin(rng.uniform(0.15, 0.45) * t)
    growth = rng.uniform(0, 0.22) * np.sin(rng.uniform(0.1, 0.35) * t) * rng.choice([-1, 1])
    return MovingShape(
        outline=outline,
        centre=_draw_path(config, radius, is_leaving, rng),
        angle=rng.uniform(0, 2 * np.pi) + turn,
        scale=1.0 + growth,
    )


def camera_path(config: SyntheticConfig, canvas: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Matrices (T, 2, 3) from a background canvas of (H, W) pixels to each frame: pan, zoom, slight rotation."""
    t = np.arange(config.num_frames)
    unit = config.width / REFERENCE_WIDTH
    pan = rng.uniform(-1.6, 1.6, size=2) * unit * t[:, None]
    pan += rng.uniform(0, 5) * unit * np.sin(rng.uniform(0.1, 0.4, size=2) * t[:, None])
    zoom = 1.0 + rng.uniform(-0.12, 0.12) * np.sin(rng.uniform(0.05, 0.2) * t)
    angle = np.deg2rad(rng.uniform(-6, 6)) * np.sin(rng.uniform(0.05, 0.25) * t)
    linear = zoom[:, None, None] * _rotation(angle)
    middle = np.array([config.width, config.height]) / 2
    offset = middle + pan - pan.mean(axis=0) - linear @ (np.array(canvas[::-1]) / 2)
    return np.concatenate([linear, offset[..., None]], axis=-1)


def _rotation(angle: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 2, 2) of angles (...) in radians."""
    rows = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


def _draw_blob(radius: float, rng: np.random.Generator) -> Blob:
    harmonics = 5
    falloff = 1.0 / np.arange(1, harmonics + 1)
    return Blob(
        radius=radius,
        stretch=rng.uniform(1.0, 2.2),
        rest=rng.normal(0.0, 0.16, harmonics) * falloff,
        swing=rng.uniform(0.05, 0.22, harmonics) * falloff,
        phase=rng.uniform(0, 2 * np.pi, harmonics),
        rate=rng.uniform(0.15, 0.5, harmonics),
        reach=radius * 1.75 * np.sqrt(2.2),
    )


def _draw_figure(radius: float, rng: np.random.Generator) -> Figure:
    limbs = int(rng.integers(3, 6))
    spread = 2 * np.pi * (np.arange(limbs) + rng.uniform(-0.25, 0.25, limbs)) / limbs
    return Figure(
        radius=radius,
        rest=spread,
        swing=rng.uniform(0.25, 0.8, limbs),
        phase=rng.uniform(0, 2 * np.pi, limbs),
        rate=rng.uniform(0.25, 0.6, limbs),
        length=rng.uniform(0.8, 1.4, limbs) * radius,
        reach=radius * 2.4,
    )


def _draw_path(config: SyntheticConfig, radius: float, is_leaving: bool, rng: np.random.Generator) -> np.ndarray:
    """Centres (T, 2) of a movement along a curve at a varying speed.

    A leaving path starts at a side of the frame, leaves the frame there, and comes back.
    """
    size = np.array([config.width, config.height], dtype=float)
    start, end = (size * rng.uniform(0.15, 0.85, size=2) for _ in range(2))
    bend = size * rng.uniform(-0.1, 1.1, size=2)
    mean_speed = config.speed * rng.uniform(0.65, 1.35)
    if is_leaving:
        side = rng.choice([-1.0, 1.0])
        border = size[0] / 2 * (1 + side)
        start[0] = border - side * rng.uniform(0.4, 1.2) * radius
        bend[0] = border + side * 5.0 * radius
        end[0] = border - side * 1.2 * radius
        end[1] = bend[1] = start[1] + rng.uniform(-1, 1) * radius
        mean_speed = rng.uniform(4.2, 5.8)  # leave and come back before the clip ends
    u = np.linspace(0.0, 1.0, 500)[:, None]
    curve = (1 - u) ** 2 * start + 2 * u * (1 - u) * bend + u**2 * end
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(curve, axis=0).T))])
    t = np.arange(config.num_frames)
    wave = np.sin(rng.uniform(0.2, 0.6) * t + rng.uniform(0, 2 * np.pi))
    speed = np.minimum(mean_speed * (1 + rng.uniform(0.1, 0.6) * wave), MAX_STEP)
    distance = (np.cumsum(speed) - speed[0]) * config.width / REFERENCE_WIDTH
    reflected = length[-1] - np.abs(distance % (2 * length[-1]) - length[-1])  # reverse at the end of the curve
    return np.stack([np.interp(reflected, length, curve[:, axis]) for axis in range(2)], axis=-1)
