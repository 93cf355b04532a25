"""Numbers of training, held-out and evaluation videos and frames of a configuration, counted without preparing them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssvos.config import Config, SourceConfig
from ssvos.data.index import hold_out, list_videos
from ssvos.data.synthetic.clips import SPLITS
from ssvos.data.videos import FaultyData, Video
from ssvos.labels import object_ids, read_labels

_SAMPLE = 8  # videos whose first mask or scribble is read for the number of objects


@dataclass(frozen=True)
class SourceCounts:
    """The videos of one source, each as its number of frames.

    train, holdout, val: training, held-out and evaluation videos.
    size: (height, width) of a frame.
    has_masks: whether the held-out videos have masks for scoring.
    objects: mean number of objects of a sample of videos.
    """

    source: SourceConfig
    train: tuple[int, ...]
    holdout: tuple[int, ...]
    val: tuple[int, ...]
    size: tuple[int, int]
    has_masks: bool
    objects: float

    @property
    def num_frames(self) -> int:
        """The number of all frames."""
        return sum(self.train) + sum(self.holdout) + sum(self.val)


def count_sources(config: Config) -> tuple[SourceCounts, ...] | None:
    """Count the videos of every source by the names of its files; None if a source has no folder yet.

    Raises FaultyData for faults that file names show: a missing folder or list, a video that is both for training and
    for evaluation, too few videos to hold one out.
    """
    sources = config.data.sources
    if any(source.layout != "embedded" and not source.root for source in sources):
        return None
    return tuple(_embedded(s, config) if s.layout == "embedded" else _on_disk(s, config) for s in sources)


def _embedded(source: SourceConfig, config: Config) -> SourceCounts:
    synthetic = config.synthetic
    counts: dict[str, int] = dict(zip(SPLITS, (synthetic.num_train, synthetic.num_val), strict=True))
    holdout_list = config.data.holdout_split or source.train
    lists = (source.train, source.val, holdout_list) if source.val else (source.train,)
    if missing := [name for name in lists if name not in counts]:
        raise FaultyData([f"{missing[0]}: the embedded data set has no such list; choose one of {', '.join(counts)}"])
    trained = [f"{source.train}-{index:03d}" for index in range(counts[source.train])]
    held_out = hold_out(trained, config.data.holdout_fraction, config.data.seed) if source.val else set()
    length = (synthetic.num_frames,)
    return SourceCounts(
        source,
        train=length * (len(trained) - len(held_out)),
        holdout=length * len(held_out),
        val=length * counts[source.val] if source.val else (),
        size=(synthetic.height, synthetic.width),
        has_masks=True,
        objects=(1 + synthetic.max_objects) / 2,
    )


def _on_disk(source: SourceConfig, config: Config) -> SourceCounts:
    source = source.model_copy(update={"root": str(Path(source.root).expanduser())})
    holdout_list = config.data.holdout_split if source.val else ""
    lists = [name for name in (source.train, holdout_list, source.val) if name]
    videos, faults = list_videos([source], {source.name: lists})
    if faults:
        raise FaultyData(faults)
    by_list = {name: [video for _, video in videos if video.split == name] for name in lists}
    trained = {video.sequence: video for video in by_list[source.train]}
    if not source.val:
        held_out: set[str] = set()
    elif holdout_list:
        held_out = {video.sequence for video in by_list[holdout_list]}
    else:
        held_out = hold_out(sorted(trained), config.data.holdout_fraction, config.data.seed)
    candidates = {video.sequence: video for video in by_list[holdout_list or source.train]}
    holdout = [candidates[name] for name in sorted(held_out)]
    val = by_list.get(source.val, [])
    size, objects = _sample(source, [*val, *holdout] or list(trained.values()))
    return SourceCounts(
        source,
        train=_lengths([video for name, video in trained.items() if name not in held_out]),
        holdout=_lengths(holdout),
        val=_lengths(val),
        size=size,
        has_masks=all(any(frame.mask_path for frame in video.frames[1:]) for video in holdout),
        objects=objects,
    )


def _lengths(videos: Sequence[Video]) -> tuple[int, ...]:
    return tuple(len(video.frames) for video in videos)


def _sample(source: SourceConfig, videos: Sequence[Video]) -> tuple[tuple[int, int], float]:
    """(height, width) of a frame, and the mean number of objects on the first labelled frame, of some videos.

    Files that cannot be read are skipped; `prepare` reports their faults.
    """
    root, size = Path(source.root), (480, 854)
    counts: list[int] = []
    for video in videos[:: max(1, len(videos) // _SAMPLE)]:
        labels = [path for frame in video.frames if (path := frame.mask_path or frame.scribble_path)]
        if not labels:
            continue
        try:
            mask = read_labels(root / labels[0])
        except ValueError:
            continue
        height, width = mask.shape
        size = (height, width)
        counts.append(max(1, len(object_ids(mask))))
    return size, sum(counts) / len(counts) if counts else 1.0
