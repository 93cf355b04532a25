"""The failure gallery of the report: the worst frame of each object, small objects apart, and scores over time."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.evaluation_set import METHODS, evaluation_videos, mask_folder
from pipelines.params import Layout
from pipelines.reporting.chart_elements import Chart
from pipelines.reporting.charts import time_charts
from pipelines.reporting.clip_players import jpeg_uri
from pipelines.reporting.failure_crop import PREDICTED_COLOR, TRUE_COLOR, failure_picture
from pipelines.reporting.frame_scores import (
    SMALL_AREA,
    THIN_WIDTH,
    FrameScore,
    by_object,
    is_small,
    mean_over_objects,
    over_time,
    read_frames,
)
from ssvos.config.variants import Params
from ssvos.data.clip_sources import read_frame
from ssvos.data.index import IndexedVideo
from ssvos.labels import read_labels

_MAX_PICTURES = 8  # of a group
Means = dict[str, tuple[float, float] | None]  # by method: J and F in percent, None without any object


@dataclass(frozen=True)
class Failure:
    """An object's worst frame. picture: a data URI, with both outlines; width, height: of the picture, in pixels."""

    score: FrameScore
    picture: str
    width: int
    height: int


@dataclass(frozen=True)
class Group:
    """Objects of one kind.

    failures: the worst objects, the worst first
    means:    of every method over the group's objects
    """

    name: str
    num_objects: int
    failures: tuple[Failure, ...]
    means: Means


@dataclass(frozen=True)
class FailureGallery:
    """The section's content.

    methods:     variants and baselines that have scores of single frames, the main variant first
    main_method: the method whose failures the pictures show
    curves:      method -> percent of the way to the video's end -> J and F in percent
    """

    methods: tuple[str, ...]
    main_method: str
    groups: tuple[Group, ...]
    charts: tuple[Chart, ...]
    curves: dict[str, dict[float, tuple[float, float]]]
    small_area: float = SMALL_AREA
    thin_width: float = THIN_WIDTH
    true_color: str = "rgb({}, {}, {})".format(*TRUE_COLOR)
    predicted_color: str = "rgb({}, {}, {})".format(*PREDICTED_COLOR)

    @property
    def times(self) -> list[float]:
        """All x values of the curves, percent."""
        return sorted({time for curve in self.curves.values() for time in curve})


def failure_gallery(params: Params, layout: Layout) -> FailureGallery | None:
    """Build the gallery; None where no variant and no baseline has scores of single frames."""
    folders = {name: layout.predictions(name) for name in reversed(list(params.variants))}
    scores = {name: read_frames(layout.frame_scores(name)) for name in folders}
    for name, method in METHODS.items():
        if method.is_competitor:
            folders[method.title] = Path("predictions") / layout.name / "baselines" / name
            scores[method.title] = read_frames(layout.baseline_frames, name)
    scores = {name: own for name, own in scores.items() if own}
    if not scores:
        return None
    main, roots = next(iter(scores)), layout.roots(params.base)
    videos = {(video.dataset, video.sequence): video for video in evaluation_videos(layout.index)}
    curves = {name: over_time(own, videos) for name, own in scores.items()}
    groups = []
    for name, worst, means in _groups(scores, main):
        failures = []
        for score in worst[:_MAX_PICTURES]:
            video = videos[score.source, score.sequence]
            failures.append(_failure(score, video, roots[score.source], folders[main] / score.sequence))
        groups.append(Group(name, len(worst), tuple(failures), means))
    return FailureGallery(tuple(scores), main, tuple(groups), tuple(time_charts(curves)), curves)


def _groups(scores: Mapping[str, list[FrameScore]], main: str) -> list[tuple[str, list[FrameScore], Means]]:
    """Thin or tiny objects, then all others: name, the main method's worst frame of each object, means of all methods.

    The worst objects come first. Of an object's equally bad frames the earliest is taken: there the object was lost.
    """
    objects = {name: by_object(own) for name, own in scores.items()}
    small = {key for own in objects.values() for key, frames in own.items() if is_small(frames)}
    groups = []
    for name, is_member in (("thin or tiny", small.__contains__), ("other", lambda key: key not in small)):
        worst = [
            min(frames, key=lambda one: (one.J, one.frame)) for key, frames in objects[main].items() if is_member(key)
        ]
        means = {
            method: mean_over_objects(frames for key, frames in own.items() if is_member(key))
            for method, own in objects.items()
        }
        groups.append((name, sorted(worst, key=lambda one: (one.J, one.F, one.key)), means))
    return groups


def _failure(score: FrameScore, video: IndexedVideo, root: Path, predictions: Path) -> Failure:
    """root: root folder of the video's source; predictions: folder of the video's predicted masks."""
    image = next(frame.image_path for frame in video.frames if frame.name == score.frame)
    true, predicted = (
        read_labels(folder / f"{score.frame}.png") == int(score.object)
        for folder in (mask_folder(video, root), predictions)
    )
    picture = failure_picture(read_frame(root / image), true, predicted)
    height, width = picture.shape[:2]
    return Failure(score, jpeg_uri(picture), width, height)
