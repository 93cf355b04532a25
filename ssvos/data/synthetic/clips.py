"""The embedded data set: rendered clips of textured, deforming objects that cross, with exact masks.

Each clip depends only on (seed, split, index). Color alone does not identify the objects: many have the colors of the
background, and some clips have moving distractors that are not annotated.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ssvos.config import SyntheticConfig
from ssvos.data.synthetic.moving_shapes import MovingShape, camera_path, draw_shape
from ssvos.data.synthetic.rich_scenes.rendering import render_rich
from ssvos.data.synthetic.textures import PHOTOS, Split, match_colors, noise, pattern_texture, photo_texture
from ssvos.files import write_bytes, write_text
from ssvos.labels import write_labels

SPLITS: tuple[Split, ...] = ("train", "val")
MIN_FIRST_SHARE = 0.025  # of the first frame that each object covers


@dataclass(frozen=True)
class Clip:
    """A rendered clip.

    frames: (T, H, W, 3) uint8 RGB
    masks: (T, H, W) uint8, 0 background, 1..K objects
    """

    frames: np.ndarray
    masks: np.ndarray


@dataclass(frozen=True)
class _Layer:
    """One moving shape.

    label: object id; 0: a distractor, which is not annotated
    texture: (S, S, 3) float32, centred on the shape
    relief: strength of the shading by its shape
    shadow: share of the light that it blocks
    """

    label: int
    shape: MovingShape
    texture: np.ndarray
    relief: float
    shadow: float


def render_clip(config: SyntheticConfig, split: Split, index: int) -> Clip:
    """Render clip `index` of a split; the same arguments give the same bytes.

    Raises ValueError for an unknown split or a negative index.
    """
    if split not in SPLITS or index < 0:
        raise ValueError(f"clip {split!r} {index}: no such clip; give a split of {SPLITS} and an index of 0 or more")
    if config.rich is not None:
        return Clip(*render_rich(config, split, SPLITS.index(split), index))
    rng = np.random.default_rng([config.seed, SPLITS.index(split), index])
    shapes = _place_shapes(config, rng)
    background, photo = _draw_background(config, split, index, rng)
    layers = _draw_layers(shapes, background, photo, config, split, rng)
    to_frame = camera_path(config, background.shape[:2], rng)
    light = _draw_lighting(config, rng)
    rendered = [_compose(layers, background, to_frame[t], t, config) for t in range(config.num_frames)]
    grain = np.float32(rng.uniform(1.0, 3.5))
    frames = [
        image * gain + grain * rng.standard_normal(image.shape, dtype=np.float32)
        for (image, _), gain in zip(rendered, light, strict=True)
    ]
    pixels = np.clip(np.rint(np.stack(frames)), 0, 255).astype(np.uint8)
    return Clip(pixels, np.stack([mask for _, mask in rendered]))


def make_dataset(config: SyntheticConfig, root: Path, on_clip: Callable[[str], None] | None = None) -> None:
    """Write both splits below `root` in DAVIS-2017's layout.

    on_clip: called with the name of each clip after it is written
    """
    root = Path(root)
    for split, count in zip(SPLITS, (config.num_train, config.num_val), strict=True):
        names = [f"{split}-{index:03d}" for index in range(count)]
        for index, name in enumerate(names):
            _write_clip(render_clip(config, split, index), root, name)
            if on_clip is not None:
                on_clip(name)
        write_text(root / "ImageSets" / "2017" / f"{split}.txt", "".join(f"{name}\n" for name in names))


def _write_clip(clip: Clip, root: Path, name: str) -> None:
    images, annotations = (root / kind / "480p" / name for kind in ("JPEGImages", "Annotations"))
    for folder in (images, annotations):  # otherwise frames of an earlier, longer clip would remain
        shutil.rmtree(folder, ignore_errors=True)
    for t, (frame, mask) in enumerate(zip(clip.frames, clip.masks, strict=True)):
        _, data = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        write_bytes(images / f"{t:05d}.jpg", data.tobytes())
        write_labels(annotations / f"{t:05d}.png", mask)


def _place_shapes(config: SyntheticConfig, rng: np.random.Generator) -> list[tuple[int, MovingShape]]:
    """(label, shape) from back to front, redrawn until every object is visible enough in the first frame."""
    count = int(rng.integers(1, config.max_objects + 1))
    shrink = 1.0
    while True:
        labels = list(range(1, count + 1))
        if rng.random() < 0.5:
            labels.insert(int(rng.integers(count + 1)), 0)
        largest = min(config.object_share, 2 * config.object_share / count)
        shapes = [(label, draw_shape(config, shrink * rng.uniform(0.45 * largest, largest), rng)) for label in labels]
        first = np.zeros((config.height, config.width), dtype=np.uint8)
        for label, shape in shapes:
            first[shape.coverage(0, first.shape) >= 0.5] = label
        visible = np.bincount(first.ravel(), minlength=count + 1)[1 : count + 1]
        if visible.min() >= MIN_FIRST_SHARE * first.size:
            return shapes
        shrink = max(0.98 * shrink, 0.5)


def _draw_background(
    config: SyntheticConfig, split: Split, index: int, rng: np.random.Generator
) -> tuple[np.ndarray, str]:
    """A canvas larger than the frame, (1.6 H, 1.6 W, 3) float32, and the name of its photograph ("" for a pattern).

    The clips of a split cycle through its photographs, so that a few clips already have different ones.
    """
    shape = (int(1.6 * config.height), int(1.6 * config.width))
    photo = (*PHOTOS[split], "")[index % (len(PHOTOS[split]) + 1)]
    return (photo_texture(photo, shape, rng) if photo else pattern_texture(split, shape, rng)), photo


def _draw_layers(
    shapes: list[tuple[int, MovingShape]],
    background: np.ndarray,
    photo: str,
    config: SyntheticConfig,
    split: Split,
    rng: np.random.Generator,
) -> list[_Layer]:
    """Give each shape a texture; a distractor has a mirrored texture of one of the objects."""
    textures: dict[int, np.ndarray] = {}
    side = 2 * int(max(shape.extent for _, shape in shapes)) + 2
    for label in (label for label, _ in shapes if label):
        textures[label] = _object_texture(side, background, photo, config.camouflage, split, rng)
    textures[0] = textures[int(rng.choice(sorted(textures)))][::-1]
    return [
        _Layer(label, shape, textures[label], relief=rng.uniform(0.8, 2.0), shadow=rng.uniform(0.1, 0.4))
        for label, shape in shapes
    ]


def _object_texture(
    side: int, background: np.ndarray, photo: str, camouflage: float, split: Split, rng: np.random.Generator
) -> np.ndarray:
    """A texture (side, side, 3) float32; if camouflaged, with the colors or the photograph of the background."""
    is_camouflaged = rng.random() < camouflage
    shape = (side, side)
    if is_camouflaged and photo and rng.random() < 0.35:
        return match_colors(photo_texture(photo, shape, rng), background)
    others = [name for name in PHOTOS[split] if name != photo]
    texture = (
        photo_texture(str(rng.choice(others)), shape, rng) if rng.random() < 0.5 else pattern_texture(split, shape, rng)
    )
    return match_colors(texture, background) if is_camouflaged else texture


def _draw_lighting(config: SyntheticConfig, rng: np.random.Generator) -> np.ndarray:
    """Gain at every pixel, (T, H, W, 1) float32, that changes slowly as a whole and between the sides of the frame."""
    t = np.arange(config.num_frames)[:, None, None, None]
    whole = 1 + rng.uniform(0, 0.10) * np.sin(rng.uniform(0.1, 0.35) * t + rng.uniform(0, 2 * np.pi))
    across = noise((config.height, config.width), rng, period=float(config.width), octaves=1)[None, ..., None]
    swing = rng.uniform(0, 0.18) * np.sin(rng.uniform(0.1, 0.3) * t + rng.uniform(0, 2 * np.pi))
    gain: np.ndarray = (whole + swing * (across - 0.5)).astype(np.float32)
    return gain


def _compose(
    layers: list[_Layer], background: np.ndarray, to_frame: np.ndarray, t: int, config: SyntheticConfig
) -> tuple[np.ndarray, np.ndarray]:
    """One frame, (H, W, 3) float32, and its mask, (H, W) uint8, with the layers painted from back to front."""
    size = (config.width, config.height)
    image: np.ndarray = cv2.warpAffine(
        background, to_frame, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    mask = np.zeros(size[::-1], dtype=np.uint8)
    for layer in layers:
        alpha = layer.shape.coverage(t, mask.shape)
        if not alpha.any():
            continue
        matrix = layer.shape.texture_to_frame(t, layer.texture.shape[0])
        texture: np.ndarray = cv2.warpAffine(
            layer.texture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        height = cv2.GaussianBlur(alpha, (0, 0), 0.012 * config.width)
        slope = cv2.Sobel(height, cv2.CV_32F, 1, 0) + cv2.Sobel(height, cv2.CV_32F, 0, 1)
        texture *= (1.0 + layer.relief * 0.35 * slope / max(np.abs(slope).max(), 1e-6))[..., None]
        shade = cv2.GaussianBlur(alpha, (0, 0), 0.02 * config.width) * layer.shadow
        image *= (1.0 - shade)[..., None]
        image += alpha[..., None] * (np.clip(texture, 0, 255) - image)
        mask[alpha >= 0.5] = layer.label
    return image, mask
