"""The cast of a rich clip: objects, what looks like them, what stands in front of them, and where they begin."""

from dataclasses import dataclass

import cv2
import numpy as np

from ssvos.config import SyntheticConfig
from ssvos.data.synthetic.rich_scenes.backdrop import Backdrop
from ssvos.data.synthetic.rich_scenes.dressing import UPRIGHT, draw_kind, draw_sketch, dress, measure
from ssvos.data.synthetic.rich_scenes.materials import draw_material, match_statistics
from ssvos.data.synthetic.rich_scenes.motion import Camera, draw_forms, draw_path
from ssvos.data.synthetic.rich_scenes.painting import Thing
from ssvos.data.synthetic.rich_scenes.sketch import Sketch
from ssvos.data.synthetic.textures import Split

LEAST_PIXELS = 60  # of an object that shows in the first frame
_TRIES = 12


def least_shown(config: SyntheticConfig) -> float:
    """Pixels of every object in the first frame, at least."""
    return max(LEAST_PIXELS, 0.75 * config.rich.smallest_share * config.height * config.width)


@dataclass(frozen=True)
class _Look:
    """What makes an object: kind, sketch, texture (S, S, 3) and its area in pixels."""

    kind: str
    sketch: Sketch
    texture: np.ndarray
    area: float


def draw_cast(
    config: SyntheticConfig, split: Split, backdrop: Backdrop, camera: Camera, rng: np.random.Generator
) -> list[Thing]:
    """Things from back to front; each of the objects 1..K shows enough in the first frame."""
    count = int(rng.integers(1, config.max_objects + 1))
    while True:
        looks = _draw_looks(config, split, backdrop, count, rng)
        for attempt in range(_TRIES):
            has_company = attempt < _TRIES // 2  # where others are in the way again and again they stay away
            cast = _draw_places(config, looks, split, backdrop, camera, has_company, rng)
            shown = _shown(cast, config)
            if all(shown[label] >= 1.3 * least_shown(config) for label in range(1, count + 1)):
                return cast
        count = max(count - 1, 1)


def _draw_looks(
    config: SyntheticConfig, split: Split, backdrop: Backdrop, count: int, rng: np.random.Generator
) -> list[_Look]:
    """One for each object."""
    looks: list[_Look] = []
    largest = min(config.object_share, 2 * config.object_share / count)
    smallest = min(config.rich.smallest_share, largest)
    pixels = config.height * config.width
    for label in range(count):
        if label and rng.random() < config.rich.twin_share:
            looks.append(_twin(looks[int(rng.integers(label))], config, rng))
            continue
        share = float(np.exp(rng.uniform(np.log(smallest), np.log(largest))))
        if label == 0:  # most videos have one thing of some size
            share = max(share, float(np.exp(rng.uniform(np.log(0.5 * (smallest * largest) ** 0.5), np.log(largest)))))
        kind = draw_kind(config, rng)
        is_hidden = rng.random() < config.camouflage
        variety = 0.15 * config.rich.parts if is_hidden else None
        sketch = draw_sketch(kind, config, rng, variety)
        side = int(np.clip(2.5 * np.sqrt(share * pixels), 32, 256))
        texture = _clothes(split, side, config.rich.parts, rng)
        if is_hidden:
            texture = match_statistics(texture, backdrop.canvas[::4, ::4, :3])
        elif config.rich.parts:
            texture = _levelled(texture, rng)
        looks.append(_Look(kind, sketch, texture, max(share * pixels, 2.0 * least_shown(config))))
    return looks


def _clothes(split: Split, side: int, variety: float, rng: np.random.Generator) -> np.ndarray:
    """A texture for an object, (side, side, 3); of most, the lower part is of another material than the upper."""
    upper = draw_material(split, (side, side), rng)
    if rng.random() >= 0.7 * variety:
        return upper
    lower, cut = draw_material(split, (side, side), rng), int(side * rng.uniform(0.35, 0.65))
    upper[cut:] = lower[cut:]
    return upper


def _twin(look: _Look, config: SyntheticConfig, rng: np.random.Generator) -> _Look:
    """Another one of the same kind, texture and about size, at another moment of its movement."""
    shift = int(rng.integers(config.num_frames))
    points = np.roll(look.sketch.points, shift, axis=0)
    if shift:  # it goes to and fro, so that it does not jump where the roll begins
        there = np.arange(config.num_frames) + shift
        period = max(2 * (config.num_frames - 1), 1)
        folded = config.num_frames - 1 - np.abs(there % period - (config.num_frames - 1))
        points = look.sketch.points[folded]
    sketch = Sketch(points, look.sketch.spans, look.sketch.tints)
    return _Look(look.kind, sketch, look.texture, max(look.area * rng.uniform(0.6, 1.4), 2.0 * least_shown(config)))


def _levelled(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Of medium brightness and less contrast, so that the parts' own colours show."""
    mean, deviation = texture.mean(), max(float(texture.std()), 1.0)
    gain = min(rng.uniform(15, 60) / deviation, 1.0)
    return cv2.convertScaleAbs(texture, alpha=gain, beta=float(max(rng.uniform(95, 150) - gain * mean, 0.0)))


def _draw_places(
    config: SyntheticConfig,
    looks: list[_Look],
    split: Split,
    backdrop: Backdrop,
    camera: Camera,
    has_company: bool,
    rng: np.random.Generator,
) -> list[Thing]:
    order = [int(label) + 1 for label in rng.permutation(len(looks))]
    things = {label: _mover(label, looks[label - 1], backdrop, camera, config, rng) for label in order}
    cast = [things[label] for label in order]
    if has_company:
        for _ in range(int(rng.integers(config.rich.distractors + 1))):
            look = looks[int(rng.integers(len(looks)))]
            if rng.random() < config.rich.twin_share:
                look = _twin(look, config, rng)
            else:
                sheet = look.texture[::-1] if rng.random() < 0.5 else draw_material(split, (96, 96), rng)
                look = _Look(kind := draw_kind(config, rng), draw_sketch(kind, config, rng), sheet, look.area)
            cast.insert(int(rng.integers(len(cast) + 1)), _mover(0, look, backdrop, camera, config, rng))
        count = int(rng.integers(config.rich.occluders + 1))
        cast += [_occluder(config, split, backdrop, camera, rng) for _ in range(count)]
    return cast


def _mover(
    label: int, look: _Look, backdrop: Backdrop, camera: Camera, config: SyntheticConfig, rng: np.random.Generator
) -> Thing:
    """An object or what looks like one, on a way of its own."""
    area, half = measure(look.sketch)
    scale = np.sqrt(look.area / area)
    scale = min(scale, 0.48 * config.height / half[1], 0.45 * config.width / half[0])
    is_led = label == 1 and camera.follows
    view = draw_path(config, scale * float(half.max()), is_led, rng)
    if look.kind in UPRIGHT and rng.random() < 0.8:  # most stand on the ground, not in the sky
        foot = view[0, 1] + scale * half[1]
        lowest = max(config.height * 1.02, backdrop.horizon + 1)
        view[:, 1] += np.clip(foot, rng.uniform(max(backdrop.horizon, foot - config.height), lowest), lowest) - foot
    way = view + camera.pan
    heading = 1.0 if way[-1, 0] >= way[0, 0] else -1.0
    forms = scale * draw_forms(config, look.kind in UPRIGHT, heading, rng)
    return _in_frame(label, look.sketch, view, forms, look.texture, camera, config, rng)


def _occluder(
    config: SyntheticConfig, split: Split, backdrop: Backdrop, camera: Camera, rng: np.random.Generator
) -> Thing:
    """A post, rail, bunch of leaves or box near the camera, past which the view moves."""
    kind = str(rng.choice(["post", "bar", "foliage", "rigid"], p=[0.4, 0.15, 0.35, 0.1]))
    sketch = draw_sketch(kind, config, rng)
    size = np.array([config.width, config.height], dtype=float)
    nearness = 1 + config.rich.parallax * rng.uniform(0.1, 1.0)
    place = size * rng.uniform(0, 1, 2)
    if kind == "post":
        place[1] = size[1] / 2
    middle = rng.integers(config.num_frames)  # when it stands at its place in the view
    view = place - nearness * (camera.pan - camera.pan[middle])
    if rng.random() < 0.3:  # it moves by itself
        view += rng.normal(0, 0.01, 2) * size * np.arange(config.num_frames)[:, None]
    radius = config.height * {"post": 0.6, "bar": 0.4, "foliage": 0.25, "rigid": 0.15}[kind] * rng.uniform(0.6, 1.3)
    texture = draw_material(split, (128, 128), rng)
    if rng.random() < config.camouflage:
        texture = match_statistics(texture, backdrop.canvas[::4, ::4, :3])
    forms = np.broadcast_to(radius * np.eye(2), (config.num_frames, 2, 2))
    return _in_frame(0, sketch, view, forms, texture, camera, config, rng)


def _in_frame(
    label: int,
    sketch: Sketch,
    view: np.ndarray,
    forms: np.ndarray,
    texture: np.ndarray,
    camera: Camera,
    config: SyntheticConfig,
    rng: np.random.Generator,
) -> Thing:
    rich, unit = config.rich, config.width / 224
    linear, offset = camera.to_frame[:, :, :2], camera.to_frame[:, :, 2]
    centre = np.einsum("tij,tj->ti", linear, view) + offset
    softness = rich.defocus * unit * max(rng.uniform(-1.0, 0.5), 0.0) * (1.0 if label else 2.0)
    return dress(
        label,
        sketch,
        centre,
        linear @ forms,
        texture,
        relief=float(max(rng.uniform(-0.5, 1.5), 0.0)),
        softness=softness if softness > 0.2 else 0.0,
        shadow=rich.shadow * float(rng.uniform(-0.5, 1)),
        shutter=rich.motion_blur,
    )


def _shown(cast: list[Thing], config: SyntheticConfig) -> np.ndarray:
    """Pixels of every label in the first frame."""
    first = np.zeros((config.height, config.width), np.uint8)
    for thing in cast:
        grid = np.rint(thing.points[0] * 16).astype(np.int32)
        for spans in thing.sketch.spans:
            cv2.fillPoly(first, [grid[span] for span in spans], thing.label, shift=4)
    return np.bincount(first.ravel(), minlength=config.max_objects + 1)
