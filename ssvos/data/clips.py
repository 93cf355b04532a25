"""Training clips: drawn from the index by (seed, epoch) alone, read, resized, varied, one object each."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from ssvos.config import AugmentConfig, StageConfig
from ssvos.data.augment import draw_variation, resize_frame, resize_scribble, split_strokes
from ssvos.data.index import IndexedVideo
from ssvos.labels import UNLABELLED, binary_scribbles, read_labels
from ssvos.scribbles.store import ScribbleStore


@dataclass(frozen=True)
class ClipSpec:
    """Which clip: a video, its frames by position, the object followed, and the seed of all that is drawn for it."""

    video: int
    positions: tuple[int, ...]
    object_id: int
    seed: tuple[int, ...]


@dataclass(frozen=True)
class Supervision:
    """Which labelled frames of a video are targets, counted from its first: every `scribble_every`-th by its scribble,
    every `dense_every`-th (0: none) by its dense mask in place of that."""

    scribble_every: int = 1
    dense_every: int = 0

    def scribbled(self, video: IndexedVideo) -> set[int]:
        """Positions of the frames whose scribble may be used."""
        return set(_labelled(video)[:: self.scribble_every])

    def dense(self, video: IndexedVideo) -> set[int]:
        """Positions of the frames whose target is their mask."""
        chosen = _labelled(video)[:: self.dense_every] if self.dense_every else []
        return {position for position in chosen if video.frames[position].mask_path}


def _labelled(video: IndexedVideo) -> list[int]:
    return [position for position, frame in enumerate(video.frames) if frame.objects is not None]


@dataclass(frozen=True)
class ClipSource:
    """Where clips come from: videos of the index, roots and weights of their data sets, scribbles of their frames, and
    by data set which of these frames are targets; all by their scribbles where nothing is said."""

    videos: Sequence[IndexedVideo]
    roots: Mapping[str, Path]
    weights: Mapping[str, float]
    scribbles: ScribbleStore
    supervision: Mapping[str, Supervision] = field(default_factory=dict)

    def supervision_of(self, video: IndexedVideo) -> Supervision:
        return self.supervision.get(video.dataset, Supervision())

    def draw(self, stage: StageConfig, seed: int, epoch: int) -> list[ClipSpec]:
        """The clips of one epoch, in order: a function of (seed, epoch) alone, whatever the workers."""
        rng = np.random.default_rng([seed, epoch, 0])
        starts = {v: self._starts(video, stage) for v, video in enumerate(self.videos)}
        usable = [v for v, found in starts.items() if found]
        if not usable:
            raise ValueError(
                f"clip_frames {stage.clip_frames}: no video has an object and so many frames from it on; "
                "lower it, or add longer videos"
            )
        counts = Counter(self.videos[v].dataset for v in usable)
        weight = np.array([self.weights[self.videos[v].dataset] / counts[self.videos[v].dataset] for v in usable])
        weight /= weight.sum()
        specs = []
        for k in range(stage.clips_per_epoch):
            v = usable[int(rng.choice(len(usable), p=weight))]
            start, stride = starts[v][int(rng.integers(len(starts[v])))]
            positions = tuple(range(start, start + stage.clip_frames * stride, stride))
            objects = self.videos[v].frames[start].objects
            chosen = int(objects[int(rng.integers(len(objects)))])
            specs.append(ClipSpec(v, positions, chosen, (seed, epoch, k)))
        return specs

    def _starts(self, video: IndexedVideo, stage: StageConfig) -> list[tuple[int, int]]:
        """(start, stride) of every clip whose first frame has an object and its scribble; a short video takes a shorter
        stride."""
        scribbled = self.supervision_of(video).scribbled(video)
        for stride in range(stage.frame_stride, 0, -1):
            last = len(video.frames) - (stage.clip_frames - 1) * stride
            found = [(s, stride) for s in range(last) if video.frames[s].objects and s in scribbled]
            if found:
                return found
        return []


class ClipDataset(Dataset):
    """Reads clips. An item is a dict: frames (T, 3, H, W) float in [0, 1], target (T, H, W) uint8 of 0, 1, 255, and
    scribble (H, W), the part of the first frame's strokes that the network is given. A target is the frame's strokes or
    its dense mask."""

    def __init__(
        self,
        source: ClipSource,
        specs: Sequence[ClipSpec],
        stage: StageConfig,
        augment: AugmentConfig,
        input_share: float,
    ):
        self.source, self.specs, self.stage = source, specs, stage
        self.augment, self.input_share = augment, input_share

    def __len__(self) -> int:
        return len(self.specs)

    def __getitem__(self, k: int) -> dict[str, torch.Tensor]:
        spec = self.specs[k]
        rng = np.random.default_rng([*spec.seed, 1])
        variation = draw_variation(self.augment, rng)
        video = self.source.videos[spec.video]
        positions, supervision = spec.positions, self.source.supervision_of(video)
        scribbled, dense = supervision.scribbled(video), supervision.dense(video)
        if variation.reverse and self._may_begin(video, positions[-1], spec.object_id, scribbled):
            positions = positions[::-1]
        frames, targets = [], []
        for position in positions:
            frame = read_frame(self._path(video, position), self.stage.height, self.stage.width)
            frames.append(variation.frame(frame))
            labels = self._mask if position in dense else self._scribble if position in scribbled else self._nothing
            targets.append(variation.scribble(labels(video, position, spec.object_id)))
        target, strokes = np.stack(targets), targets[0]
        if positions[0] in dense:  # what the network is given is a scribble all the same
            strokes = variation.scribble(self._scribble(video, positions[0], spec.object_id))
        regularized = self._regularized(rng)
        scribble = split_strokes(strokes, self.input_share, rng)
        stacked = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255
        return {
            "frames": stacked,
            "target": torch.from_numpy(target),
            "scribble": torch.from_numpy(np.ascontiguousarray(scribble)),
            "regularized": torch.from_numpy(regularized),
        }

    def _regularized(self, rng: np.random.Generator) -> np.ndarray:
        length = self.stage.clip_frames
        count = min(self.stage.regularized_frames or length, length)
        return np.sort(rng.permutation(length)[:count])

    def _path(self, video: IndexedVideo, position: int) -> Path:
        return self.source.roots[video.dataset] / video.frames[position].image_path

    def _may_begin(self, video: IndexedVideo, position: int, object_id: int, scribbled: set[int]) -> bool:
        return position in scribbled and object_id in video.frames[position].objects

    def _scribble(self, video: IndexedVideo, position: int, object_id: int) -> np.ndarray:
        scribble = self.source.scribbles[(video.dataset, video.sequence, video.frames[position].name)]
        return binary_scribbles(resize_scribble(scribble, self.stage.height, self.stage.width), [object_id])[0]

    def _mask(self, video: IndexedVideo, position: int, object_id: int) -> np.ndarray:
        path = self.source.roots[video.dataset] / video.frames[position].mask_path
        return binary_scribbles(read_mask(path, self.stage.height, self.stage.width), [object_id])[0]

    def _nothing(self, *_) -> np.ndarray:
        return np.full((self.stage.height, self.stage.width), UNLABELLED, np.uint8)


def read_frame(path: Path, height: int = 0, width: int = 0) -> np.ndarray:
    """Read an image as (H, W, 3) uint8 RGB, resized to height x width if given. ValueError if it does not decode."""
    frame = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if frame is None:
        raise ValueError(f"{path}: not a readable image; check the file or take it out of the list")
    return resize_frame(frame, height, width) if height and width else frame


def read_mask(path: Path, height: int, width: int) -> np.ndarray:
    """Read a mask, (height, width) uint8: each pixel has the label of the pixel that its centre lies in."""
    mask = read_labels(path)
    rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(int)
    return mask[rows[:, None], columns]
