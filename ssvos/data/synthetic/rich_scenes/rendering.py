"""Rendering of rich clips: the background, shadows on it, the cast from back to front, what the camera makes of it."""

import cv2
import numpy as np

from ssvos.config import SyntheticConfig
from ssvos.data.synthetic.rich_scenes.backdrop import Backdrop, draw_backdrop
from ssvos.data.synthetic.rich_scenes.imaging import draw_imaging, expose
from ssvos.data.synthetic.rich_scenes.motion import draw_camera
from ssvos.data.synthetic.rich_scenes.painting import Patch, Thing, compose, mark, paint, smear
from ssvos.data.synthetic.rich_scenes.scene import draw_cast, least_shown
from ssvos.data.synthetic.textures import Split

_SHADOW_SCALE = 4  # shadows are soft: they are drawn this many times smaller


def render_rich(config: SyntheticConfig, split: Split, place: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Clip `index` of a split, whose number is `place`: (T, H, W, 3) uint8 RGB and (T, H, W) uint8 labels.

    Scene, camera and faults of imaging have generators of their own, so that one's parameters leave the others be.
    """
    attempt = 0
    while True:
        seeds = [config.seed, place, index, attempt]
        camera = draw_camera(config, np.random.default_rng([*seeds, 1]))
        backdrop = draw_backdrop(config, split, camera, np.random.default_rng([*seeds, 2]))
        cast = draw_cast(config, split, backdrop, camera, np.random.default_rng([*seeds, 3]))
        image, mask = _render_frame(config, backdrop, cast, 0)
        shown = np.bincount(mask.ravel())[1:]
        if len(shown) and shown.min() >= least_shown(config):  # it was a guess from whole pixels before
            break
        attempt += 1
    imaging = draw_imaging(config, np.random.default_rng([*seeds, 4]))
    frames, masks = [expose(image, imaging, 0)], [mask]
    for t in range(1, config.num_frames):
        image, mask = _render_frame(config, backdrop, cast, t)
        frames.append(expose(image, imaging, t))
        masks.append(mask)
    return np.stack(frames), np.stack(masks)


def _render_frame(
    config: SyntheticConfig, backdrop: Backdrop, cast: list[Thing], t: int
) -> tuple[np.ndarray, np.ndarray]:
    """Frame t before the camera's faults, (H, W, 3) uint8, and its mask."""
    shape = (config.height, config.width)
    image = _view(backdrop, t, shape)
    image = smear(cv2.cvtColor(image, cv2.COLOR_RGBA2RGB), config.rich.motion_blur * _way(backdrop, t, shape))
    patches = [(thing, patch) for thing in cast if (patch := paint(thing, t, shape)) is not None]
    image = _cast_shadows(image, patches)
    mask = np.zeros(shape, np.uint8)
    for thing, patch in patches:
        compose(image, patch)
        mark(mask, patch, thing.label)
    return image, mask


def _view(backdrop: Backdrop, t: int, shape: tuple[int, int]) -> np.ndarray:
    """The background in frame t, (H, W, 4) uint8."""
    canvas, matrix = backdrop.canvas, backdrop.to_frame[t]
    if backdrop.ripple is None:
        return cv2.warpAffine(canvas, matrix, shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    places = cv2.resize(backdrop.ripple[t], shape[::-1], interpolation=cv2.INTER_LINEAR)
    back = cv2.invertAffineTransform(matrix).astype(np.float32)
    x, y = np.arange(shape[1], dtype=np.float32), np.arange(shape[0], dtype=np.float32)
    for axis in range(2):
        places[..., axis] += back[axis, 0] * x + (back[axis, 1] * y + back[axis, 2])[:, None]
    return cv2.remap(canvas, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def _way(backdrop: Backdrop, t: int, shape: tuple[int, int]) -> np.ndarray:
    """Pixels (2,) by which the background moves at the frame's middle within a frame's time."""
    last = len(backdrop.to_frame) - 1
    before, after = backdrop.to_frame[max(t - 1, 0)], backdrop.to_frame[min(t + 1, last)]
    middle = np.array([shape[1], shape[0]]) / 2
    there = np.linalg.solve(before[:, :2], middle - before[:, 2])
    return (after[:, :2] @ there + after[:, 2] - middle) / max(min(t + 1, last) - max(t - 1, 0), 1)


def _cast_shadows(image: np.ndarray, patches: list[tuple[Thing, Patch]]) -> np.ndarray:
    """Darken the background below and beside what stands on it."""
    size = (image.shape[1] // _SHADOW_SCALE, image.shape[0] // _SHADOW_SCALE)
    light = np.full(size[::-1], 255, np.uint8)
    is_dark = False
    for thing, (rows, columns, layer) in patches:
        if thing.shadow <= 0.03:
            continue
        height, left = rows.stop - rows.start, columns.start / _SHADOW_SCALE
        shrink = 1.0 / _SHADOW_SCALE
        foot = rows.stop * shrink  # the shadow lies from the feet to the side, a third as high
        matrix = np.array([[shrink, -0.4 * shrink, left + 0.4 * height * shrink], [0, 0.35 * shrink, foot]])
        matrix[1, 2] -= 0.35 * height * shrink
        small = cv2.warpAffine(np.ascontiguousarray(layer[..., 3]), matrix, size, flags=cv2.INTER_LINEAR)
        light = cv2.subtract(light, cv2.convertScaleAbs(small, alpha=thing.shadow))
        is_dark = True
    if not is_dark:
        return image
    large = cv2.resize(cv2.blur(light, (3, 3)), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return cv2.multiply(image, cv2.cvtColor(large, cv2.COLOR_GRAY2RGB), scale=1.0 / 255.0)
