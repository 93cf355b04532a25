"""The clip players of the report: frames, masks and scribbles of evaluation videos, embedded in the page."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.evaluation_set import METHODS, evaluation_videos, evenly, late_objects
from pipelines.params import Layout
from pipelines.reporting.score_table import ScoreTable
from ssvos.config.variants import Params
from ssvos.data.clip_sources import read_frame
from ssvos.data.index import IndexedVideo
from ssvos.inference.segmenter import starting_scribbles
from ssvos.labels import read_labels
from ssvos.scribbles.store import read_store
from ssvos.visualization import encode_jpeg, limit_width, mask_layer, stroke_layer

# nine players of 24 frames of real video take six megabytes of the page with two variants, eight with eight variants
_MAX_VIDEOS = 9
_MAX_UNSCORED = 2
_MAX_FRAMES = 24
_WIDTH = 400  # of a frame, in pixels
_QUALITY = 75  # of a frame's JPEG
Scores = dict[str, tuple[float, float]]  # sequence -> J and F in percent


@dataclass(frozen=True)
class Panel:
    """The scribble, the true masks, or the predictions of one variant or baseline.

    layers:  the image over each frame, as a data URI; None for a frame without one
    caption: the text below the name if there is no score
    score:   J and F of the video in percent
    missing: the text over a frame that has no mask
    """

    name: str
    layers: tuple[str | None, ...]
    caption: str
    score: tuple[float, float] | None = None
    missing: str = ""


@dataclass(frozen=True)
class ClipPlayer:
    """One evaluation video.

    rank:          the video's position among all evaluation videos by score, in words
    num_frames:    of the whole video
    width, height: of a frame in the player, in pixels
    names:         of the frames in the player
    frames:        their images, data URIs
    """

    sequence: str
    rank: str
    num_frames: int
    width: int
    height: int
    names: tuple[str, ...]
    frames: tuple[str, ...]
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class _Method:
    """A variant or baseline. folder: its predicted masks by sequence."""

    name: str
    folder: Path
    scores: Scores


def clip_players(params: Params, layout: Layout, tables: list[ScoreTable]) -> list[ClipPlayer]:
    """Players of some evaluation videos, the main variant's worst video first, videos without a score last."""
    roots, store = layout.roots(params.base), read_store(layout.scribbles)
    late = late_objects(params.base)
    folders = {name: layout.predictions(name) for name in reversed(list(params.variants))}
    baselines = Path("predictions") / layout.name / "baselines"
    folders |= {method.title: baselines / name for name, method in METHODS.items() if method.is_competitor}
    methods = {name: _Method(name, folder, {}) for name, folder in folders.items()}
    for row in (row for table in tables for row in table.rows if row.name in methods):
        methods[row.name].scores.update(row.videos)
    main = next(iter(methods.values()))
    players = []
    for video, rank in chosen_videos(evaluation_videos(layout.index), main.scores):
        scribbles = starting_scribbles(video, store, late[video.dataset])
        players.append(_player(video, rank, roots[video.dataset], scribbles, list(methods.values())))
    return players


def _player(
    video: IndexedVideo, rank: str, root: Path, scribbles: Mapping[int, np.ndarray], methods: list[_Method]
) -> ClipPlayer:
    """root: root folder of the video's source; scribbles: by position of the frame, (H, W) uint8."""
    # frames evenly spaced from the first scribble to the end, and every frame that has a scribble
    start = min(scribbles)
    positions = sorted({start + k for k in evenly(len(video.frames) - start, _MAX_FRAMES)} | set(scribbles))
    chosen = [video.frames[k] for k in positions]
    images = [limit_width(read_frame(root / frame.image_path), _WIDTH) for frame in chosen]
    strokes = [_png(stroke_layer(limit_width(scribbles[k], _WIDTH))) if k in scribbles else None for k in positions]
    panels = [Panel("scribble", tuple(strokes), "the input")]
    for method in methods:
        masks = tuple(_mask(method.folder / video.sequence / f"{frame.name}.png") for frame in chosen)
        panels.append(Panel(method.name, masks, "not scored", method.scores.get(video.sequence), "not run: no mask"))
    truth = tuple(_mask(frame.mask_path and root / frame.mask_path) for frame in chosen)
    panels.append(Panel("truth", truth, "reference for the scores", None, "no true mask"))
    height, width = images[0].shape[:2]
    frames = tuple(map(jpeg_uri, images))
    names = tuple(frame.name for frame in chosen)
    return ClipPlayer(video.sequence, rank, len(video.frames), width, height, names, frames, tuple(panels))


def chosen_videos(videos: list[IndexedVideo], scores: Scores) -> list[tuple[IndexedVideo, str]]:
    """The videos to show, each with its rank in words.

    They are the worst, the median and the best video, some between them, then some videos without a score.

    scores: of the main variant
    """
    scored = sorted((v for v in videos if v.sequence in scores), key=lambda video: sum(scores[video.sequence]))
    unscored = [video for video in videos if video.sequence not in scores]
    count = len(scored)
    ranks = {k: f"{k + 1} of {count}, counted from the worst" for k in range(count)}
    if count > 1:
        ranks |= {round((count - 1) / 2): f"median of {count}", 0: f"worst of {count}", count - 1: f"best of {count}"}
    chosen = [(scored[k], ranks[k]) for k in evenly(count, _MAX_VIDEOS)]
    num_unscored = max(_MAX_UNSCORED, _MAX_VIDEOS - len(chosen))
    return chosen + [(unscored[k], "not scored") for k in evenly(len(unscored), num_unscored)]


def _mask(path: Path | None) -> str | None:
    return _png(mask_layer(limit_width(read_labels(path), _WIDTH))) if path and path.is_file() else None


def jpeg_uri(image: np.ndarray) -> str:
    """(H, W, 3) uint8 RGB as a data URI."""
    return _uri("jpeg", encode_jpeg(image, _QUALITY))


def _png(data: bytes) -> str:
    return _uri("png", data)


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
