"""Rendering of rich clips: the background, shadows on it, the sprites from back to front, and imaging degradations."""

import cv2
import numpy as np

from ssvos.config import SyntheticConfig
from ssvos.data.synthetic.rich_scenes.backdrop import Backdrop, draw_backdrop
from ssvos.data.synthetic.rich_scenes.imaging import apply_imaging, draw_imaging
from ssvos.data.synthetic.rich_scenes.motion import draw_camera
from ssvos.data.synthetic.rich_scenes.painting import Patch, Sprite, blur_along, compose, paint, write_label
from ssvos.data.synthetic.rich_scenes.parameters import rich_parameters
from ssvos.data.synthetic.rich_scenes.scene import draw_sprites, min_visible_pixels
from ssvos.data.synthetic.textures import Split

_SHADOW_SCALE = 4  # shadows are soft: they are drawn at a quarter of the size


def render_rich(config: SyntheticConfig, split: Split, split_idx: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Render clip `index` of a split.

    Scene, camera and imaging have separate random generators, so that the parameters of one do not change the others.

    split_idx: number of the split, for the seed
    returns: frames (T, H, W, 3) uint8 RGB, and labels (T, H, W) uint8
    """
    attempt = 0
    while True:
        seeds = [config.seed, split_idx, index, attempt]
        camera = draw_camera(config, np.random.default_rng([*seeds, 1]))
        backdrop = draw_backdrop(config, split, camera, np.random.default_rng([*seeds, 2]))
        sprites = draw_sprites(config, split, backdrop, camera, np.random.default_rng([*seeds, 3]))
        image, mask = _render_frame(config, backdrop, sprites, 0)
        visible = np.bincount(mask.ravel())[1:]
        # draw_sprites only estimates the visible pixels from whole pixels
        if len(visible) and visible.min() >= min_visible_pixels(config):
            break
        attempt += 1
    imaging = draw_imaging(config, np.random.default_rng([*seeds, 4]))
    frames, masks = [apply_imaging(image, imaging, 0)], [mask]
    for t in range(1, config.num_frames):
        image, mask = _render_frame(config, backdrop, sprites, t)
        frames.append(apply_imaging(image, imaging, t))
        masks.append(mask)
    return np.stack(frames), np.stack(masks)


def _render_frame(
    config: SyntheticConfig, backdrop: Backdrop, sprites: list[Sprite], t: int
) -> tuple[np.ndarray, np.ndarray]:
    """Frame t before imaging, (H, W, 3) uint8, and its mask."""
    shape = (config.height, config.width)
    image = cv2.cvtColor(_background_frame(backdrop, t, shape), cv2.COLOR_RGBA2RGB)
    image = blur_along(image, rich_parameters(config).motion_blur * _background_motion(backdrop, t, shape))
    patches = [(sprite, patch) for sprite in sprites if (patch := paint(sprite, t, shape)) is not None]
    image = _add_shadows(image, patches)
    mask = np.zeros(shape, np.uint8)
    for sprite, patch in patches:
        compose(image, patch)
        write_label(mask, patch, sprite.label)
    return image, mask


def _background_frame(backdrop: Backdrop, t: int, shape: tuple[int, int]) -> np.ndarray:
    """The background in frame t, (H, W, 4) uint8."""
    canvas, matrix = backdrop.canvas, backdrop.to_frame[t]
    if backdrop.ripple is None:
        return cv2.warpAffine(canvas, matrix, shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    places = cv2.resize(backdrop.ripple[t], shape[::-1], interpolation=cv2.INTER_LINEAR)
    inverse = cv2.invertAffineTransform(matrix).astype(np.float32)
    x, y = np.arange(shape[1], dtype=np.float32), np.arange(shape[0], dtype=np.float32)
    for axis in range(2):
        places[..., axis] += inverse[axis, 0] * x + (inverse[axis, 1] * y + inverse[axis, 2])[:, None]
    # OpenCV accepts None as the second map if the first has two channels; its type annotations do not
    warped: np.ndarray = cv2.remap(canvas, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)  # type: ignore[call-overload]
    return warped


def _background_motion(backdrop: Backdrop, t: int, shape: tuple[int, int]) -> np.ndarray:
    """Motion of the background at the centre of the frame, (2,) in pixels per frame."""
    last = len(backdrop.to_frame) - 1
    before, after = backdrop.to_frame[max(t - 1, 0)], backdrop.to_frame[min(t + 1, last)]
    centre = np.array([shape[1], shape[0]]) / 2
    on_canvas = np.linalg.solve(before[:, :2], centre - before[:, 2])
    num_steps = max(min(t + 1, last) - max(t - 1, 0), 1)
    motion: np.ndarray = (after[:, :2] @ on_canvas + after[:, 2] - centre) / num_steps
    return motion


def _add_shadows(image: np.ndarray, patches: list[tuple[Sprite, Patch]]) -> np.ndarray:
    """Darken the background below and to the side of the sprites."""
    size = (image.shape[1] // _SHADOW_SCALE, image.shape[0] // _SHADOW_SCALE)
    light: np.ndarray = np.full(size[::-1], 255, np.uint8)
    is_dark = False
    for sprite, (rows, columns, layer) in patches:
        if sprite.shadow <= 0.03:
            continue
        height, left = rows.stop - rows.start, columns.start / _SHADOW_SCALE
        shrink = 1.0 / _SHADOW_SCALE
        foot = rows.stop * shrink  # the shadow falls from the feet to the side, at a third of the height
        matrix = np.array([[shrink, -0.4 * shrink, left + 0.4 * height * shrink], [0, 0.35 * shrink, foot]])
        matrix[1, 2] -= 0.35 * height * shrink
        small = cv2.warpAffine(np.ascontiguousarray(layer[..., 3]), matrix, size, flags=cv2.INTER_LINEAR)
        light = cv2.subtract(light, cv2.convertScaleAbs(small, alpha=sprite.shadow))
        is_dark = True
    if not is_dark:
        return image
    large = cv2.resize(cv2.blur(light, (3, 3)), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return cv2.multiply(image, cv2.cvtColor(large, cv2.COLOR_GRAY2RGB), scale=1.0 / 255.0)
