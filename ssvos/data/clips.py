"""Training clips of one object each: the draw of an epoch's clips, and reading, resizing and augmenting a clip."""

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
from ssvos.scribbles.store import ScribbleKey


@dataclass(frozen=True)
class ClipSpec:
    """One training clip.

    video: index of the video in ClipSampler.videos; for a rendered clip its number
    positions: positions of the clip's frames in the video
    object_id: the clip's object; 0 for a rendered clip, whose object is chosen after rendering
    seed: seed of all random choices in the clip
    rendered: name of the unlimited source that renders the clip; empty for a video of the index
    """

    video: int
    positions: tuple[int, ...]
    object_id: int
    seed: tuple[int, ...]
    rendered: str = ""


@dataclass(frozen=True)
class Supervision:
    """The targets of a video.

    scribble_every: labelled frames 0, n, 2n, ... have their scribble as target
    dense_every: labelled frames 0, n, 2n, ... have their dense mask as target instead; 0: none
    """

    scribble_every: int = 1
    dense_every: int = 0

    def scribbled(self, clip_source: ClipSource) -> set[int]:
        """Positions of the frames whose scribble is used."""
        return set(clip_source.labelled()[:: self.scribble_every])

    def dense(self, clip_source: ClipSource) -> set[int]:
        """Positions of the frames whose target is their dense mask."""
        positions = clip_source.labelled()[:: self.dense_every] if self.dense_every else []
        return {position for position in positions if clip_source.has_mask(position)}


@dataclass(frozen=True)
class ClipSampler:
    """Draws training clips from the videos of an index and from unlimited sources.

    videos: videos of the index
    roots: data set -> root of its paths
    weights: data set -> relative frequency of its clips
    scribbles: scribbles of the labelled frames, for example a ScribbleStore
    supervision: data set -> its targets; by default every scribble
    renderers: data set -> its renderer, for unlimited sources, whose videos in the index are not used
    """

    videos: Sequence[IndexedVideo]
    roots: Mapping[str, Path]
    weights: Mapping[str, float]
    scribbles: Mapping[ScribbleKey, np.ndarray]
    supervision: Mapping[str, Supervision] = field(default_factory=dict)
    renderers: Renderers = field(default_factory=dict)

    def supervision_of(self, dataset: str) -> Supervision:
        """The targets of a data set."""
        return self.supervision.get(dataset, Supervision())

    def clip_source(self, spec: ClipSpec) -> ClipSource:
        """The source of a clip's frames."""
        return self.renderers[spec.rendered].clip_source(spec.video) if spec.rendered else self._indexed(spec.video)

    def dataset(self, spec: ClipSpec) -> str:
        """The data set of a clip."""
        return spec.rendered or self.videos[spec.video].dataset

    def name(self, spec: ClipSpec) -> str:
        """The name of a clip in messages."""
        sequence = f"{spec.rendered} clip {spec.video}" if spec.rendered else self.videos[spec.video].sequence
        return f"{sequence} frames {spec.positions[0]}-{spec.positions[-1]}"

    def draw(self, stage: StageConfig, seed: int, epoch: int) -> list[ClipSpec]:
        """The clips of one epoch, in order. They depend on (seed, epoch) and not on the number of workers.

        stage: the training stage
        seed: seed of the training
        epoch: the epoch
        Raises ValueError if no video is long enough, or if no source with a long enough video has a weight above 0.
        """
        rng = np.random.default_rng([seed, epoch, 0])
        entries, probabilities = self._entries(stage)
        strides = _strides(stage, epoch)

        @cache
        def starts(entry: int | str, stride: int) -> list[tuple[int, int]]:
            return self._starts(entry, stage.clip_frames, stride)

        rendered: Counter[str] = Counter()
        specs = []
        for k in range(stage.clips_per_epoch):
            entry = entries[int(rng.choice(len(entries), p=probabilities))]
            stride = strides[0] if len(strides) == 1 else strides[int(rng.integers(len(strides)))]
            candidates = starts(entry, stride)
            start, stride = candidates[int(rng.integers(len(candidates)))]
            positions = tuple(range(start, start + stage.clip_frames * stride, stride))
            if isinstance(entry, str):
                number = self.renderers[entry].number(epoch, stage.clips_per_epoch, rendered[entry])
                rendered[entry] += 1
                specs.append(ClipSpec(number, positions, 0, (seed, epoch, k), entry))
            else:
                objects = self._indexed(entry).objects(start)
                object_id = int(objects[int(rng.integers(len(objects)))])
                specs.append(ClipSpec(entry, positions, object_id, (seed, epoch, k)))
        return specs

    def _entries(self, stage: StageConfig) -> tuple[list[int | str], np.ndarray]:
        """The entries to draw from, a video by index and an unlimited source by name, and their probabilities (E,)."""
        weights = {**self.weights, **stage.weights}
        videos = [v for v, video in enumerate(self.videos) if video.dataset not in self.renderers]
        candidates: list[int | str] = [*videos, *self.renderers]
        long_enough = [e for e in candidates if self._starts(e, stage.clip_frames, 1)]
        if not long_enough:
            raise ValueError(
                f"clip_frames {stage.clip_frames}: no video has that many frames starting at a frame with an object; "
                "lower it, or add longer videos"
            )
        datasets = {e: e if isinstance(e, str) else self.videos[e].dataset for e in long_enough}
        entries = [e for e in long_enough if weights[datasets[e]] > 0]
        if not entries:
            raise ValueError("weights: no source that can be trained on has a weight above 0 in this stage; raise one")
        counts = Counter(datasets[e] for e in entries)
        probabilities: np.ndarray = np.array([weights[datasets[e]] / counts[datasets[e]] for e in entries])
        return entries, probabilities / probabilities.sum()

    def _starts(self, entry: int | str, length: int, stride: int) -> list[tuple[int, int]]:
        """(start, stride) of every clip of `length` frames whose first frame has an object and a scribble.

        If the video is too short for `stride`, the largest stride that fits is used. Every frame of a rendered clip is
        a possible start, because its objects are unknown before rendering.
        """
        if isinstance(entry, str):
            num_frames = self.renderers[entry].config.num_frames
            starts = set(range(num_frames))
        else:
            clip_source = self._indexed(entry)
            num_frames = len(clip_source.video.frames)
            scribbled = self.supervision_of(clip_source.video.dataset).scribbled(clip_source)
            starts = {start for start in scribbled if clip_source.objects(start)}
        for smaller in range(stride, 0, -1):
            end = num_frames - (length - 1) * smaller
            fitting = [(start, smaller) for start in sorted(starts) if start < end]
            if fitting:
                return fitting
        return []

    def _indexed(self, index: int) -> IndexedClipSource:
        video = self.videos[index]
        return IndexedClipSource(video, self.roots.get(video.dataset, Path()), self.scribbles)


def _strides(stage: StageConfig, epoch: int) -> range:
    """The strides to draw from in this epoch."""
    smallest = stage.smallest_stride or stage.frame_stride
    grown = min(1.0, epoch / stage.stride_growth) if stage.stride_growth else 1.0
    return range(smallest, smallest + round(grown * (stage.frame_stride - smallest)) + 1)


class ClipDataset(Dataset[dict[str, torch.Tensor]]):
    """The clips of some specs, resized and augmented. An item has these tensors for a clip of T frames:

    frames: (T, 3, H, W) uint8 RGB
    target: (T, H, W) uint8 of 0, 1 and 255, from the frame's scribble or its dense mask
    scribble: (H, W) uint8, the part of the first frame's strokes that is the network's input
    regularized: (R,) int64, indices of the frames on which the regularizer is computed
    """

    def __init__(
        self,
        sampler: ClipSampler,
        specs: Sequence[ClipSpec],
        stage: StageConfig,
        augment: AugmentConfig,
        input_share: float,
    ):
        self.sampler, self.specs, self.stage = sampler, specs, stage
        self.augment, self.input_share = augment, input_share

    def __len__(self) -> int:
        return len(self.specs)

    def __getitem__(self, k: int) -> dict[str, torch.Tensor]:
        spec = self.specs[k]
        rng = np.random.default_rng([*spec.seed, 1])
        variation = draw_variation(self.augment, rng, len(spec.positions))
        clip_source, supervision = (
            self.sampler.clip_source(spec),
            self.sampler.supervision_of(self.sampler.dataset(spec)),
        )
        size = self.stage.height, self.stage.width
        positions, object_id = (spec.positions, spec.object_id) if spec.object_id else _choose_object(clip_source, spec)
        scribbled, dense = supervision.scribbled(clip_source), supervision.dense(clip_source)
        if variation.reverse and positions[-1] in scribbled and object_id in clip_source.objects(positions[-1]):
            positions = positions[::-1]
        frames, targets = [], []
        for number, position in enumerate(positions):
            frames.append(variation.frame(clip_source.frame(position, size), number))
            if position in dense:
                labels = clip_source.mask(position, size)
            elif position in scribbled:
                labels = clip_source.scribble(position, size)
            else:
                labels = np.full(size, UNLABELLED, np.uint8)
            targets.append(variation.scribble(binary_scribbles(labels, [object_id])[0], number))
        strokes = targets[0]
        if positions[0] in dense:  # the network's input is a scribble although the target is a dense mask
            first_scribble = binary_scribbles(clip_source.scribble(positions[0], size), [object_id])[0]
            strokes = variation.scribble(first_scribble, 0)
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


def _choose_object(clip_source: ClipSource, spec: ClipSpec) -> tuple[tuple[int, ...], int]:
    """The positions and the object of a rendered clip.

    If no object is visible on the first position, the clip starts at the video's first frame, which shows all objects.
    """
    start = spec.positions[0] if clip_source.objects(spec.positions[0]) else 0
    objects = clip_source.objects(start)
    object_id = objects[int(np.random.default_rng([*spec.seed, 2]).integers(len(objects)))]
    return tuple(position - spec.positions[0] + start for position in spec.positions), object_id
