"""Sketches of rich objects: parts, each with a few outlines and its own color, in every frame.

Coordinates: x to the right, y down. Objects face right and extend about 1 from the centre.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

_RIM = np.linspace(0.0, 2 * np.pi, 33)[:-1]
CIRCLE = np.stack([np.cos(_RIM), np.sin(_RIM)], axis=-1)
_CAP = np.linspace(-np.pi / 2, np.pi / 2, 7)

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Part:
    """Outlines that are filled together by the even-odd rule.

    contours: each (T, N, 2)
    tint: factors that multiply the texture's RGB
    """

    contours: tuple[np.ndarray, ...]
    tint: Color


def solid(outline: np.ndarray, tint: Color) -> Part:
    """A part with one outline, (T, N, 2)."""
    return Part((outline,), tint)


@dataclass(frozen=True)
class Sketch:
    """Parts from back to front.

    points: points of all outlines, (T, P, 2)
    spans: for each part, the slices of P that its outlines occupy
    tints: of each part
    """

    points: np.ndarray
    spans: tuple[tuple[slice, ...], ...]
    tints: tuple[Color, ...]

    @classmethod
    def of(cls, parts: Sequence[Part]) -> "Sketch":
        spans, start = [], 0
        for part in parts:
            own = []
            for contour in part.contours:
                own.append(slice(start, start + contour.shape[1]))
                start += contour.shape[1]
            spans.append(tuple(own))
        points = np.concatenate([contour for part in parts for contour in part.contours], axis=1)
        return cls(points, tuple(spans), tuple(part.tint for part in parts))


class Palette:
    """Four colors of one object; parts of the same kind share a color."""

    def __init__(self, rng: np.random.Generator, variety: float) -> None:
        """variety: 0 to 1; at 0 every part has the brightness and the color of the texture"""
        self.variety = variety
        light = np.exp(variety * rng.uniform(-2.2, 0.8, size=(4, 1)))
        cast = np.exp(variety * rng.normal(0, rng.choice([0.15, 0.6], size=(4, 1)), size=(4, 3)))
        self._tints = np.clip(light * cast, 0.05, 1.95)

    def __getitem__(self, kind: int) -> Color:
        red, green, blue = self._tints[kind % 4].tolist()
        return red, green, blue

    def shade(self, kind: int, factor: float) -> Color:
        """A color, darker or lighter by a factor."""
        red, green, blue = np.clip(self._tints[kind % 4] * factor, 0.0, 1.99).tolist()
        return red, green, blue


def point(x: float, y: float) -> np.ndarray:
    """A point, (2,)."""
    return np.array([x, y])


def rotate(vector: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Rotate vectors (..., 2) by angles (T,) -> (T, ..., 2)."""
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    rotated: np.ndarray = np.einsum("tij,...j->t...i", matrix, vector)
    return rotated


def disk(centre: np.ndarray, radius: float | np.ndarray, stretch: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """An ellipse around a centre (T, 2) -> (T, 32, 2)."""
    outline: np.ndarray = centre[:, None] + CIRCLE * radius * np.array(stretch)
    return outline


def capsule(start: np.ndarray, end: np.ndarray, first: float, last: float) -> np.ndarray:
    """The outline of a rod with round ends, (T, 14, 2).

    start, end: centres of the ends, (T, 2)
    first, last: radii of the ends
    """
    along = end - start
    angle = np.arctan2(along[:, 1], along[:, 0])[:, None]
    front = np.stack([np.cos(angle + _CAP), np.sin(angle + _CAP)], axis=-1)
    return np.concatenate([end[:, None] + last * front, start[:, None] - first * front], axis=1)


def static(points: ArrayLike, num_frames: int) -> np.ndarray:
    """An outline (N, 2), the same in every frame, (T, N, 2)."""
    outline = np.asarray(points, float)
    return np.broadcast_to(outline, (num_frames, *outline.shape))


def limb(
    root: np.ndarray, angles: tuple[np.ndarray, np.ndarray], lengths: tuple[float, float], width: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two rods connected by a joint.

    root: start of the first rod, (T, 2)
    angles: of both rods, (T,) each, 0 is straight down
    returns: outlines of both rods, and the end of the second, (T, 2)
    """
    joint = root + rotate(np.array([0.0, lengths[0]]), angles[0])
    end = joint + rotate(np.array([0.0, lengths[1]]), angles[1])
    return capsule(root, joint, width, 0.75 * width), capsule(joint, end, 0.75 * width, 0.5 * width), end
