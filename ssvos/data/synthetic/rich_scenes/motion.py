"""Motion of rich objects and of the camera, in pixels of the view: the frame before zoom, rotation and shake."""

from dataclasses import dataclass

import numpy as np

from ssvos.config import SyntheticConfig
from ssvos.data.synthetic.moving_shapes import REFERENCE_WIDTH
from ssvos.data.synthetic.rich_scenes.parameters import rich_parameters


@dataclass(frozen=True)
class Camera:
    """Motion of the camera.

    pan: position of the view's centre in the world, (T, 2)
    to_frame: from the view to the frame, (T, 2, 3)
    follows: whether the camera follows the first object
    """

    pan: np.ndarray
    to_frame: np.ndarray
    follows: bool


def draw_camera(config: SyntheticConfig, rng: np.random.Generator) -> Camera:
    """A camera that follows the first object, panning at its speed, or a camera that drifts."""
    rich, num_frames = rich_parameters(config), config.num_frames
    follows = rng.random() < rich.follow_share
    pace = rng.uniform(0.5, 1.6) if follows else rng.choice([0.0, 0.3]) * rng.random()
    pan = _draw_walk(config, pace * _draw_speed(config, rng), rng)
    t = np.linspace(0, 1, num_frames)
    swing = np.sin(rng.uniform(1, 5, 2) * t[:, None] + rng.uniform(0, 2 * np.pi, 2))
    zoom = np.exp(0.3 * rich.camera * rng.uniform(-1, 1) * (swing[:, 0] - swing[0, 0]))
    angle = 0.2 * rich.camera * rng.uniform(-1, 1) * swing[:, 1]
    unit = config.width / REFERENCE_WIDTH
    jitter = rich.shake * unit * rng.choice([0.0, 1.0]) * rng.random() * rng.normal(0, 1, (num_frames, 2))
    linear = zoom[:, None, None] * rotation(angle)
    middle = np.array([config.width, config.height]) / 2
    offset = middle + jitter - np.einsum("tij,j->ti", linear, middle)
    return Camera(pan, np.concatenate([linear, offset[..., None]], axis=-1), follows)


def rotation(angle: np.ndarray) -> np.ndarray:
    """Rotation matrices (T, 2, 2) of angles (T,) in radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)


def _draw_speed(config: SyntheticConfig, rng: np.random.Generator) -> float:
    """Speed in pixels per frame."""
    spread = np.exp(rich_parameters(config).speed_spread * np.clip(rng.normal(), -2, 2))
    return config.speed * config.width / REFERENCE_WIDTH * float(spread)


def _draw_walk(config: SyntheticConfig, speed: float, rng: np.random.Generator) -> np.ndarray:
    """A path (T, 2) from the origin: mostly sideways, curved, at a varying speed; some change direction at once."""
    num_frames = config.num_frames
    heading = rng.normal(0, 0.5) + rng.choice([0, np.pi]) + np.cumsum(rng.normal(0, 0.12, num_frames))
    if rng.random() < rich_parameters(config).turn_share:
        heading[int(rng.integers(1, max(num_frames, 2))) :] += rng.uniform(0.5, 1.5) * np.pi
    wave = 1 + rng.uniform(0, 0.6) * np.sin(rng.uniform(0.2, 0.8) * np.arange(num_frames) + rng.uniform(0, 6))
    steps = speed * wave[:, None] * np.stack([np.cos(heading), 0.7 * np.sin(heading)], axis=-1)
    walk: np.ndarray = np.cumsum(steps, axis=0) - steps[0]
    return walk


def draw_path(config: SyntheticConfig, radius: float, is_followed: bool, rng: np.random.Generator) -> np.ndarray:
    """Centres (T, 2) of an object in the view.

    A leaving path goes out at a side and comes back; other paths are reflected at the border of the view.

    is_followed: whether the camera follows the object, which then stays near the middle
    """
    rich, size = rich_parameters(config), np.array([config.width, config.height], dtype=float)
    walk = _draw_walk(config, _draw_speed(config, rng) * (rng.random() >= rich.still_share), rng)
    start, is_leaving = size * rng.uniform(0.1, 0.9, 2), rng.random() < rich.leaving_share
    path: np.ndarray
    if is_followed:
        path = size * rng.uniform(0.35, 0.65, 2) + 0.2 * walk
    elif is_leaving and config.num_frames > 1:
        side = rng.choice([-1.0, 1.0])
        start[0] = size[0] / 2 * (1 + side) - side * rng.uniform(0.2, 0.8) * radius
        t = np.arange(config.num_frames) / (config.num_frames - 1)
        walk = np.stack([side * radius * rng.uniform(2.2, 3.2) * np.sin(np.pi * t), 0.3 * walk[:, 1]], axis=-1)
        path = start + walk
    else:
        low, room = 0.02 * size, 0.96 * size
        path = low + room - np.abs((start + walk - low) % (2 * room) - room)
    return path


def draw_transforms(config: SyntheticConfig, upright: bool, heading: float, rng: np.random.Generator) -> np.ndarray:
    """Matrices (T, 2, 2) that mirror, squeeze, scale and rotate an object.

    upright: whether the object hardly rotates
    heading: sign of its horizontal motion
    """
    rich, t = rich_parameters(config), np.linspace(0, 1, config.num_frames)
    growth = np.exp(rich.growth * rng.uniform(-1, 1) * np.sin(rng.uniform(0.5, 3) * t) * (rng.random() < 0.7))
    yaw = rich.deformation * rng.uniform(0, 1.1) * np.sin(rng.uniform(0, 4) * t + rng.uniform(0, 2 * np.pi))
    squeeze = np.stack([np.cos(yaw), 1 + 0.1 * rich.deformation * np.sin(rng.uniform(2, 12) * t)], axis=-1)
    turn = rng.normal(0, 0.12) + rng.uniform(0, 0.2) * np.sin(rng.uniform(1, 6) * t)
    if not upright:
        turn = rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.8) * t + turn
    facing = heading if rng.random() < 0.9 else -heading
    transforms: np.ndarray = growth[:, None, None] * rotation(turn) * (squeeze * [facing, 1.0])[:, None, :]
    return transforms
