"""Scores of single frames from frames.csv and baselines-frames.csv: small objects, means, scores over time."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from ssvos.data.index import IndexedVideo

# medians over an object's frames, of the true mask: area as a share of the frame, width as a share of its height
SMALL_AREA, THIN_WIDTH = 0.005, 0.02
NUM_PARTS = 10  # equal parts of a video
_TEXT_COLUMNS = ("source", "sequence", "object", "frame")

Key = tuple[str, str, str]  # source, sequence, object


@dataclass(frozen=True)
class FrameScore:
    """J and F, fractions, of an object that is visible in a frame; area and width of its true mask (`object_shape`)."""

    source: str
    sequence: str
    object: str
    frame: str
    J: float
    F: float
    area: float
    width: float

    @property
    def key(self) -> Key:
        return self.source, self.sequence, self.object


def read_frames(path: Path, baseline: str = "") -> list[FrameScore]:
    """Read the scores of the frames in which the object is visible; empty without the file.

    baseline: the baseline to read from baselines-frames.csv; "" for a variant's frames.csv
    """
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.pop("baseline", "") == baseline]
    scores = [FrameScore(**{k: v if k in _TEXT_COLUMNS else float(v) for k, v in row.items()}) for row in rows]
    return [score for score in scores if score.area > 0]


def by_object(scores: Iterable[FrameScore]) -> dict[Key, list[FrameScore]]:
    """Group scores by object."""
    groups: dict[Key, list[FrameScore]] = {}
    for score in scores:
        groups.setdefault(score.key, []).append(score)
    return groups


def is_small(scores: list[FrameScore]) -> bool:
    """Whether an object is thin or tiny. scores: of this object alone."""
    return median(one.area for one in scores) < SMALL_AREA or median(one.width for one in scores) < THIN_WIDTH


def mean_over_objects(groups: Iterable[list[FrameScore]]) -> tuple[float, float] | None:
    """Mean J and F in percent; every object has the same weight. None without any object.

    groups: the scores of each object
    """
    means = [(fmean(one.J for one in own), fmean(one.F for one in own)) for own in groups]
    return (100 * fmean(J for J, _ in means), 100 * fmean(F for _, F in means)) if means else None


def over_time(scores: list[FrameScore], videos: Mapping[tuple[str, str], IndexedVideo]) -> dict[float, tuple]:
    """Mean J and F by time, from an object's first frame to the video's last, in ten equal parts.

    A part's mean is over the objects that have a scored frame in it.

    videos:  by source and sequence
    returns: middle of the part in percent -> J and F in percent
    """
    parts: dict[int, list[FrameScore]] = {}
    times = {key: _relative_times(video) for key, video in videos.items()}
    for score in scores:
        time = times[score.source, score.sequence][score.object][score.frame]
        parts.setdefault(min(int(NUM_PARTS * time), NUM_PARTS - 1), []).append(score)
    return {
        100 * (part + 0.5) / NUM_PARTS: mean_over_objects(by_object(own).values())
        for part, own in sorted(parts.items())
    }


def _relative_times(video: IndexedVideo) -> dict[str, dict[str, float]]:
    """Object -> frame -> its time: 0 at the object's first labelled frame, 1 at the video's last frame."""
    last = len(video.frames) - 1
    times = {}
    for object_id in video.objects:
        first = next(k for k, frame in enumerate(video.frames) if object_id in (frame.objects or ()))
        duration = max(1, last - first)
        times[str(object_id)] = {frame.name: max(0, k - first) / duration for k, frame in enumerate(video.frames)}
    return times
