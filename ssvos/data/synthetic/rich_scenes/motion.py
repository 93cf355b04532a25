"""How rich things and the camera move, all in pixels of the view: the frame before zoom, turn and shake."""

from dataclasses import dataclass

import numpy as np

from ssvos.config import SyntheticConfig
from ssvos.data.synthetic.moving_shapes import REFERENCE_WIDTH


@dataclass(frozen=True)
class Camera:
    """pan: (T, 2), where the view's middle has gone in the world; to_frame: (T, 2, 3), from the view to the frame."""

    pan: np.ndarray
    to_frame: np.ndarray
    follows: bool


def draw_camera(config: SyntheticConfig, rng: np.random.Generator) -> Camera:
    """A camera that follows the first object, which pans as fast as that moves, or one that drifts."""
    rich, num_frames = config.rich, config.num_frames
    follows = rng.random() < rich.follow_share
    pace = rng.uniform(0.5, 1.6) if follows else rng.choice([0.0, 0.3]) * rng.random()
    pan = _walk(config, pace * _draw_speed(config, rng), rng)
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
    """Angles (T,) in radians -> (T, 2, 2)."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)


def _draw_speed(config: SyntheticConfig, rng: np.random.Generator) -> float:
    """Pixels a frame."""
    spread = np.exp(config.rich.speed_spread * np.clip(rng.normal(), -2, 2))
    return config.speed * config.width / REFERENCE_WIDTH * float(spread)


def _walk(config: SyntheticConfig, speed: float, rng: np.random.Generator) -> np.ndarray:
    """(T, 2) from the origin: mostly sideways, along a curve, at a varying speed; some turn at once."""
    num_frames = config.num_frames
    heading = rng.normal(0, 0.5) + rng.choice([0, np.pi]) + np.cumsum(rng.normal(0, 0.12, num_frames))
    if rng.random() < config.rich.turn_share:
        heading[int(rng.integers(1, max(num_frames, 2))) :] += rng.uniform(0.5, 1.5) * np.pi
    wave = 1 + rng.uniform(0, 0.6) * np.sin(rng.uniform(0.2, 0.8) * np.arange(num_frames) + rng.uniform(0, 6))
    steps = speed * wave[:, None] * np.stack([np.cos(heading), 0.7 * np.sin(heading)], axis=-1)
    return np.cumsum(steps, axis=0) - steps[0]


def draw_path(config: SyntheticConfig, radius: float, is_led: bool, rng: np.random.Generator) -> np.ndarray:
    """Centres (T, 2) of an object in the view; is_led: of the one that the camera keeps in the middle.

    A leaving path goes out at a side and comes back; others are folded back into the frame.
    """
    size = np.array([config.width, config.height], dtype=float)
    walked = _walk(config, _draw_speed(config, rng) * (rng.random() >= config.rich.still_share), rng)
    start, is_leaving = size * rng.uniform(0.1, 0.9, 2), rng.random() < config.rich.leaving_share
    if is_led:
        return size * rng.uniform(0.35, 0.65, 2) + 0.2 * walked
    if is_leaving and config.num_frames > 1:
        side = rng.choice([-1.0, 1.0])
        start[0] = size[0] / 2 * (1 + side) - side * rng.uniform(0.2, 0.8) * radius
        t = np.arange(config.num_frames) / (config.num_frames - 1)
        walked = np.stack([side * radius * rng.uniform(2.2, 3.2) * np.sin(np.pi * t), 0.3 * walked[:, 1]], axis=-1)
        return start + walked
    low, room = 0.02 * size, 0.96 * size
    return low + room - np.abs((start + walked - low) % (2 * room) - room)


def draw_forms(config: SyntheticConfig, upright: bool, heading: float, rng: np.random.Generator) -> np.ndarray:
    """(T, 2, 2): mirror, squeeze, grow and turn an object. heading: the sign of its way; upright: it hardly turns."""
    rich, t = config.rich, np.linspace(0, 1, config.num_frames)
    growth = np.exp(rich.growth * rng.uniform(-1, 1) * np.sin(rng.uniform(0.5, 3) * t) * (rng.random() < 0.7))
    yaw = rich.deformation * rng.uniform(0, 1.1) * np.sin(rng.uniform(0, 4) * t + rng.uniform(0, 2 * np.pi))
    squeeze = np.stack([np.cos(yaw), 1 + 0.1 * rich.deformation * np.sin(rng.uniform(2, 12) * t)], axis=-1)
    turn = rng.normal(0, 0.12) + rng.uniform(0, 0.2) * np.sin(rng.uniform(1, 6) * t)
    if not upright:
        turn = rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.8) * t + turn
    facing = heading if rng.random() < 0.9 else -heading
    return growth[:, None, None] * rotation(turn) * (squeeze * [facing, 1.0])[:, None, :]
