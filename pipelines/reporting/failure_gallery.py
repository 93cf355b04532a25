"""The report's failures: the worst object-frames in pictures, small objects apart, and scores over time."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.evaluation_set import evaluation_videos, mask_folder
from pipelines.params import Layout
from pipelines.reporting.charts import Chart, scores_over_time
from pipelines.reporting.failure_crop import PREDICTED_COLOUR, TRUE_COLOUR, failure_picture
from pipelines.reporting.frame_scores import (
    SMALL_AREA,
    THIN_WIDTH,
    FrameScore,
    by_object,
    is_small,
    mean_of_objects,
    over_time,
    read_frames,
)
from pipelines.reporting.players import jpeg_uri
from ssvos.config.variants import Params
from ssvos.data.clip_sources import read_frame
from ssvos.data.index import IndexedVideo
from ssvos.labels import read_labels

_FLOOR = "grabcut + flow"
_PICTURES = 8  # of a group


@dataclass(frozen=True)
class Failure:
    """An object's worst frame. picture: a data URI, with both outlines."""

    score: FrameScore
    picture: str
    width: int
    height: int


@dataclass(frozen=True)
class Group:
    """Objects of one kind, the worst ones in pictures. means: J and F of each answer in percent, None without any."""

    name: str
    num_objects: int
    failures: tuple[Failure, ...]
    means: dict[str, tuple[float, float] | None]


@dataclass(frozen=True)
class Gallery:
    """answers: all that have scores of single frames, the main variant first; pictures: whose failures are shown."""

    answers: tuple[str, ...]
    pictures: str
    groups: tuple[Group, ...]
    charts: tuple[Chart, ...]
    parts: dict[str, dict[float, tuple[float, float]]]
    small_area: float = SMALL_AREA
    thin_width: float = THIN_WIDTH
    true_colour: str = "rgb({}, {}, {})".format(*TRUE_COLOUR)
    predicted_colour: str = "rgb({}, {}, {})".format(*PREDICTED_COLOUR)

    @property
    def moments(self) -> list[float]:
        """Where on the way through a video any answer has scores, percent."""
        return sorted({moment for own in self.parts.values() for moment in own})


def gallery(params: Params, layout: Layout) -> Gallery | None:
    """None where no answer has scores of single frames."""
    folders = {name: layout.predictions(name) for name in reversed(list(params.variants))}
    scores = {name: read_frames(layout.frame_scores(name)) for name in folders}
    folders[_FLOOR] = Path("predictions") / layout.name / "baselines" / "grabcut_flow"
    scores[_FLOOR] = read_frames(layout.baseline_frames, "grabcut_flow")
    scores = {name: own for name, own in scores.items() if own}
    if not scores:
        return None
    main, roots = next(iter(scores)), layout.roots(params.base)
    videos = {(video.dataset, video.sequence): video for video in evaluation_videos(layout.index)}
    parts = {name: over_time(own, videos) for name, own in scores.items()}
    groups = []
    for name, worst, means in _groups(scores, main):
        shown = []
        for score in worst[:_PICTURES]:
            video = videos[score.source, score.sequence]
            shown.append(_failure(score, video, roots[score.source], folders[main] / score.sequence))
        groups.append(Group(name, len(worst), tuple(shown), means))
    return Gallery(tuple(scores), main, tuple(groups), tuple(scores_over_time(parts)), parts)


def _groups(scores: Mapping[str, list[FrameScore]], main: str) -> list[tuple[str, list[FrameScore], dict]]:
    """Thin or tiny objects, then the others: name, the main answer's worst frame of each, worst first, all means.

    Of an object's equally bad frames the earliest is taken: where it was lost.
    """
    objects = {name: by_object(own) for name, own in scores.items()}
    small = {key for own in objects.values() for key, frames in own.items() if is_small(frames)}
    groups = []
    for name, is_own in (("thin or tiny", small.__contains__), ("other", lambda key: key not in small)):
        worst = [
            min(frames, key=lambda one: (one.J, one.frame)) for key, frames in objects[main].items() if is_own(key)
        ]
        means = {
            answer: mean_of_objects(frames for key, frames in own.items() if is_own(key))
            for answer, own in objects.items()
        }
        groups.append((name, sorted(worst, key=lambda one: (one.J, one.F, one.key)), means))
    return groups


def _failure(score: FrameScore, video: IndexedVideo, root: Path, predictions: Path) -> Failure:
    """root: of the video's source; predictions: the video's masks."""
    image = next(frame.image_path for frame in video.frames if frame.name == score.frame)
    true, predicted = (
        read_labels(folder / f"{score.frame}.png") == int(score.object)
        for folder in (mask_folder(video, root), predictions)
    )
    picture = failure_picture(read_frame(root / image), true, predicted)
    height, width = picture.shape[:2]
    return Failure(score, jpeg_uri(picture), width, height)
