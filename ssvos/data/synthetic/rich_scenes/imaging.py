"""Imaging degradations of rich frames: exposure, haze, smoke, uneven light, grain and compression."""

from dataclasses import dataclass

import cv2
import numpy as np

from ssvos.config import SyntheticConfig
from ssvos.data.synthetic.rich_scenes.materials import crop_tile
from ssvos.data.synthetic.rich_scenes.parameters import rich_parameters
from ssvos.data.synthetic.rich_scenes.patterns import draw_drift, rough_tile

_GRAIN_MARGIN = 32  # pixels by which the grain's tile is larger than the frame


@dataclass(frozen=True)
class Imaging:
    """The degradations of one clip; None and 0 turn one off.

    tables: look-up tables of exposure and haze, (T, 256, 3) uint8
    light: gain in 128ths at low resolution, (T, h, w) uint8
    smoke: density, (T, h, w) uint8, and grey value
    grain: (H + 32, W + 32, 3) int16
    offsets: of the frame in `grain`, (T, 2)
    quality: of JPEG
    """

    tables: np.ndarray
    light: np.ndarray | None
    smoke: tuple[np.ndarray, float] | None
    grain: np.ndarray | None
    offsets: np.ndarray
    quality: int


def draw_imaging(config: SyntheticConfig, rng: np.random.Generator) -> Imaging:
    """The degradations of one clip."""
    rich, num_frames = rich_parameters(config), config.num_frames
    quality = int(rng.integers(25, 92)) if rng.random() < rich.jpeg_share else 0
    return Imaging(
        _draw_tables(config, rng),
        _draw_light(config, rng) if rich.lighting and rng.random() < 0.6 else None,
        _draw_smoke(config, rng) if rng.random() < rich.smoke_share else None,
        _draw_grain(config, rng),
        rng.integers(_GRAIN_MARGIN, size=(num_frames, 2)),
        quality,
    )


def _draw_tables(config: SyntheticConfig, rng: np.random.Generator) -> np.ndarray:
    """Look-up tables of exposure and haze, (T, 256, 3) uint8; brightness and color balance drift over time."""
    rich, t = rich_parameters(config), np.linspace(0, 1, config.num_frames)[:, None]
    drift = rng.normal(0, 1, 3) * np.sin(rng.uniform(0.5, 6) * t + rng.uniform(0, 2 * np.pi))
    cast, brightness = rng.normal(0, 0.3, 3), rng.normal(0, 0.7)
    gain = np.exp(rich.exposure * (brightness + cast + 0.5 * drift.mean(axis=1, keepdims=True) + 0.15 * drift))
    gamma = np.exp(rich.exposure * rng.normal(0, 1))
    haze, haze_color = rich.haze * rng.random() ** 3, np.clip(rng.normal([190, 195, 205], 30), 60, 245)
    grey = (np.arange(256)[None, :, None] / 255.0) ** gamma * 255.0 * gain[:, None]
    tables: np.ndarray = np.clip(np.rint(grey * (1 - haze) + haze_color * haze), 0, 255).astype(np.uint8)
    return tables


def _draw_light(config: SyntheticConfig, rng: np.random.Generator) -> np.ndarray:
    """Light and shade that drift over the frame, (T, h, w) uint8, at an eighth of the frame's size."""
    part = draw_drift(_small_shape(config), config.num_frames, 2.0, rng) - 0.5
    gain = np.exp(3 * rich_parameters(config).lighting * part)
    light: np.ndarray = np.clip(np.rint(128 * gain), 0, 255).astype(np.uint8)
    return light


def _draw_smoke(config: SyntheticConfig, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Drifting smoke: density, (T, h, w) uint8, at an eighth of the frame's size, and grey value."""
    part = draw_drift(_small_shape(config), config.num_frames, 6.0, rng)
    density = np.clip((part - rng.uniform(0.45, 0.65)) * rng.uniform(1.5, 4), 0, rng.uniform(0.2, 0.65))
    return np.rint(255 * density).astype(np.uint8), float(rng.uniform(80, 245))


def _small_shape(config: SyntheticConfig) -> tuple[int, int]:
    return max(config.height // 8, 4), max(config.width // 8, 4)


def _draw_grain(config: SyntheticConfig, rng: np.random.Generator) -> np.ndarray | None:
    strength = rich_parameters(config).grain * rng.random() ** 2
    if strength < 0.3:
        return None
    shape = (config.height + _GRAIN_MARGIN, config.width + _GRAIN_MARGIN)
    layers = [crop_tile(rough_tile(int(rng.integers(3))), shape, rng, (1.0, 1.2)) for _ in range(3)]
    # the tiles have a deviation of 32, which the interpolation of a rotated crop reduces to about 27
    table = np.rint((np.arange(256) - 128.0) * strength / 27.0).astype(np.int16)
    grain: np.ndarray = table[cv2.merge(layers)]
    return grain


def apply_imaging(image: np.ndarray, imaging: Imaging, t: int) -> np.ndarray:
    """Degrade frame t, (H, W, 3) uint8 -> (H, W, 3) uint8."""
    if imaging.light is not None:
        gain = cv2.resize(imaging.light[t], image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        image = cv2.multiply(image, cv2.cvtColor(gain, cv2.COLOR_GRAY2RGB), scale=1.0 / 128.0)
    if imaging.smoke is not None:
        density = cv2.resize(imaging.smoke[0][t], image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        clear = cv2.multiply(image, cv2.cvtColor(255 - density, cv2.COLOR_GRAY2RGB), scale=1.0 / 255.0)
        grey = cv2.convertScaleAbs(density, alpha=imaging.smoke[1] / 255.0)
        image = cv2.add(clear, cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB))
    image = cv2.LUT(image, imaging.tables[t][None])
    if imaging.grain is not None:
        y, x = imaging.offsets[t]
        image = cv2.add(image, imaging.grain[y : y + image.shape[0], x : x + image.shape[1]], dtype=cv2.CV_8U)
    if imaging.quality:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, imaging.quality])
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert decoded is not None
        image = decoded
    return image
