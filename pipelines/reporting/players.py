"""The report's films: frames, masks and scribbles of judged videos as data that stands in the page."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.evaluation_set import evaluation_videos, evenly, late_objects
from pipelines.params import Layout
from pipelines.reporting.score_table import ScoreTable
from ssvos.config.variants import Params
from ssvos.data.clip_sources import read_frame
from ssvos.data.index import IndexedVideo
from ssvos.inference.segmenter import starting_scribbles
from ssvos.labels import read_labels
from ssvos.scribbles.store import read_store
from ssvos.visualization import encode_jpeg, limit_width, mask_layer, stroke_layer

# nine films of 24 moments of real video are six megabytes of page with two variants, eight with eight
_VIDEOS = 9
_UNSCORED = 2
_MOMENTS = 24
_WIDTH = 400
_QUALITY = 75


@dataclass(frozen=True)
class Panel:
    """One answer in a film. layers: by moment, what lies over the frame, as a data URI; None where there is nothing.

    about: what it is, in place of a score; score: J and F of the video in percent; missing: what stands where a mask
    is not there.
    """

    name: str
    layers: tuple[str | None, ...]
    about: str
    score: tuple[float, float] | None = None
    missing: str = ""


@dataclass(frozen=True)
class Film:
    """One judged video. place: where it stands among all; frames: data URIs by moment; names: the frames' names."""

    sequence: str
    place: str
    num_frames: int
    width: int
    height: int
    names: tuple[str, ...]
    frames: tuple[str, ...]
    panels: tuple[Panel, ...]


def films(params: Params, layout: Layout, tables: list[ScoreTable]) -> list[Film]:
    """Films of some judged videos, the main variant's worst first; videos without scores come last."""
    roots, store = layout.roots(params.base), read_store(layout.scribbles)
    late = late_objects(params.base)
    folders = {name: layout.predictions(name) for name in reversed(list(params.variants))}
    folders["grabcut + flow"] = Path("predictions") / layout.name / "baselines" / "grabcut_flow"
    scores: dict[str, dict[str, tuple[float, float]]] = {name: {} for name in folders}
    for row in (row for table in tables for row in table.rows if row.name in folders):
        scores[row.name] |= row.videos
    found = []
    for video, place in chosen_videos(evaluation_videos(layout.index), next(iter(scores.values()))):
        scribbles = starting_scribbles(video, store, late[video.dataset])
        answers = [
            (name, folder / video.sequence, scores[name].get(video.sequence)) for name, folder in folders.items()
        ]
        found.append(_film(video, place, roots[video.dataset], scribbles, answers))
    return found


def _film(
    video: IndexedVideo,
    place: str,
    root: Path,
    scribbles: Mapping[int, np.ndarray],
    answers: list[tuple[str, Path, tuple[float, float] | None]],
) -> Film:
    """answers: name, folder of masks and score of each."""
    # from the first scribble on, evenly spaced, and every frame that has a scribble
    start = min(scribbles)
    moments = sorted({start + k for k in evenly(len(video.frames) - start, _MOMENTS)} | set(scribbles))
    shown = [video.frames[k] for k in moments]
    frames = [limit_width(read_frame(root / frame.image_path), _WIDTH) for frame in shown]
    strokes = [_png(stroke_layer(limit_width(scribbles[k], _WIDTH))) if k in scribbles else None for k in moments]
    panels = [Panel("scribble", tuple(strokes), "all that is given")]
    for name, folder, score in answers:
        masks = tuple(_mask(folder / f"{frame.name}.png") for frame in shown)
        panels.append(Panel(name, masks, "not scored", score, "not run: no mask"))
    truth = tuple(_mask(frame.mask_path and root / frame.mask_path) for frame in shown)
    panels.append(Panel("truth", truth, "judges the others", None, "no true mask"))
    height, width = frames[0].shape[:2]
    jpegs = tuple(map(jpeg_uri, frames))
    names = tuple(frame.name for frame in shown)
    return Film(video.sequence, place, len(video.frames), width, height, names, jpegs, tuple(panels))


def chosen_videos(videos: list[IndexedVideo], scores: dict[str, tuple[float, float]]) -> list[tuple[IndexedVideo, str]]:
    """Videos to show and where each stands: worst, median, best and some between, then some without a score."""
    scored = sorted((v for v in videos if v.sequence in scores), key=lambda video: sum(scores[video.sequence]))
    rest = [video for video in videos if video.sequence not in scores]
    count = len(scored)
    places = {k: f"{k + 1} of {count}, counted from the worst" for k in range(count)}
    if count > 1:
        places |= {round((count - 1) / 2): f"median of {count}", 0: f"worst of {count}", count - 1: f"best of {count}"}
    chosen = [(scored[k], places[k]) for k in evenly(count, _VIDEOS)]
    most = max(_UNSCORED, _VIDEOS - len(chosen))
    return chosen + [(rest[k], "not scored") for k in evenly(len(rest), most)]


def _mask(path: Path | None) -> str | None:
    return _png(mask_layer(limit_width(read_labels(path), _WIDTH))) if path and path.is_file() else None


def jpeg_uri(image: np.ndarray) -> str:
    """(H, W, 3) uint8 RGB as a data URI."""
    return _uri("jpeg", encode_jpeg(image, _QUALITY))


def _png(data: bytes) -> str:
    return _uri("png", data)


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
