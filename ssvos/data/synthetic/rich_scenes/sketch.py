"""What rich objects are made of: parts, each a few outlines of its own colour, at every frame.

Coordinates: x to the right, y down, facing right, about 1 from the middle to the rim.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

_RIM = np.linspace(0.0, 2 * np.pi, 33)[:-1]
CIRCLE = np.stack([np.cos(_RIM), np.sin(_RIM)], axis=-1)
_CAP = np.linspace(-np.pi / 2, np.pi / 2, 7)

Colour = tuple[float, float, float]
PLAIN: Colour = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Part:
    """Outlines, filled together by the even-odd rule. contours: each (T, N, 2); tint: factors of the texture's RGB."""

    contours: tuple[np.ndarray, ...]
    tint: Colour


def solid(outline: np.ndarray, tint: Colour) -> Part:
    """A part of one outline, (T, N, 2)."""
    return Part((outline,), tint)


@dataclass(frozen=True)
class Sketch:
    """Parts from back to front. points: (T, P, 2), those of all; spans: of each part, where its outlines lie in P."""

    points: np.ndarray
    spans: tuple[tuple[slice, ...], ...]
    tints: tuple[Colour, ...]

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
    """Colours for the parts of one object: a few of its own, which parts of one kind share."""

    def __init__(self, rng: np.random.Generator, variety: float) -> None:
        """variety: from 0, where every part is as bright and colourful as the texture, to 1."""
        self.variety = variety
        light = np.exp(variety * rng.uniform(-2.2, 0.8, size=(4, 1)))
        cast = np.exp(variety * rng.normal(0, rng.choice([0.15, 0.6], size=(4, 1)), size=(4, 3)))
        self._tints = np.clip(light * cast, 0.05, 1.95)

    def __getitem__(self, kind: int) -> Colour:
        return tuple(self._tints[kind % 4].tolist())

    def shade(self, kind: int, factor: float) -> Colour:
        """A colour in the shade or in the light."""
        return tuple(np.clip(self._tints[kind % 4] * factor, 0.0, 1.99).tolist())


def at(x: float, y: float) -> np.ndarray:
    """A point, (2,)."""
    return np.array([x, y])


def turned(vector: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Vectors (..., 2) turned by angles (T,) -> (T, ..., 2)."""
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    return np.einsum("tij,...j->t...i", matrix, vector)


def disk(centre: np.ndarray, radius: float | np.ndarray, stretch: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """An oval around (T, 2) -> (T, 32, 2)."""
    return centre[:, None] + CIRCLE * radius * np.array(stretch)


def capsule(start: np.ndarray, end: np.ndarray, first: float, last: float) -> np.ndarray:
    """The rim of a rod with round ends, (T, 2) to (T, 2), its radii at both -> (T, 14, 2)."""
    along = end - start
    angle = np.arctan2(along[:, 1], along[:, 0])[:, None]
    front = np.stack([np.cos(angle + _CAP), np.sin(angle + _CAP)], axis=-1)
    return np.concatenate([end[:, None] + last * front, start[:, None] - first * front], axis=1)


def fixed(points: ArrayLike, num_frames: int) -> np.ndarray:
    """An outline (N, 2) that keeps its form, (T, N, 2)."""
    outline = np.asarray(points, float)
    return np.broadcast_to(outline, (num_frames, *outline.shape))


def limb(
    root: np.ndarray, angles: tuple[np.ndarray, np.ndarray], lengths: tuple[float, float], width: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two rods, from `root` (T, 2) through a joint; angles (T,) from straight down -> both outlines and the end."""
    joint = root + turned(np.array([0.0, lengths[0]]), angles[0])
    end = joint + turned(np.array([0.0, lengths[1]]), angles[1])
    return capsule(root, joint, width, 0.75 * width), capsule(joint, end, 0.75 * width, 0.5 * width), end
