"""Backgrounds of the rich clips: one surface, or a sky or wall above a ground in perspective, with clutter."""

from dataclasses import dataclass

import cv2
import numpy as np

from ssvos.config import SyntheticConfig
from ssvos.data.synthetic.rich_scenes.materials import crop_tile, draw_material, match_statistics
from ssvos.data.synthetic.rich_scenes.motion import Camera
from ssvos.data.synthetic.rich_scenes.painting import compose, paint
from ssvos.data.synthetic.rich_scenes.parameters import rich_parameters
from ssvos.data.synthetic.rich_scenes.patterns import cloud_tile, draw_drift
from ssvos.data.synthetic.rich_scenes.sprites import draw_sketch, make_sprite
from ssvos.data.synthetic.textures import Split

_MAX_CANVAS = 1.9  # in frames; beyond the canvas the background is mirrored


@dataclass(frozen=True)
class Backdrop:
    """A background and its motion.

    canvas: (H', W', 4) uint8, RGB and 255, because OpenCV warps four channels twice as fast as three
    to_frame: from the canvas to the frames, (T, 2, 3)
    horizon: its y in the view
    ripple: displacement in pixels of the canvas, at an eighth of the frame's size, (T, h, w, 2) float32, or None
    """

    canvas: np.ndarray
    to_frame: np.ndarray
    horizon: float
    ripple: np.ndarray | None


def draw_backdrop(config: SyntheticConfig, split: Split, camera: Camera, rng: np.random.Generator) -> Backdrop:
    """A background that is large enough for the camera's path over it."""
    rich = rich_parameters(config)
    frame = np.array([config.width, config.height], dtype=float)
    distance = 1 - 0.6 * rich.parallax * rng.random()
    path = distance * camera.pan
    low = np.minimum(path.min(axis=0), 0) - 0.1 * frame
    size = np.minimum(np.maximum(path.max(axis=0), 0) + 1.1 * frame - low, _MAX_CANVAS * frame)
    shape = (int(size[1]), int(size[0]))
    is_scene = rng.random() < rich.scene_share
    horizon = rng.uniform(0.1, 0.65) * config.height if is_scene else -config.height
    canvas = _scene(split, shape, int(horizon - low[1]), rng) if is_scene else draw_material(split, shape, rng)
    canvas = _add_clutter(canvas, horizon - low[1], config, split, rng)
    blur = rich.defocus * config.width / 224 * max(rng.uniform(-2.0, 1.0), 0.0)
    if blur > 0.2:
        canvas = cv2.GaussianBlur(canvas, (0, 0), blur)
    elif rng.random() < 0.6:  # sharpen, as cameras do; warping into the frame softens it again
        canvas = cv2.addWeighted(canvas, 2.0, cv2.GaussianBlur(canvas, (3, 3), 0), -1.0, 0.0)
    matrices = camera.to_frame.copy()
    matrices[:, :, 2] += np.einsum("tij,tj->ti", camera.to_frame[:, :, :2], low - path)
    ripple = _draw_ripple(config, horizon, rng) if rng.random() < rich.ripple_share else None
    return Backdrop(cv2.cvtColor(canvas, cv2.COLOR_RGB2RGBA), matrices, horizon, ripple)


def _draw_ripple(config: SyntheticConfig, horizon: float, rng: np.random.Generator) -> np.ndarray:
    """Waves like those of water, or of grass and leaves in the wind: everywhere, or only on the ground."""
    shape = (max(config.height // 8, 4), max(config.width // 8, 4))
    waves = [draw_drift(shape, config.num_frames, rng.uniform(4, 12), rng) - 0.5 for _ in range(2)]
    strength = rng.uniform(3, 10) * config.width / 224
    weight = np.ones((shape[0], 1), np.float32)
    if rng.random() < 0.6:
        weight[: max(int(shape[0] * horizon / config.height) + 1, 0)] = 0
    ripple: np.ndarray = (strength * np.stack(waves, axis=-1) * weight[..., None]).astype(np.float32)
    return ripple


def _scene(split: Split, shape: tuple[int, int], horizon: int, rng: np.random.Generator) -> np.ndarray:
    """A wall or sky above the horizon, sometimes a line of trees or houses on it, and ground below."""
    horizon = int(np.clip(horizon, 8, shape[0] - 8))
    canvas = np.empty((*shape, 3), np.uint8)
    far = (horizon, shape[1])
    canvas[:horizon] = _sky(far, rng) if rng.random() < 0.55 else draw_material(split, far, rng)
    canvas[horizon:] = _ground(split, (shape[0] - horizon, shape[1]), rng)
    if rng.random() < 0.6:
        tall = max(int(horizon * rng.uniform(0.15, 0.8)), 4)
        band = draw_material(split, (tall, shape[1]), rng)
        line = _skyline(tall, shape[1], rng)
        weight = cv2.GaussianBlur(line, (3, 3), 0)
        above = canvas[horizon - tall : horizon]
        canvas[horizon - tall : horizon] = cv2.blendLinear(band, above, weight, 1 - weight)
    if rng.random() < 0.5:  # the border between far and near is often not sharp
        seam = slice(max(horizon - 3, 0), horizon + 3)
        canvas[seam] = cv2.blur(canvas[seam], (1, 5))
    return canvas


def _sky(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A gradient between two colors, sometimes with clouds."""
    high = rng.normal([115, 150, 195], 12) * rng.uniform(0.5, 1.2) + rng.normal(0, [20, 8, 15])
    low = 0.4 * high + 0.6 * rng.normal([215, 220, 225], 22)
    share = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None, None]
    ramp = np.clip(high * (1 - share) + low * share, 0, 255).astype(np.uint8)
    sky = cv2.resize(ramp, shape[::-1])
    if rng.random() < 0.6:
        cloud = crop_tile(cloud_tile(int(rng.integers(8))), shape, rng, (0.8, 3.0)).astype(np.float32) / 255
        weight = np.clip((cloud - rng.uniform(0.4, 0.7)) * rng.uniform(1, 5), 0, 0.95)
        white = np.full_like(sky, rng.integers(190, 256))
        sky = cv2.blendLinear(white, sky, weight, 1 - weight)
    return sky


def _ground(split: Split, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A surface that shrinks towards the horizon, sometimes with a road of another material."""
    side = int(np.clip(max(shape), 256, 448))
    ground = _in_perspective(draw_material(split, (side, side), rng), shape, rng)
    if rng.random() < 0.4:
        road = _in_perspective(draw_material(split, (side, side), rng), shape, rng)
        far, near = rng.uniform(0, 1, 2) * shape[1], rng.uniform(-0.2, 1.2, 2) * shape[1]
        corners = [[far[0], 0], [far[0] + 0.1 * shape[1], 0], [near.max(), shape[0]], [near.min(), shape[0]]]
        weight = np.zeros(shape, np.float32)
        cv2.fillConvexPoly(weight, np.array(corners).astype(np.int32), 1.0, cv2.LINE_AA)
        ground = cv2.blendLinear(road, ground, weight, 1 - weight)
    return ground


def _in_perspective(surface: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A surface on the ground; its horizon is slightly above the upper border of `shape`."""
    side = surface.shape[0]
    repeat = rng.uniform(0.8, 1.8)
    near = repeat * side * np.array([-0.5, 0.5]) / rng.uniform(1.2, 3.0)
    far = repeat * side * np.array([-0.5, 0.5]) * rng.uniform(1.2, 2.0)
    depth = side * rng.uniform(0.8, 2.0)
    corners = [[far[0], -depth], [far[1], -depth], [near[1], 0], [near[0], 0]]
    source = np.array(corners, np.float32) + side / 2
    target = np.array([[0, 0], [shape[1], 0], [shape[1], shape[0]], [0, shape[0]]], np.float32)
    matrix = cv2.getPerspectiveTransform(target, source)
    return cv2.warpPerspective(
        surface, matrix, shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101
    )


def _skyline(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """1 below a profile of trees or houses, (height, width) float32."""
    profile: np.ndarray = cloud_tile(int(rng.integers(8)))[int(rng.integers(300))].astype(np.float32) / 255
    if rng.random() < 0.4:  # flat roofs
        steps = rng.random(int(rng.integers(4, 14)), dtype=np.float32)
        profile = cv2.resize(steps[None], (width, 1), interpolation=cv2.INTER_NEAREST)[0]
    profile = cv2.resize(profile[None], (width, 1))[0]
    skyline: np.ndarray = (np.arange(height)[:, None] >= (1 - profile) * height * 0.9).astype(np.float32)
    return skyline


def _add_clutter(
    canvas: np.ndarray, horizon: float, config: SyntheticConfig, split: Split, rng: np.random.Generator
) -> np.ndarray:
    """Paint things that stand on the canvas, from far to near; nearer ones are larger."""
    count = int(rng.integers(rich_parameters(config).clutter + 1))
    bottoms = np.sort(rng.uniform(max(horizon, 0), canvas.shape[0], count))
    textures: list[np.ndarray] = []
    still = config.model_copy(update={"num_frames": 1})
    for bottom in bottoms:
        if len(textures) < 3:
            textures.append(draw_material(split, (96, 96), rng))
        texture = textures[int(rng.integers(len(textures)))]
        if rng.random() < 0.5:
            texture = match_statistics(texture, canvas)
        depth = (bottom - horizon) / max(canvas.shape[0] - horizon, 1.0)
        radius = config.height * rng.uniform(0.03, 0.16) * (0.3 + depth)
        kind = str(rng.choice(["rigid", "blob", "post", "foliage", "biped", "vehicle", "bar", "walker"], p=_KINDS))
        radius *= {"post": 2.0, "bar": 1.5}.get(kind, 1.0)
        sketch = draw_sketch(kind, still, rng)
        centre = np.array([[rng.uniform(0, canvas.shape[1]), bottom - 0.6 * radius]])
        transform = radius * np.eye(2)[None] * [rng.choice([-1.0, 1.0]), 1.0]
        patch = paint(
            make_sprite(0, sketch, centre, transform, texture, relief=float(max(rng.uniform(-0.5, 1.2), 0.0))),
            0,
            canvas.shape[:2],
        )
        if patch is not None:
            compose(canvas, patch)
    return canvas


_KINDS = (0.26, 0.22, 0.12, 0.12, 0.08, 0.08, 0.06, 0.06)
