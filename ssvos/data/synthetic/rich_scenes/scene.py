"""The sprites of a rich clip: objects, distractors that look like them, occluders, and their initial positions."""

from dataclasses import dataclass

import cv2
import numpy as np

from ssvos.config import SyntheticConfig
from ssvos.data.synthetic.rich_scenes.backdrop import Backdrop
from ssvos.data.synthetic.rich_scenes.materials import draw_material, match_statistics
from ssvos.data.synthetic.rich_scenes.motion import Camera, draw_path, draw_transforms
from ssvos.data.synthetic.rich_scenes.painting import Sprite
from ssvos.data.synthetic.rich_scenes.parameters import rich_parameters
from ssvos.data.synthetic.rich_scenes.sketch import Sketch
from ssvos.data.synthetic.rich_scenes.sprites import UPRIGHT, draw_kind, draw_sketch, make_sprite, measure
from ssvos.data.synthetic.textures import Split

MIN_PIXELS = 60  # of an object, visible in the first frame
_ATTEMPTS = 12


def min_visible_pixels(config: SyntheticConfig) -> float:
    """Minimum number of visible pixels of every object in the first frame."""
    return max(MIN_PIXELS, 0.75 * rich_parameters(config).smallest_share * config.height * config.width)


@dataclass(frozen=True)
class _Look:
    """The appearance of an object: kind, sketch, texture (S, S, 3) and area in pixels."""

    kind: str
    sketch: Sketch
    texture: np.ndarray
    area: float


def draw_sprites(
    config: SyntheticConfig, split: Split, backdrop: Backdrop, camera: Camera, rng: np.random.Generator
) -> list[Sprite]:
    """Sprites from back to front; each of the objects 1..K is visible enough in the first frame."""
    count = int(rng.integers(1, config.max_objects + 1))
    while True:
        looks = _draw_looks(config, split, backdrop, count, rng)
        for attempt in range(_ATTEMPTS):
            has_others = attempt < _ATTEMPTS // 2  # later attempts have no distractors and occluders
            sprites = _place_sprites(config, looks, split, backdrop, camera, has_others, rng)
            visible = _visible_pixels(sprites, config)
            if all(visible[label] >= 1.3 * min_visible_pixels(config) for label in range(1, count + 1)):
                return sprites
        count = max(count - 1, 1)


def _draw_looks(
    config: SyntheticConfig, split: Split, backdrop: Backdrop, count: int, rng: np.random.Generator
) -> list[_Look]:
    """The appearance of each object."""
    rich = rich_parameters(config)
    looks: list[_Look] = []
    largest = min(config.object_share, 2 * config.object_share / count)
    smallest = min(rich.smallest_share, largest)
    pixels = config.height * config.width
    for label in range(count):
        if label and rng.random() < rich.twin_share:
            looks.append(_twin(looks[int(rng.integers(label))], config, rng))
            continue
        share = float(np.exp(rng.uniform(np.log(smallest), np.log(largest))))
        if label == 0:  # most videos have one object that is not small
            share = max(share, float(np.exp(rng.uniform(np.log(0.5 * (smallest * largest) ** 0.5), np.log(largest)))))
        kind = draw_kind(config, rng)
        is_camouflaged = rng.random() < config.camouflage
        variety = 0.15 * rich.parts if is_camouflaged else None
        sketch = draw_sketch(kind, config, rng, variety)
        side = int(np.clip(2.5 * np.sqrt(share * pixels), 32, 256))
        texture = _object_texture(split, side, rich.parts, rng)
        if is_camouflaged:
            texture = match_statistics(texture, backdrop.canvas[::4, ::4, :3])
        elif rich.parts:
            texture = _reduce_contrast(texture, rng)
        looks.append(_Look(kind, sketch, texture, max(share * pixels, 2.0 * min_visible_pixels(config))))
    return looks


def _object_texture(split: Split, side: int, variety: float, rng: np.random.Generator) -> np.ndarray:
    """A texture for an object, (side, side, 3); often its lower part has another material than its upper part."""
    upper = draw_material(split, (side, side), rng)
    if rng.random() >= 0.7 * variety:
        return upper
    lower, cut = draw_material(split, (side, side), rng), int(side * rng.uniform(0.35, 0.65))
    upper[cut:] = lower[cut:]
    return upper


def _twin(look: _Look, config: SyntheticConfig, rng: np.random.Generator) -> _Look:
    """An object of the same kind, texture and similar size, in another phase of its movement."""
    shift = int(rng.integers(config.num_frames))
    points = np.roll(look.sketch.points, shift, axis=0)
    if shift:  # the movement runs forwards and backwards, so that it has no jump
        shifted = np.arange(config.num_frames) + shift
        period = max(2 * (config.num_frames - 1), 1)
        reflected = config.num_frames - 1 - np.abs(shifted % period - (config.num_frames - 1))
        points = look.sketch.points[reflected]
    sketch = Sketch(points, look.sketch.spans, look.sketch.tints)
    area = max(look.area * rng.uniform(0.6, 1.4), 2.0 * min_visible_pixels(config))
    return _Look(look.kind, sketch, look.texture, area)


def _reduce_contrast(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Medium brightness and less contrast, so that the colors of the parts are visible."""
    mean, deviation = texture.mean(), max(float(texture.std()), 1.0)
    gain = min(rng.uniform(15, 60) / deviation, 1.0)
    return cv2.convertScaleAbs(texture, alpha=gain, beta=float(max(rng.uniform(95, 150) - gain * mean, 0.0)))


def _place_sprites(
    config: SyntheticConfig,
    looks: list[_Look],
    split: Split,
    backdrop: Backdrop,
    camera: Camera,
    has_others: bool,
    rng: np.random.Generator,
) -> list[Sprite]:
    """Sprites of the objects in random order, with distractors between them and occluders in front if `has_others`."""
    rich = rich_parameters(config)
    order = [int(label) + 1 for label in rng.permutation(len(looks))]
    objects = {label: _moving_sprite(label, looks[label - 1], backdrop, camera, config, rng) for label in order}
    sprites = [objects[label] for label in order]
    if has_others:
        for _ in range(int(rng.integers(rich.distractors + 1))):
            look = looks[int(rng.integers(len(looks)))]
            if rng.random() < rich.twin_share:
                look = _twin(look, config, rng)
            else:
                texture = look.texture[::-1] if rng.random() < 0.5 else draw_material(split, (96, 96), rng)
                look = _Look(kind := draw_kind(config, rng), draw_sketch(kind, config, rng), texture, look.area)
            place = int(rng.integers(len(sprites) + 1))
            sprites.insert(place, _moving_sprite(0, look, backdrop, camera, config, rng))
        count = int(rng.integers(rich.occluders + 1))
        sprites += [_occluder(config, split, backdrop, camera, rng) for _ in range(count)]
    return sprites


def _moving_sprite(
    label: int, look: _Look, backdrop: Backdrop, camera: Camera, config: SyntheticConfig, rng: np.random.Generator
) -> Sprite:
    """An object or a distractor on its own path."""
    area, half = measure(look.sketch)
    scale = np.sqrt(look.area / area)
    scale = min(scale, 0.48 * config.height / half[1], 0.45 * config.width / half[0])
    is_followed = label == 1 and camera.follows
    view = draw_path(config, scale * float(half.max()), is_followed, rng)
    if look.kind in UPRIGHT and rng.random() < 0.8:  # most stand on the ground, not in the sky
        foot = view[0, 1] + scale * half[1]
        lowest = max(config.height * 1.02, backdrop.horizon + 1)
        view[:, 1] += np.clip(foot, rng.uniform(max(backdrop.horizon, foot - config.height), lowest), lowest) - foot
    in_world = view + camera.pan
    heading = 1.0 if in_world[-1, 0] >= in_world[0, 0] else -1.0
    transforms = scale * draw_transforms(config, look.kind in UPRIGHT, heading, rng)
    return _sprite_in_frame(label, look.sketch, view, transforms, look.texture, camera, config, rng)


def _occluder(
    config: SyntheticConfig, split: Split, backdrop: Backdrop, camera: Camera, rng: np.random.Generator
) -> Sprite:
    """A post, rail, bunch of leaves or box near the camera, which moves past the view."""
    kind = str(rng.choice(["post", "bar", "foliage", "rigid"], p=[0.4, 0.15, 0.35, 0.1]))
    sketch = draw_sketch(kind, config, rng)
    size = np.array([config.width, config.height], dtype=float)
    nearness = 1 + rich_parameters(config).parallax * rng.uniform(0.1, 1.0)
    place = size * rng.uniform(0, 1, 2)
    if kind == "post":
        place[1] = size[1] / 2
    middle = rng.integers(config.num_frames)  # frame in which it is at `place` in the view
    view = place - nearness * (camera.pan - camera.pan[middle])
    if rng.random() < 0.3:  # some occluders move themselves
        view += rng.normal(0, 0.01, 2) * size * np.arange(config.num_frames)[:, None]
    radius = config.height * {"post": 0.6, "bar": 0.4, "foliage": 0.25, "rigid": 0.15}[kind] * rng.uniform(0.6, 1.3)
    texture = draw_material(split, (128, 128), rng)
    if rng.random() < config.camouflage:
        texture = match_statistics(texture, backdrop.canvas[::4, ::4, :3])
    transforms = np.broadcast_to(radius * np.eye(2), (config.num_frames, 2, 2))
    return _sprite_in_frame(0, sketch, view, transforms, texture, camera, config, rng)


def _sprite_in_frame(
    label: int,
    sketch: Sketch,
    view: np.ndarray,
    transforms: np.ndarray,
    texture: np.ndarray,
    camera: Camera,
    config: SyntheticConfig,
    rng: np.random.Generator,
) -> Sprite:
    """A sprite with centres (T, 2) and transforms (T, 2, 2) in the view, as the camera sees it."""
    rich, unit = rich_parameters(config), config.width / 224
    linear, offset = camera.to_frame[:, :, :2], camera.to_frame[:, :, 2]
    centre = np.einsum("tij,tj->ti", linear, view) + offset
    softness = rich.defocus * unit * max(rng.uniform(-1.0, 0.5), 0.0) * (1.0 if label else 2.0)
    return make_sprite(
        label,
        sketch,
        centre,
        linear @ transforms,
        texture,
        relief=float(max(rng.uniform(-0.5, 1.5), 0.0)),
        softness=softness if softness > 0.2 else 0.0,
        shadow=rich.shadow * float(rng.uniform(-0.5, 1)),
        shutter=rich.motion_blur,
    )


def _visible_pixels(sprites: list[Sprite], config: SyntheticConfig) -> np.ndarray:
    """Number of pixels of every label in the first frame."""
    first = np.zeros((config.height, config.width), np.uint8)
    for sprite in sprites:
        grid = np.rint(sprite.points[0] * 16).astype(np.int32)
        for spans in sprite.sketch.spans:
            cv2.fillPoly(first, [grid[span] for span in spans], sprite.label, shift=4)
    return np.bincount(first.ravel(), minlength=config.max_objects + 1)
