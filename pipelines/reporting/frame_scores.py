"""What `evaluate` and `baselines` wrote of every object and frame, and where in its video a frame stands."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from ssvos.data.index import IndexedVideo

# an object that stays below either of them in the median frame; of the true mask, shares of the frame and its height
SMALL_AREA, THIN_WIDTH = 0.005, 0.02
NUM_PARTS = 10  # of a video
_TEXTS = ("answer", "source", "sequence", "object", "frame")

Key = tuple[str, str, str]  # source, sequence, object


@dataclass(frozen=True)
class FrameScore:
    """J and F, fractions, of an object in sight in a frame; area and width of its true mask (`object_shape`)."""

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


def read_frames(path: Path, answer: str = "") -> list[FrameScore]:
    """The rows of a file, or of one answer in it, where the object is in sight; none without the file."""
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.pop("answer", "") == answer]
    scores = [FrameScore(**{k: v if k in _TEXTS else float(v) for k, v in row.items()}) for row in rows]
    return [score for score in scores if score.area > 0]


def by_object(scores: Iterable[FrameScore]) -> dict[Key, list[FrameScore]]:
    found: dict[Key, list[FrameScore]] = {}
    for score in scores:
        found.setdefault(score.key, []).append(score)
    return found


def is_small(scores: list[FrameScore]) -> bool:
    """Whether one object, of whose frames these are, is tiny or thin."""
    return median(one.area for one in scores) < SMALL_AREA or median(one.width for one in scores) < THIN_WIDTH


def mean_of_objects(groups: Iterable[list[FrameScore]]) -> tuple[float, float] | None:
    """J and F in percent, every object counting the same; None without any."""
    means = [(fmean(one.J for one in own), fmean(one.F for one in own)) for own in groups]
    return (100 * fmean(J for J, _ in means), 100 * fmean(F for _, F in means)) if means else None


def over_time(scores: list[FrameScore], videos: Mapping[tuple[str, str], IndexedVideo]) -> dict[float, tuple]:
    """Middle of each tenth of the way from an object's first frame to the video's last, in percent -> J and F.

    Means over the objects that have a scored frame there. videos: by source and sequence
    """
    parts: dict[int, list[FrameScore]] = {}
    places = {key: _places(video) for key, video in videos.items()}
    for score in scores:
        share = places[score.source, score.sequence][score.object][score.frame]
        parts.setdefault(min(int(NUM_PARTS * share), NUM_PARTS - 1), []).append(score)
    return {
        100 * (part + 0.5) / NUM_PARTS: mean_of_objects(by_object(own).values()) for part, own in sorted(parts.items())
    }


def _places(video: IndexedVideo) -> dict[str, dict[str, float]]:
    """Object -> frame -> its place between the object's first labelled frame, 0, and the video's last one, 1."""
    last = len(video.frames) - 1
    places = {}
    for object_id in video.objects:
        first = next(k for k, frame in enumerate(video.frames) if object_id in (frame.objects or ()))
        whole = max(1, last - first)
        places[str(object_id)] = {frame.name: max(0, k - first) / whole for k, frame in enumerate(video.frames)}
    return places
