"""A picture of a judged video for MLflow: its scribble, a variant's masks below it, the true masks beside them."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from pipelines.evaluation_set import evaluation_videos, evenly, late_objects
from pipelines.params import Layout
from ssvos.config import Config
from ssvos.data.clip_sources import read_frame
from ssvos.data.index import IndexedFrame, IndexedVideo
from ssvos.inference.segmenter import starting_scribbles
from ssvos.labels import read_labels
from ssvos.scribbles.store import read_store
from ssvos.visualization import limit_width, mask_layer, stroke_layer

_VIDEOS = 4
_MOMENTS = 3  # beside the scribble's
_WIDTH = 240  # of a frame
_BORDER = 2
_COLOURS = 256  # with a palette, a sheet of textured frames has under 200 kB, a third of what it has without


def contact_sheets(config: Config, layout: Layout, predictions: Path) -> dict[str, Image.Image]:
    """Sheets by sequence; the same videos for every variant, whatever its scores, so that runs compare.

    What is not on disk, after a `dvc pull` of some outputs alone or without the data set's own folder, is left out.
    """
    if not (layout.scribbles / "scribbles.parquet").is_file():
        return {}
    store, roots, late = read_store(layout.scribbles), layout.roots(config), late_objects(config)
    videos = evaluation_videos(layout.index)
    sheets = {}
    for video in (videos[k] for k in evenly(len(videos), _VIDEOS)):
        root, masks = roots[video.dataset], predictions / video.sequence
        if all((root / f.image_path).is_file() and (masks / f"{f.name}.png").is_file() for f in video.frames):
            scribbles = starting_scribbles(video, store, late[video.dataset])
            sheets[video.sequence] = _sheet(video, root, masks, scribbles)
    return sheets


def _sheet(video: IndexedVideo, root: Path, masks: Path, scribbles: Mapping[int, np.ndarray]) -> Image.Image:
    """A row a moment; the column of true masks is there if the video has some."""
    start = min(scribbles)
    first, *later = shown = [video.frames[start], *_moments(video, start)]
    strokes = stroke_layer(limit_width(scribbles[start], _WIDTH))
    columns = [[_cell(first, root, strokes, "scribble")]]
    columns[0] += [_cell(frame, root, _mask(masks / f"{frame.name}.png"), "prediction") for frame in later]
    if any(frame.mask_path for frame in later):
        truth = [frame.mask_path and _mask(root / frame.mask_path) for frame in shown]
        columns.append([_cell(frame, root, layer, "truth") for frame, layer in zip(shown, truth, strict=True)])
    sheet = np.concatenate([np.concatenate(column) for column in columns], axis=1)
    return Image.fromarray(sheet).quantize(_COLOURS, dither=Image.Dither.NONE)


def _cell(frame: IndexedFrame, root: Path, layer: bytes | None, caption: str) -> np.ndarray:
    """A frame under a layer of `ssvos.visualization`, with caption, name and a white border -> (H, W, 3) uint8."""
    picture = Image.fromarray(limit_width(read_frame(root / frame.image_path), _WIDTH)).convert("RGBA")
    if layer:
        picture.alpha_composite(Image.open(io.BytesIO(layer)).convert("RGBA"))
    draw = ImageDraw.Draw(picture)
    draw.text((4, 2), f"{caption} {frame.name}", fill="white", stroke_width=1, stroke_fill="black")
    return np.asarray(ImageOps.expand(picture.convert("RGB"), _BORDER, "white"))


def _mask(path: Path) -> bytes:
    return mask_layer(limit_width(read_labels(path), _WIDTH))


def _moments(video: IndexedVideo, start: int) -> list[IndexedFrame]:
    """Frames after the first scribble up to the last, evenly spaced; of those with true masks where there are any."""
    later = video.frames[start + 1 :]
    frames = [frame for frame in later if frame.mask_path] or later
    return [frames[k - 1] for k in evenly(len(frames) + 1, _MOMENTS + 1)[1:]]
