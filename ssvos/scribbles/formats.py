"""Scribbles drawn by people: PNGs of the label convention, PNGs with 0 for "no stroke", and DAVIS-interactive JSON."""

import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ssvos.labels import BACKGROUND, UNLABELLED, decode_labels
from ssvos.scribbles.simulate import stroke_disk


def decode_scribble(data: bytes, name: str | Path = "scribble") -> np.ndarray:
    """Decode a scribble PNG of the label convention.

    A grey image with no values but 0 and 255 has background strokes only; as a mask, its 255 would be object 1.

    data: bytes of the PNG
    name: the scribble, as error messages name it
    returns: (H, W) uint8, 255 is unlabelled
    Raises ValueError as `ssvos.labels.read_labels` does.
    """
    labels = decode_labels(data, name)
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image, dtype=np.uint8) if image.mode == "L" else labels


def read_scribble(path: str | Path) -> np.ndarray:
    """Read a scribble PNG of the label convention, (H, W) uint8; raises as `ssvos.labels.read_labels`."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such scribble; expected a palette PNG, 255 where nothing is drawn")
    return decode_scribble(Path(path).read_bytes(), path)


def read_painted(path: str | Path) -> np.ndarray:
    """Read a PNG of strokes in which 0 is no stroke, 1..K are objects and 255 is a background stroke.

    path: the PNG
    returns: (H, W) uint8 in the label convention: 0 background, 1..K objects, 255 unlabelled
    """
    painted = read_scribble(path)
    # the two conventions differ only in the meaning of 0 and 255
    swap = np.arange(256, dtype=np.uint8)
    swap[[BACKGROUND, UNLABELLED]] = UNLABELLED, BACKGROUND
    labels: np.ndarray = swap[painted]
    return labels


def read_davis_json(
    path: str | Path, size: tuple[int, int], width: int, num_frames: int | None = None
) -> dict[int, np.ndarray]:
    """Draw the strokes of a DAVIS-interactive file. Later strokes cover earlier ones.

    path: the file; the x and y of a stroke are 0 at the first pixel and 1 at the last pixel
    size: (H, W) of the frames
    width: width of a stroke, pixels
    num_frames: frames of the video, to reject a file for a longer video; None: unknown
    returns: frame index -> (H, W) uint8 labels, for the frames with strokes; object id 0 is background
    Raises FileNotFoundError for a missing file, ValueError for an invalid one.
    """
    scribbles = {}
    frames, sequence = _strokes_of(path)
    if num_frames is not None and len(frames) > num_frames:
        raise ValueError(
            f"{path}: is for {len(frames)} frames{sequence}, the video has {num_frames}; give the file of this video"
        )
    for frame_idx, strokes in enumerate(frames):
        if strokes:
            labels = np.full(size, UNLABELLED, dtype=np.uint8)
            for stroke in strokes:
                object_id, points = _parse_stroke(path, frame_idx, stroke)
                _draw_polyline(labels, points, object_id, width)
            scribbles[frame_idx] = labels
    if not scribbles:
        raise ValueError(f"{path}: no stroke on any frame; draw at least one")
    return scribbles


def _strokes_of(path: str | Path) -> tuple[list[list[Any]], str]:
    """The strokes of every frame, and ` of NAME` if the file names its sequence."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such scribble file; expected DAVIS-interactive JSON")
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); expected a DAVIS-interactive scribble file") from error
    frames = content.get("scribbles") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not all(isinstance(strokes, list) for strokes in frames):
        raise ValueError(f'{path}: no list of strokes per frame under "scribbles"; expected DAVIS-interactive JSON')
    return frames, f" of {content['sequence']}" if content.get("sequence") else ""


def _parse_stroke(path: str | Path, frame_idx: int, stroke: dict[str, Any]) -> tuple[int, np.ndarray]:
    """The object id and the points (N, 2), x and y, of one stroke."""
    try:
        object_id, points = stroke["object_id"], np.asarray(stroke["path"], dtype=float)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'{path}: frame {frame_idx} has a stroke without "path" (numbers) or "object_id"; draw it again'
        ) from error
    if type(object_id) is not int or not 0 <= object_id < UNLABELLED:
        raise ValueError(f"{path}: frame {frame_idx} has object_id {object_id!r}; expected 0 (background) to 254")
    if points.ndim != 2 or points.shape[1] != 2 or not ((points >= 0) & (points <= 1)).all():
        raise ValueError(f"{path}: frame {frame_idx} has a path that is not [x, y] pairs from 0 to 1; rescale it")
    return object_id, points


def _draw_polyline(labels: np.ndarray, points: np.ndarray, object_id: int, width: int) -> None:
    height, wide = labels.shape
    pixels = np.rint(points * (wide - 1, height - 1)).astype(np.int32)
    line = np.zeros(labels.shape, dtype=np.uint8)
    cv2.polylines(line, [pixels.reshape(-1, 1, 2)], isClosed=False, color=1, thickness=1)
    line[pixels[:, 1], pixels[:, 0]] = 1  # OpenCV does not draw a path of one point
    labels[cv2.dilate(line, stroke_disk(width)) > 0] = object_id
