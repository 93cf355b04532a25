"""Sprites: from a kind of object to a sketch, its size, and its texture and motion in the frame."""

import cv2
import numpy as np

from ssvos.config import SyntheticConfig
from ssvos.data.synthetic.rich_scenes.compounds import draw_compound
from ssvos.data.synthetic.rich_scenes.creatures import draw_biped, draw_blob, draw_flapper, draw_walker
from ssvos.data.synthetic.rich_scenes.painting import NEUTRAL, Sprite
from ssvos.data.synthetic.rich_scenes.parameters import rich_parameters
from ssvos.data.synthetic.rich_scenes.sketch import Palette, Sketch
from ssvos.data.synthetic.rich_scenes.things import (
    draw_bar,
    draw_bicycle,
    draw_foliage,
    draw_post,
    draw_rigid,
    draw_vehicle,
)

KINDS = {
    "blob": draw_blob,
    "biped": draw_biped,
    "walker": draw_walker,
    "flapper": draw_flapper,
    "vehicle": draw_vehicle,
    "bicycle": draw_bicycle,
    "rigid": draw_rigid,
    "compound": draw_compound,
    "post": draw_post,
    "bar": draw_bar,
    "foliage": draw_foliage,
}
UPRIGHT = ("biped", "walker", "vehicle", "bicycle", "compound")
_KIND_SHARES = {
    "biped": 0.22,
    "walker": 0.22,
    "vehicle": 0.14,
    "bicycle": 0.1,
    "flapper": 0.1,
    "rigid": 0.08,
    "compound": 0.14,
}
_PIXELS_PER_UNIT = 40  # resolution at which the area of a sketch is counted


def draw_kind(config: SyntheticConfig, rng: np.random.Generator) -> str:
    """The kind of a moving object."""
    if rng.random() < rich_parameters(config).blob_share:
        return "blob"
    return str(rng.choice(list(_KIND_SHARES), p=list(_KIND_SHARES.values())))


def draw_sketch(kind: str, config: SyntheticConfig, rng: np.random.Generator, variety: float | None = None) -> Sketch:
    """A sketch of a kind around the origin.

    variety: how much its parts differ in color; None: drawn up to `config.rich.parts`
    """
    rich = rich_parameters(config)
    if variety is None:
        variety = rich.parts * float(np.sqrt(rng.random()))
    pace = float(rng.choice([0.3, 1.0, 1.0]))
    sketch = KINDS[kind](config.num_frames, rng, Palette(rng, variety), pace)
    if not variety:
        sketch = Sketch(sketch.points, sketch.spans, ((1.0, 1.0, 1.0),) * len(sketch.tints))
    t = np.arange(config.num_frames)[:, None]
    points, phase = sketch.points.copy(), rng.uniform(0, 2 * np.pi, 2)
    strength, rate = 0.09 * rich.deformation * rng.random(2), rng.uniform(0.2, 0.7)
    points[..., 0] += strength[0] * np.sin(2.5 * sketch.points[..., 1] + rate * t + phase[0])
    points[..., 1] += strength[1] * np.sin(2.5 * sketch.points[..., 0] + rate * t + phase[1])
    return Sketch(points, sketch.spans, sketch.tints)


def measure(sketch: Sketch) -> tuple[float, np.ndarray]:
    """Area of a sketch in its first frame, and its half extents (2,), in the units of the sketch."""
    points = sketch.points[0]
    low = points.min(axis=0)
    size = np.ceil((points.max(axis=0) - low) * _PIXELS_PER_UNIT).astype(int) + 2
    plane = np.zeros((size[1], size[0]), np.uint8)
    grid = np.rint((points - low) * _PIXELS_PER_UNIT).astype(np.int32)
    for spans in sketch.spans:
        cv2.fillPoly(plane, [grid[span] for span in spans], 1)
    return cv2.countNonZero(plane) / _PIXELS_PER_UNIT**2, np.abs(points).max(axis=0)


def make_sprite(
    label: int,
    sketch: Sketch,
    centre: np.ndarray,
    transforms: np.ndarray,
    texture: np.ndarray,
    relief: float = 0.0,
    softness: float = 0.0,
    shadow: float = 0.0,
    shutter: float = 0.0,
) -> Sprite:
    """Place a sketch with a texture in the frames.

    centre: in pixels, (T, 2)
    transforms: from the units of the sketch to pixels, (T, 2, 2)
    texture: (S, S, 3) uint8
    relief, softness, shadow: see `Sprite`
    shutter: share of the frame's time in which the shutter is open
    """
    points = np.einsum("tij,tpj->tpi", transforms, sketch.points) + centre[:, None]
    side, reach = texture.shape[0], np.abs(sketch.points).max()
    scale = 2 * reach / (side - 1)
    linear = transforms * scale
    offset = centre - linear @ np.full(2, (side - 1) / 2)
    matrices = np.concatenate([linear, offset[..., None]], axis=-1)
    rgba = cv2.merge([*cv2.split(texture), np.full((side, side), NEUTRAL, np.uint8)])
    velocity = np.gradient(centre, axis=0) if len(centre) > 1 else np.zeros_like(centre)
    return Sprite(label, sketch, points, matrices, rgba, softness, shutter * velocity, relief, shadow)
