"""What a training clip is cut from: a video of the index, or one that is rendered as it is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from ssvos.config import ScribbleConfig, SyntheticConfig
from ssvos.data.augment import resize_frame, resize_scribble
from ssvos.data.index import IndexedVideo
from ssvos.data.synthetic import Clip, render_clip
from ssvos.labels import object_ids, read_labels
from ssvos.scribbles.simulate import scribble_rng, simulate_scribble
from ssvos.scribbles.store import ScribbleStore

Size = tuple[int, int]  # height, width
_SLIVER = 0.0005  # of the frame


class Footage(Protocol):
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
class IndexedFootage:
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


@dataclass(frozen=True)
class RenderedFootage:
    """A clip rendered here and now, with scribbles simulated on its masks; nothing of it is on disk."""

    config: SyntheticConfig
    scribbles: ScribbleConfig
    number: int

    def labelled(self) -> list[int]:
        return list(range(self.config.num_frames))

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
        return resize_scribble(_scribbled(self.config, self.scribbles, self.number, position), *size)

    def mask(self, position: int, size: Size) -> np.ndarray:
        return resize_mask(self._clip.masks[position], *size)

    @property
    def _clip(self) -> Clip:
        return _rendered(self.config, self.number)


@lru_cache(maxsize=2)  # clips that are cut from one rendering come one after the other
def _rendered(config: SyntheticConfig, number: int) -> Clip:
    return render_clip(config, "train", number)


@lru_cache(maxsize=64)
def _scribbled(config: SyntheticConfig, scribbles: ScribbleConfig, number: int, position: int) -> np.ndarray:
    rng = scribble_rng(scribbles.seed, f"train-{number}", f"{position:05d}")
    scribble = simulate_scribble(_rendered(config, number).masks[position], rng, scribbles)
    scribble.flags.writeable = False
    return scribble


@dataclass(frozen=True)
class Renderer:
    """An unlimited source. Its clips are numbered on from those that lie on disk, and a number gives the same clip in
    every process."""

    config: SyntheticConfig
    scribbles: ScribbleConfig

    def footage(self, number: int) -> RenderedFootage:
        return RenderedFootage(self.config, self.scribbles, number)

    def number(self, epoch: int, clips_per_epoch: int, drawn: int) -> int:
        """Which clip an epoch's next one is cut from, `drawn` of this source having been cut before it: no epoch sees a
        clip of another."""
        an_epoch = -(-clips_per_epoch // self.config.uses)
        return self.config.num_train + epoch * an_epoch + drawn // self.config.uses


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
