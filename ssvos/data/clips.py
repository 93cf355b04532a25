"""Training clips: drawn from videos and renderers by (seed, epoch) alone, read, resized, varied, one object each."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from ssvos.config import AugmentConfig, StageConfig
from ssvos.data.augment import draw_variation, split_strokes
from ssvos.data.clip_sources import ClipSource, IndexedClipSource, Renderers
from ssvos.data.index import IndexedVideo
from ssvos.labels import UNLABELLED, binary_scribbles
from ssvos.scribbles.store import ScribbleStore


@dataclass(frozen=True)
class ClipSpec:
    """Which clip: a video, its frames by position, the object followed, and the seed of all that is drawn for it.

    A rendered clip has its source's name in `rendered`, and in `video` its number there; its object is chosen once it
    has been rendered (object_id 0).
    """

    video: int
    positions: tuple[int, ...]
    object_id: int
    seed: tuple[int, ...]
    rendered: str = ""


@dataclass(frozen=True)
class Supervision:
    """Which labelled frames of a video are targets, counted from its first: every `scribble_every`-th by its scribble,
    every `dense_every`-th (0: none) by its dense mask in place of that."""

    scribble_every: int = 1
    dense_every: int = 0

    def scribbled(self, footage: ClipSource) -> set[int]:
        """Positions of the frames whose scribble may be used."""
        return set(footage.labelled()[:: self.scribble_every])

    def dense(self, footage: ClipSource) -> set[int]:
        """Positions of the frames whose target is their mask."""
        chosen = footage.labelled()[:: self.dense_every] if self.dense_every else []
        return {position for position in chosen if footage.has_mask(position)}


@dataclass(frozen=True)
class ClipSampler:
    """Where clips come from: videos of the index, roots and weights of their data sets, scribbles of their frames, and
    by data set which of these frames are targets; all by their scribbles where nothing is said.

    renderers: of the sources whose training clips are rendered as they are drawn; their videos are left alone.
    """

    videos: Sequence[IndexedVideo]
    roots: Mapping[str, Path]
    weights: Mapping[str, float]
    scribbles: ScribbleStore
    supervision: Mapping[str, Supervision] = field(default_factory=dict)
    renderers: Renderers = field(default_factory=dict)

    def supervision_of(self, dataset: str) -> Supervision:
        return self.supervision.get(dataset, Supervision())

    def footage(self, spec: ClipSpec) -> ClipSource:
        """What a clip is cut from."""
        return self.renderers[spec.rendered].footage(spec.video) if spec.rendered else self._indexed(spec.video)

    def dataset(self, spec: ClipSpec) -> str:
        return spec.rendered or self.videos[spec.video].dataset

    def name(self, spec: ClipSpec) -> str:
        """A clip as a person may find it again."""
        sequence = f"{spec.rendered} clip {spec.video}" if spec.rendered else self.videos[spec.video].sequence
        return f"{sequence} frames {spec.positions[0]}-{spec.positions[-1]}"

    def draw(self, stage: StageConfig, seed: int, epoch: int) -> list[ClipSpec]:
        """The clips of one epoch, in order: a function of (seed, epoch) alone, whatever the workers.

        ValueError where no video is long enough, or none of those that are has weight in this stage.
        """
        rng = np.random.default_rng([seed, epoch, 0])
        entries, weight = self._entries(stage)
        strides = _strides(stage, epoch)
        starts = cache(lambda entry, stride: self._starts(entry, stage.clip_frames, stride))
        rendered: Counter[str] = Counter()
        specs = []
        for k in range(stage.clips_per_epoch):
            entry = entries[int(rng.choice(len(entries), p=weight))]
            stride = strides[0] if len(strides) == 1 else strides[int(rng.integers(len(strides)))]
            found = starts(entry, stride)
            start, stride = found[int(rng.integers(len(found)))]
            positions = tuple(range(start, start + stage.clip_frames * stride, stride))
            if isinstance(entry, str):
                number = self.renderers[entry].number(epoch, stage.clips_per_epoch, rendered[entry])
                rendered[entry] += 1
                specs.append(ClipSpec(number, positions, 0, (seed, epoch, k), entry))
            else:
                objects = self.videos[entry].frames[start].objects
                chosen = int(objects[int(rng.integers(len(objects)))])
                specs.append(ClipSpec(entry, positions, chosen, (seed, epoch, k)))
        return specs

    def _entries(self, stage: StageConfig) -> tuple[list[int | str], np.ndarray]:
        """What is drawn from, videos by number and renderers by name, and the probability of each."""
        weights = {**self.weights, **stage.weights}
        videos = [v for v, video in enumerate(self.videos) if video.dataset not in self.renderers]
        long_enough = [e for e in (*videos, *self.renderers) if self._starts(e, stage.clip_frames, 1)]
        if not long_enough:
            raise ValueError(
                f"clip_frames {stage.clip_frames}: no video has an object and so many frames from it on; "
                "lower it, or add longer videos"
            )
        datasets = {e: e if isinstance(e, str) else self.videos[e].dataset for e in long_enough}
        entries = [e for e in long_enough if weights[datasets[e]] > 0]
        if not entries:
            raise ValueError("weights: leave no source to train on in this stage; give one of them more than 0")
        counts = Counter(datasets[e] for e in entries)
        weight = np.array([weights[datasets[e]] / counts[datasets[e]] for e in entries])
        return entries, weight / weight.sum()

    def _starts(self, entry: int | str, length: int, stride: int) -> list[tuple[int, int]]:
        """(start, stride) of every clip of `length` frames whose first one has an object and its scribble; a video that
        is too short takes a shorter stride. What a rendered frame shows is not known before it is rendered."""
        if isinstance(entry, str):
            count = self.renderers[entry].config.num_frames
            beginnings = set(range(count))
        else:
            footage = self._indexed(entry)
            count = len(footage.video.frames)
            beginnings = self.supervision_of(footage.video.dataset).scribbled(footage)
            beginnings = {s for s in beginnings if footage.objects(s)}
        for shorter in range(stride, 0, -1):
            last = count - (length - 1) * shorter
            found = [(s, shorter) for s in sorted(beginnings) if s < last]
            if found:
                return found
        return []

    def _indexed(self, video: int) -> IndexedClipSource:
        found = self.videos[video]
        return IndexedClipSource(found, self.roots.get(found.dataset, Path()), self.scribbles)


def _strides(stage: StageConfig, epoch: int) -> range:
    """The strides a clip of this epoch may have."""
    smallest = stage.smallest_stride or stage.frame_stride
    grown = min(1.0, epoch / stage.stride_growth) if stage.stride_growth else 1.0
    return range(smallest, smallest + round(grown * (stage.frame_stride - smallest)) + 1)


class ClipDataset(Dataset):
    """Cuts clips. An item is a dict: frames (T, 3, H, W) uint8, target (T, H, W) uint8 of 0, 1, 255, scribble (H, W),
    the part of the first frame's strokes that the network is given, and the numbers of the regularized frames. A target
    is the frame's strokes or its dense mask."""

    def __init__(
        self,
        source: ClipSampler,
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
        variation = draw_variation(self.augment, rng, len(spec.positions))
        footage, supervision = self.source.footage(spec), self.source.supervision_of(self.source.dataset(spec))
        size = self.stage.height, self.stage.width
        positions, object_id = (spec.positions, spec.object_id) if spec.object_id else _followed(footage, spec)
        scribbled, dense = supervision.scribbled(footage), supervision.dense(footage)
        if variation.reverse and positions[-1] in scribbled and object_id in footage.objects(positions[-1]):
            positions = positions[::-1]
        frames, targets = [], []
        for number, position in enumerate(positions):
            frames.append(variation.frame(footage.frame(position, size), number))
            if position in dense:
                labels = footage.mask(position, size)
            elif position in scribbled:
                labels = footage.scribble(position, size)
            else:
                labels = np.full(size, UNLABELLED, np.uint8)
            targets.append(variation.scribble(binary_scribbles(labels, [object_id])[0], number))
        strokes = targets[0]
        if positions[0] in dense:  # what the network is given is a scribble all the same
            given = binary_scribbles(footage.scribble(positions[0], size), [object_id])[0]
            strokes = variation.scribble(given, 0)
        regularized = self._regularized(rng)
        scribble = split_strokes(strokes, self.input_share, rng)
        return {
            "frames": torch.from_numpy(np.ascontiguousarray(np.stack(frames).transpose(0, 3, 1, 2))),
            "target": torch.from_numpy(np.stack(targets)),
            "scribble": torch.from_numpy(np.ascontiguousarray(scribble)),
            "regularized": torch.from_numpy(regularized),
        }

    def _regularized(self, rng: np.random.Generator) -> np.ndarray:
        length = self.stage.clip_frames
        count = min(self.stage.regularized_frames or length, length)
        return np.sort(rng.permutation(length)[:count])


def _followed(footage: ClipSource, spec: ClipSpec) -> tuple[tuple[int, ...], int]:
    """Positions and object of a rendered clip; where nothing is in sight at its start, it begins with the first frame,
    which shows all objects."""
    start = spec.positions[0] if footage.objects(spec.positions[0]) else 0
    objects = footage.objects(start)
    chosen = objects[int(np.random.default_rng([*spec.seed, 2]).integers(len(objects)))]
    return tuple(position - spec.positions[0] + start for position in spec.positions), chosen
