"""Sources of training clips: a video of the index, or a clip that is rendered on demand."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from ssvos.config import ScribbleConfig, SyntheticConfig
from ssvos.data.augment import resize_frame, resize_scribble
from ssvos.data.index import IndexedVideo
from ssvos.data.synthetic.clips import render_clip
from ssvos.files import atomic_path
from ssvos.labels import object_ids, read_labels
from ssvos.scribbles.simulate import scribble_rng, simulate_scribble
from ssvos.scribbles.store import ScribbleKey

Size = tuple[int, int]  # height, width
_MIN_OBJECT_SHARE = 0.0005  # share of the frame; a smaller part of an object does not count as visible


class ClipSource(Protocol):
    """Frames and labels of a video by position, resized to a given size. Labels are (H, W) uint8."""

    def labelled(self) -> list[int]:
        """Positions of the labelled frames, in order."""

    def objects(self, position: int) -> tuple[int, ...]:
        """Object ids on a frame; () for an unlabelled frame."""

    def has_mask(self, position: int) -> bool:
        """Whether a frame has a dense mask."""

    def frame(self, position: int, size: Size) -> np.ndarray:
        """The image, (H, W, 3) uint8 RGB."""

    def scribble(self, position: int, size: Size) -> np.ndarray:
        """The scribble of a labelled frame; 255 is unlabelled."""

    def mask(self, position: int, size: Size) -> np.ndarray:
        """The dense mask of a frame that has one."""


@dataclass(frozen=True)
class IndexedClipSource:
    """A video of the index.

    video: the video
    root: root of its paths
    scribbles: scribbles of its labelled frames
    """

    video: IndexedVideo
    root: Path
    scribbles: Mapping[ScribbleKey, np.ndarray]

    def labelled(self) -> list[int]:
        return [position for position, frame in enumerate(self.video.frames) if frame.objects is not None]

    def objects(self, position: int) -> tuple[int, ...]:
        return tuple(self.video.frames[position].objects or ())

    def has_mask(self, position: int) -> bool:
        return bool(self.video.frames[position].mask_path)

    def frame(self, position: int, size: Size) -> np.ndarray:
        return read_frame(self.root / self.video.frames[position].image_path, *size)

    def scribble(self, position: int, size: Size) -> np.ndarray:
        key = (self.video.dataset, self.video.sequence, self.video.frames[position].name)
        return resize_scribble(self.scribbles[key], *size)

    def mask(self, position: int, size: Size) -> np.ndarray:
        path = self.video.frames[position].mask_path
        assert path is not None, f"frame {position} has no mask"
        return read_mask(self.root / path, *size)


class Rendering(NamedTuple):
    """A rendered clip of T frames.

    frames: (T, H, W, 3) uint8 RGB
    masks: (T, H, W) uint8
    scribbles: (T, H, W) uint8
    """

    frames: np.ndarray
    masks: np.ndarray
    scribbles: np.ndarray


@dataclass(frozen=True)
class RenderedClipSource:
    """A clip that is rendered on demand, with scribbles simulated on its masks.

    renderer: the unlimited source
    number: number of the clip
    """

    renderer: "Renderer"
    number: int

    def labelled(self) -> list[int]:
        return list(range(self.renderer.config.num_frames))

    def objects(self, position: int) -> tuple[int, ...]:
        """Object ids on a frame, without objects of which only a few pixels are visible."""
        mask = self._clip.masks[position]
        areas = np.bincount(mask.ravel(), minlength=256)
        return tuple(i for i in object_ids(mask) if areas[i] >= _MIN_OBJECT_SHARE * mask.size)

    def has_mask(self, position: int) -> bool:
        return True

    def frame(self, position: int, size: Size) -> np.ndarray:
        return resize_frame(self._clip.frames[position], *size)

    def scribble(self, position: int, size: Size) -> np.ndarray:
        return resize_scribble(self._clip.scribbles[position], *size)

    def mask(self, position: int, size: Size) -> np.ndarray:
        return resize_mask(self._clip.masks[position], *size)

    @property
    def _clip(self) -> Rendering:
        return _cached_rendering(self.renderer, self.number)


@dataclass(frozen=True)
class Renderer:
    """An unlimited source. A number gives the same clip in every process; numbers start after the clips on disk.

    config: parameters of the clips
    scribbles: parameters of the scribble simulation
    cache: folder of rendered clips that concurrent trainings share; None: no cache
    """

    config: SyntheticConfig
    scribbles: ScribbleConfig
    cache: Path | None = None

    def clip_source(self, number: int) -> RenderedClipSource:
        """The source of clip `number`."""
        return RenderedClipSource(self, number)

    def number(self, epoch: int, clips_per_epoch: int, drawn: int) -> int:
        """The number of the clip from which the next training clip is cut. No two epochs share a number.

        epoch: the epoch
        clips_per_epoch: training clips of an epoch, of all sources
        drawn: training clips that this epoch has already cut from this source
        """
        rendered_per_epoch = -(-clips_per_epoch // self.config.uses)
        return self.config.num_train + epoch * rendered_per_epoch + drawn // self.config.uses

    def render(self, number: int) -> Rendering:
        """Render clip `number` and simulate its scribbles."""
        clip = render_clip(self.config, "train", number)
        scribbles = np.stack([self._scribble(mask, number, t) for t, mask in enumerate(clip.masks)])
        return Rendering(clip.frames, clip.masks, scribbles)

    def _scribble(self, mask: np.ndarray, number: int, t: int) -> np.ndarray:
        rng = scribble_rng(self.scribbles.seed, f"train-{number}", f"{t:05d}")
        return simulate_scribble(mask, rng, self.scribbles)

    def cache_path(self, number: int) -> Path:
        """The file of clip `number` in the cache. Its name depends on all parameters."""
        assert self.cache is not None
        parameters = self.config.model_dump_json() + self.scribbles.model_dump_json()
        return self.cache / f"{hashlib.sha256(parameters.encode()).hexdigest()[:16]}-{number:08d}.npz"


@lru_cache(maxsize=2)  # training clips cut from one rendering follow each other
def _cached_rendering(renderer: Renderer, number: int) -> Rendering:
    if renderer.cache is None:
        return renderer.render(number)
    path = renderer.cache_path(number)
    if not path.is_file():
        rendering = renderer.render(number)
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **rendering._asdict())
        return rendering
    with np.load(path, allow_pickle=False) as arrays:
        return Rendering(*(arrays[name] for name in Rendering._fields))


Renderers = Mapping[str, Renderer]


def read_frame(path: Path, height: int = 0, width: int = 0) -> np.ndarray:
    """Read an image.

    path: the file
    height: height to resize to, pixels; 0: do not resize
    width: width to resize to, pixels; 0: do not resize
    returns: (height, width, 3) uint8 RGB
    Raises ValueError for a file that OpenCV cannot decode.
    """
    frame = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if frame is None:
        raise ValueError(f"{path}: not a readable image; replace the file or remove it")
    return resize_frame(frame, height, width) if height and width else frame


def read_mask(path: Path, height: int, width: int) -> np.ndarray:
    """Read a mask, resized to (height, width) uint8 as by `resize_mask`; raises as `ssvos.labels.read_labels`."""
    return resize_mask(read_labels(path), height, width)


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a mask (H, W) uint8 to (height, width) by sampling at the centres of the new pixels."""
    rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(int)
    resized: np.ndarray = mask[rows[:, None], columns]
    return resized
