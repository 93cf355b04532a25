"""How many videos and frames a configuration trains, chooses and judges on, counted without preparing them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssvos.config import Config, SourceConfig
from ssvos.data.index import hold_out, list_videos
from ssvos.data.synthetic.clips import SPLITS
from ssvos.data.videos import FaultyData, Video
from ssvos.labels import object_ids, read_labels

_SAMPLE = 8  # videos whose first label is opened to see how many objects they have


@dataclass(frozen=True)
class SourceCounts:
    """Videos of one source by what they are for, each as its number of frames.

    size: (height, width) of a frame. has_masks: whether the held-out videos can be scored by masks. objects: the mean
    of a sample of videos.
    """

    source: SourceConfig
    train: tuple[int, ...]
    holdout: tuple[int, ...]
    judged: tuple[int, ...]
    size: tuple[int, int]
    has_masks: bool
    objects: float

    @property
    def num_frames(self) -> int:
        return sum(self.train) + sum(self.holdout) + sum(self.judged)


def count_sources(config: Config) -> tuple[SourceCounts, ...] | None:
    """Every source counted by the names of its files; None if one has no folder yet. Raises FaultyData with the faults
    that names alone show: a missing folder or list, a video that trains and judges, too few to hold one out."""
    sources = config.data.sources
    if any(source.layout != "embedded" and not source.root for source in sources):
        return None
    return tuple(_embedded(s, config) if s.layout == "embedded" else _on_disk(s, config) for s in sources)


def _embedded(source: SourceConfig, config: Config) -> SourceCounts:
    made = config.synthetic
    names = dict(zip(SPLITS, (made.num_train, made.num_val), strict=True))
    asked = (source.train, source.val, config.data.holdout_split or source.train) if source.val else (source.train,)
    if missing := [name for name in asked if name not in names]:
        raise FaultyData([f"{missing[0]}: the embedded data set has no such list; choose one of {', '.join(names)}"])
    trained = [f"{source.train}-{index:03d}" for index in range(names[source.train])]
    held = hold_out(trained, config.data.holdout_fraction, config.data.seed) if source.val else ()
    length = (made.num_frames,)
    return SourceCounts(
        source,
        train=length * (len(trained) - len(held)),
        holdout=length * len(held),
        judged=length * names[source.val] if source.val else (),
        size=(made.height, made.width),
        has_masks=True,
        objects=(1 + made.max_objects) / 2,
    )


def _on_disk(source: SourceConfig, config: Config) -> SourceCounts:
    source = source.model_copy(update={"root": str(Path(source.root).expanduser())})
    own_list = config.data.holdout_split if source.val else ""
    lists = [name for name in (source.train, own_list, source.val) if name]
    listed, faults = list_videos([source], {source.name: lists})
    if faults:
        raise FaultyData(faults)
    by_list = {name: [video for _, video in listed if video.split == name] for name in lists}
    trained = {video.sequence: video for video in by_list[source.train]}
    if not source.val:
        held = set()
    elif own_list:
        held = {video.sequence for video in by_list[own_list]}
    else:
        held = hold_out(sorted(trained), config.data.holdout_fraction, config.data.seed)
    chosen_from = {video.sequence: video for video in by_list[own_list or source.train]}
    holdout = [chosen_from[name] for name in sorted(held)]
    judged = by_list.get(source.val, [])
    size, objects = _sample(source, [*judged, *holdout] or list(trained.values()))
    return SourceCounts(
        source,
        train=_lengths([video for name, video in trained.items() if name not in held]),
        holdout=_lengths(holdout),
        judged=_lengths(judged),
        size=size,
        has_masks=all(any(frame.mask_path for frame in video.frames[1:]) for video in holdout),
        objects=objects,
    )


def _lengths(videos: Sequence[Video]) -> tuple[int, ...]:
    return tuple(len(video.frames) for video in videos)


def _sample(source: SourceConfig, videos: Sequence[Video]) -> tuple[tuple[int, int], float]:
    """(height, width) of the first frame and the mean number of objects on the first labelled frame of some videos.
    What is wrong with a file is for `prepare` to say: files that do not open are left out."""
    root, size, counts = Path(source.root), (480, 854), []
    for video in videos[:: max(1, len(videos) // _SAMPLE)]:
        labels = [path for frame in video.frames if (path := frame.mask_path or frame.scribble_path)]
        if not labels:
            continue
        try:
            mask = read_labels(root / labels[0])
        except ValueError:
            continue
        size = mask.shape
        counts.append(max(1, len(object_ids(mask))))
    return size, sum(counts) / len(counts) if counts else 1.0
