"""Validation of a video: decodes every file, and returns the rows of the index and all faults."""

import hashlib
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from ssvos.data.videos import Video, VideoFrame
from ssvos.labels import UNLABELLED, UNREADABLE, decode_labels, object_ids, why_unreadable
from ssvos.scribbles.formats import decode_scribble

_MIN_UNLABELLED = 0.1  # share of pixels; a scribble with fewer is a dense mask, or drawn on 0


def index_video(
    root: Path, video: Video, on_frame: Callable[[], None] | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Decode every file of one video.

    root: root of the video's paths
    video: the video
    on_frame: called after every frame; the function has no other side effect
    returns: rows of the index (ssvos.data.index.INDEX_SCHEMA), and faults
    """
    folder = root / video.frame_dir
    if not video.frames:
        return [], [f"{folder}: listed in {video.split}, but has no frames; add frames or remove it from the list"]
    if len(video.frames) == 1:
        return [], [f"{folder}: the video has only one frame; add frames or remove it from the list"]
    rows: list[dict[str, Any]] = []
    faults = [
        f"{root / path}: no frame has this name, or two images share it; rename or remove it"
        for path in video.stray_paths
    ]
    if not any(frame.mask_path or frame.scribble_path for frame in video.frames):
        faults.append(f"{folder}: the video has neither masks nor scribbles; add some or remove it from the list")
    first_labelled = True
    for position, frame in enumerate(video.frames):
        row, frame_faults = _index_frame(root, video, frame, first_labelled)
        first_labelled = first_labelled and not (frame.mask_path or frame.scribble_path)
        if rows and row["height"] and (row["height"], row["width"]) != (rows[0]["height"], rows[0]["width"]):
            frame_faults.append(
                f"{root / frame.image_path}: frame is {row['height']}x{row['width']}, the video's first is "
                f"{rows[0]['height']}x{rows[0]['width']}; resize it"
            )
        rows.append({**row, "position": position})
        faults += frame_faults
        if on_frame:
            on_frame()
    return rows, faults


def _index_frame(root: Path, video: Video, frame: VideoFrame, is_first: bool) -> tuple[dict[str, Any], list[str]]:
    """is_first: whether the frame is the video's first labelled frame, which must show an object."""
    faults: list[str] = []
    digest = hashlib.sha256()
    size = None
    try:
        image = (root / frame.image_path).read_bytes()
        digest.update(image)
        size, orientation = measure_image(image)
        if orientation != 1:
            # OpenCV rotates such a frame when it reads it, so that its masks would no longer match
            faults.append(
                f"{root / frame.image_path}: its EXIF orientation is {orientation}; rotate the pixels instead"
            )
    except UNREADABLE as error:
        faults.append(f"{root / frame.image_path}: not a readable image ({why_unreadable(error)}); replace the file")
    if video.needs_masks and not frame.mask_path:
        faults.append(f"{root / frame.image_path}: has no mask; add {frame.name}.png")
    objects: list[list[int]] = []  # of the scribble, then of the mask
    for path, decode in ((frame.scribble_path, decode_scribble), (frame.mask_path, decode_labels)):
        if path:
            try:
                data = (root / path).read_bytes()
                digest.update(data)
                labels = decode(data, root / path)
            except OSError as error:
                faults.append(f"{root / path}: not readable ({error.strerror}); replace the file")
                continue
            except ValueError as error:
                faults.append(str(error))
                continue
            objects.append(list(object_ids(labels)))
            faults += [f"{root / path}: {fault}" for fault in _label_faults(labels, size, path, frame, is_first)]
    if is_first and frame.scribble_path and len(objects) == 2 and not set(objects[0]) <= set(objects[1]):
        missing = min(set(objects[0]) - set(objects[1]))
        faults.append(
            f"{root / frame.scribble_path}: its object {missing} is not in the frame's mask; use the mask's ids"
        )
    row = {
        "dataset": video.dataset,
        "split": video.split,
        "sequence": video.sequence,
        "frame": frame.name,
        "image_path": frame.image_path,
        "mask_path": frame.mask_path,
        "scribble_path": frame.scribble_path,
        "height": size[0] if size else None,
        "width": size[1] if size else None,
        "objects": objects[-1] if objects else None,
        "categories": json.dumps({str(k): v for k, v in sorted(video.categories.items())})
        if video.categories
        else None,
        "fingerprint": digest.hexdigest()[:16],
    }
    return row, faults


def measure_image(data: bytes) -> tuple[tuple[int, int], int]:
    """The size and the EXIF orientation of an image.

    The image is decoded completely, because OpenCV fills a truncated image with grey without an error.

    data: bytes of the image
    returns: (height, width) of the stored pixels, and the orientation, 1 for none
    Raises one of `ssvos.labels.UNREADABLE`.
    """
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return (image.height, image.width), image.getexif().get(ExifTags.Base.Orientation, 1)


def _label_faults(
    labels: np.ndarray, size: tuple[int, int] | None, path: str, frame: VideoFrame, is_first: bool
) -> Iterable[str]:
    is_scribble = path == frame.scribble_path
    kind = "scribble" if is_scribble else "mask"
    if not path.endswith(".png"):
        yield f"the suffix must be .png; rename it to {frame.name}.png"
    if size and labels.shape != size:
        yield f"{kind} is {labels.shape[0]}x{labels.shape[1]}, its frame {size[0]}x{size[1]}; resize it"
    if is_scribble and (labels == UNLABELLED).mean() < _MIN_UNLABELLED:
        yield "scribble leaves almost no pixel unlabelled; draw strokes on 255, not on 0"
    if is_first and not object_ids(labels):
        yield f"the video's first {kind} has no object pixel (1..254); label an object or start at a later frame"
