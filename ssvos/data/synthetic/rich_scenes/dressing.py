"""From a kind of object to something that can be painted: its sketch, its size, its texture, its way in the frame."""

import cv2
import numpy as np

from ssvos.config import SyntheticConfig
from ssvos.data.synthetic.rich_scenes.compounds import draw_compound
from ssvos.data.synthetic.rich_scenes.creatures import draw_biped, draw_blob, draw_flapper, draw_walker
from ssvos.data.synthetic.rich_scenes.painting import NEUTRAL, Thing
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
_JOINTED = {
    "biped": 0.22,
    "walker": 0.22,
    "vehicle": 0.14,
    "bicycle": 0.1,
    "flapper": 0.1,
    "rigid": 0.08,
    "compound": 0.14,
}
_MEASURE = 40  # pixels a unit, where a sketch's area is counted


def draw_kind(config: SyntheticConfig, rng: np.random.Generator) -> str:
    """The kind of an object that moves."""
    if rng.random() < config.rich.blob_share:
        return "blob"
    return str(rng.choice(list(_JOINTED), p=list(_JOINTED.values())))


def draw_sketch(kind: str, config: SyntheticConfig, rng: np.random.Generator, variety: float | None = None) -> Sketch:
    """A sketch of a kind whose outlines bend and whose parts differ as the parameters say, around the origin."""
    if variety is None:
        variety = config.rich.parts * float(np.sqrt(rng.random()))
    pace = float(rng.choice([0.3, 1.0, 1.0]))
    sketch = KINDS[kind](config.num_frames, rng, Palette(rng, variety), pace)
    if not variety:
        sketch = Sketch(sketch.points, sketch.spans, ((1.0, 1.0, 1.0),) * len(sketch.tints))
    t = np.arange(config.num_frames)[:, None]
    points, phase = sketch.points.copy(), rng.uniform(0, 2 * np.pi, 2)
    strength, rate = 0.09 * config.rich.deformation * rng.random(2), rng.uniform(0.2, 0.7)
    points[..., 0] += strength[0] * np.sin(2.5 * sketch.points[..., 1] + rate * t + phase[0])
    points[..., 1] += strength[1] * np.sin(2.5 * sketch.points[..., 0] + rate * t + phase[1])
    return Sketch(points, sketch.spans, sketch.tints)


def measure(sketch: Sketch) -> tuple[float, np.ndarray]:
    """Area of a sketch in its first frame and its half extents (2,), in its own units."""
    points = sketch.points[0]
    low = points.min(axis=0)
    size = np.ceil((points.max(axis=0) - low) * _MEASURE).astype(int) + 2
    plane = np.zeros((size[1], size[0]), np.uint8)
    grid = np.rint((points - low) * _MEASURE).astype(np.int32)
    for spans in sketch.spans:
        cv2.fillPoly(plane, [grid[span] for span in spans], 1)
    return cv2.countNonZero(plane) / _MEASURE**2, np.abs(points).max(axis=0)


def dress(
    label: int,
    sketch: Sketch,
    centre: np.ndarray,
    forms: np.ndarray,
    texture: np.ndarray,
    relief: float = 0.0,
    softness: float = 0.0,
    shadow: float = 0.0,
    shutter: float = 0.0,
) -> Thing:
    """A thing in the frame. centre: (T, 2); forms: (T, 2, 2), from the sketch's units to pixels; texture: (S, S, 3)."""
    points = np.einsum("tij,tpj->tpi", forms, sketch.points) + centre[:, None]
    side, reach = texture.shape[0], np.abs(sketch.points).max()
    scale = 2 * reach / (side - 1)
    linear = forms * scale
    offset = centre - linear @ np.full(2, (side - 1) / 2)
    matrices = np.concatenate([linear, offset[..., None]], axis=-1)
    sheet = cv2.merge([*cv2.split(texture), np.full((side, side), NEUTRAL, np.uint8)])
    way = np.gradient(centre, axis=0) if len(centre) > 1 else np.zeros_like(centre)
    return Thing(label, sketch, points, matrices, sheet, softness, shutter * way, relief, shadow)
