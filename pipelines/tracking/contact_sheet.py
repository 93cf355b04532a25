"""Contact sheets for MLflow: an evaluation video's scribble, a variant's masks below it, and the true masks."""

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
_FRAMES = 3  # in addition to the scribble's
_WIDTH = 240  # of a frame, in pixels
_BORDER = 2
_COLORS = 256  # a palette shrinks a sheet of textured frames to a third, under 200 kB


def contact_sheets(config: Config, layout: Layout, predictions: Path) -> dict[str, Image.Image]:
    """Return sheets by sequence; the choice of videos does not depend on the variant, so that runs compare.

    predictions: folder of a variant's masks, <sequence>/<frame>.png.

    Videos whose files are not all on disk are left out: some outputs may not have been pulled.
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
    """Return a row per frame: prediction, and the true mask if the video has masks."""
    start = min(scribbles)
    first, *later = frames = [video.frames[start], *_later_frames(video, start)]
    strokes = stroke_layer(limit_width(scribbles[start], _WIDTH))
    columns = [[_cell(first, root, strokes, "scribble")]]
    columns[0] += [_cell(frame, root, _mask(masks / f"{frame.name}.png"), "prediction") for frame in later]
    if any(frame.mask_path for frame in later):
        truth = [frame.mask_path and _mask(root / frame.mask_path) for frame in frames]
        columns.append([_cell(frame, root, layer, "truth") for frame, layer in zip(frames, truth, strict=True)])
    sheet = np.concatenate([np.concatenate(column) for column in columns], axis=1)
    return Image.fromarray(sheet).quantize(_COLORS, dither=Image.Dither.NONE)


def _cell(frame: IndexedFrame, root: Path, layer: bytes | None, caption: str) -> np.ndarray:
    """Draw a frame below a layer of `ssvos.visualization`, with caption and white border -> (H, W, 3) uint8."""
    picture = Image.fromarray(limit_width(read_frame(root / frame.image_path), _WIDTH)).convert("RGBA")
    if layer:
        picture.alpha_composite(Image.open(io.BytesIO(layer)).convert("RGBA"))
    draw = ImageDraw.Draw(picture)
    draw.text((4, 2), f"{caption} {frame.name}", fill="white", stroke_width=1, stroke_fill="black")
    return np.asarray(ImageOps.expand(picture.convert("RGB"), _BORDER, "white"))


def _mask(path: Path) -> bytes:
    return mask_layer(limit_width(read_labels(path), _WIDTH))


def _later_frames(video: IndexedVideo, start: int) -> list[IndexedFrame]:
    """Return evenly spaced frames after the first scribble, up to the last; with true masks if there are any."""
    later = video.frames[start + 1 :]
    frames = [frame for frame in later if frame.mask_path] or later
    return [frames[k - 1] for k in evenly(len(frames) + 1, _FRAMES + 1)[1:]]
