"""What a training clip is cut from: a video of the index, or one that is rendered as it is asked for."""

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
from ssvos.scribbles.store import ScribbleStore

Size = tuple[int, int]  # height, width
_SLIVER = 0.0005  # of the frame


class ClipSource(Protocol):
    """Frames by position; each comes at the size that is asked for, labels as (H, W) uint8 of ids."""

    def labelled(self) -> list[int]:
        """Positions of the frames that have labels, in order."""

    def objects(self, position: int) -> tuple[int, ...]:
        """Ids on a frame; none on one without labels."""

    def has_mask(self, position: int) -> bool:
        """Whether the frame's dense mask may be asked for."""

    def frame(self, position: int, size: Size) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""

    def scribble(self, position: int, size: Size) -> np.ndarray:
        """Its strokes, 255 where there are none."""

    def mask(self, position: int, size: Size) -> np.ndarray:
        """Its dense mask."""


@dataclass(frozen=True)
class IndexedClipSource:
    """A video of the index: its frames on disk below `root`, its scribbles in the store."""

    video: IndexedVideo
    root: Path
    scribbles: ScribbleStore

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
        return read_mask(self.root / self.video.frames[position].mask_path, *size)


class Rendering(NamedTuple):
    """A rendered clip with its scribbles: frames (T, H, W, 3), masks and scribbles (T, H, W), uint8."""

    frames: np.ndarray
    masks: np.ndarray
    scribbles: np.ndarray


@dataclass(frozen=True)
class RenderedClipSource:
    """A clip rendered here and now, with scribbles simulated on its masks."""

    renderer: "Renderer"
    number: int

    def labelled(self) -> list[int]:
        return list(range(self.renderer.config.num_frames))

    def objects(self, position: int) -> tuple[int, ...]:
        """Those that are more than a sliver at the frame's edge."""
        mask = self._clip.masks[position]
        shown = np.bincount(mask.ravel(), minlength=256)
        return tuple(i for i in object_ids(mask) if shown[i] >= _SLIVER * mask.size)

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
        return _rendering(self.renderer, self.number)


@dataclass(frozen=True)
class Renderer:
    """An unlimited source. Its clips are numbered on from those that lie on disk, and a number gives the same clip in
    every process.

    cache: a folder in which trainings that go on at the same time find what another one has rendered; none: each
    renders its own.
    """

    config: SyntheticConfig
    scribbles: ScribbleConfig
    cache: Path | None = None

    def footage(self, number: int) -> RenderedClipSource:
        return RenderedClipSource(self, number)

    def number(self, epoch: int, clips_per_epoch: int, drawn: int) -> int:
        """Which clip an epoch's next one is cut from, `drawn` of this source having been cut before it: no epoch sees a
        clip of another."""
        an_epoch = -(-clips_per_epoch // self.config.uses)
        return self.config.num_train + epoch * an_epoch + drawn // self.config.uses

    def render(self, number: int) -> Rendering:
        clip = render_clip(self.config, "train", number)
        scribbles = np.stack([self._scribble(mask, number, t) for t, mask in enumerate(clip.masks)])
        return Rendering(clip.frames, clip.masks, scribbles)

    def _scribble(self, mask: np.ndarray, number: int, t: int) -> np.ndarray:
        rng = scribble_rng(self.scribbles.seed, f"train-{number}", f"{t:05d}")
        return simulate_scribble(mask, rng, self.scribbles)

    def place(self, number: int) -> Path:
        """Where a clip lies in the cache; other parameters have other places."""
        said = self.config.model_dump_json() + self.scribbles.model_dump_json()
        return self.cache / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}-{number:08d}.npz"


@lru_cache(maxsize=2)  # clips that are cut from one rendering come one after the other
def _rendering(renderer: Renderer, number: int) -> Rendering:
    if renderer.cache is None:
        return renderer.render(number)
    place = renderer.place(number)
    if not place.is_file():
        rendering = renderer.render(number)
        with atomic_path(place) as temporary, open(temporary, "wb") as file:
            np.savez(file, **rendering._asdict())
        return rendering
    with np.load(place, allow_pickle=False) as kept:
        return Rendering(*(kept[name] for name in Rendering._fields))


Renderers = Mapping[str, Renderer]


def read_frame(path: Path, height: int = 0, width: int = 0) -> np.ndarray:
    """Read an image as (H, W, 3) uint8 RGB, resized to height x width if given. ValueError if it does not decode."""
    frame = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if frame is None:
        raise ValueError(f"{path}: not a readable image; check the file or take it out of the list")
    return resize_frame(frame, height, width) if height and width else frame


def read_mask(path: Path, height: int, width: int) -> np.ndarray:
    """Read a mask, (height, width) uint8: each pixel has the label of the pixel that its centre lies in."""
    return resize_mask(read_labels(path), height, width)


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W) uint8 -> (height, width), sampled at the centres of the new pixels."""
    rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(int)
    return mask[rows[:, None], columns]
