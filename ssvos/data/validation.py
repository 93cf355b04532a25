"""Opening every file of a video: the rows of the index, and every fault in one go."""

import hashlib
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from ssvos.data.videos import Video, VideoFrame
from ssvos.labels import UNLABELLED, UNREADABLE, decode_labels, object_ids, why_unreadable
from ssvos.scribbles.formats import decode_scribble

_MIN_UNLABELLED = 0.1  # a scribble with less than this share of unlabelled pixels is a mask, or painted on 0


def index_video(root: Path, video: Video, on_frame: Callable[[], None] | None = None) -> tuple[list[dict], list[str]]:
    """Decode every file of one video: its rows of the index, and its faults. Pure but for `on_frame`."""
    if not video.frames:
        fault = f"{root / video.frame_dir}: listed in {video.split}, but has no frames; add them or unlist it"
        return [], [fault]
    if len(video.frames) == 1:
        return [], [f"{root / video.frame_dir}: the video has a single frame; add the others or unlist it"]
    rows: list[dict] = []
    faults = [f"{root / path}: no frame has this name, or two do; rename or remove it" for path in video.stray_paths]
    if not any(frame.mask_path or frame.scribble_path for frame in video.frames):
        faults.append(f"{root / video.frame_dir}: the video has neither masks nor scribbles; add some or unlist it")
    first_labelled = True
    for position, frame in enumerate(video.frames):
        row, frame_faults = _index_frame(root, video, frame, first_labelled)
        first_labelled = first_labelled and not (frame.mask_path or frame.scribble_path)
        if rows and row["height"] and (row["height"], row["width"]) != (rows[0]["height"], rows[0]["width"]):
            frame_faults.append(
                f"{root / frame.image_path}: frame is {row['height']}x{row['width']}, the video's first "
                f"{rows[0]['height']}x{rows[0]['width']}; resize it"
            )
        rows.append({**row, "position": position})
        faults += frame_faults
        if on_frame:
            on_frame()
    return rows, faults


def _index_frame(root: Path, video: Video, frame: VideoFrame, is_first: bool) -> tuple[dict, list[str]]:
    """is_first: the frame is the video's first with a label, and must show an object."""
    faults: list[str] = []
    digest = hashlib.sha256()
    size = None
    try:
        image = (root / frame.image_path).read_bytes()
        digest.update(image)
        size, orientation = measure_image(image)
        if orientation != 1:
            # OpenCV would turn the frame as it reads it, and the masks of its pixels would lie elsewhere
            faults.append(f"{root / frame.image_path}: its EXIF orientation is {orientation}; turn the pixels instead")
    except UNREADABLE as error:
        faults.append(f"{root / frame.image_path}: not a readable image ({why_unreadable(error)}); replace the file")
    if video.needs_masks and not frame.mask_path:
        faults.append(f"{root / frame.image_path}: has no mask; add the one named {frame.name}.png")
    found: list[list[int]] = []
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
            found.append(list(object_ids(labels)))
            faults += [f"{root / path}: {fault}" for fault in _label_faults(labels, size, path, frame, is_first)]
    if is_first and len(found) == 2 and not set(found[0]) <= set(found[1]):
        strange = min(set(found[0]) - set(found[1]))
        faults.append(
            f"{root / frame.scribble_path}: its object {strange} is not in the frame's mask; use the mask's ids"
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
        "objects": found[-1] if found else None,
        "categories": json.dumps({str(k): v for k, v in sorted(video.categories.items())})
        if video.categories
        else None,
        "fingerprint": digest.hexdigest()[:16],
    }
    return row, faults


def measure_image(data: bytes) -> tuple[tuple[int, int], int]:
    """(height, width) of an image's pixels and its EXIF orientation, 1 where it is shown as it is.

    It is decoded to its end: OpenCV would fill a truncated one with grey. Raises one of `labels.UNREADABLE`.
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
        yield f"the scorer knows no suffix but .png; rename it to {frame.name}.png"
    if size and labels.shape != size:
        yield f"{kind} is {labels.shape[0]}x{labels.shape[1]}, its frame {size[0]}x{size[1]}; resize it"
    if is_scribble and (labels == UNLABELLED).mean() < _MIN_UNLABELLED:
        yield "scribble leaves almost no pixel unlabelled; draw strokes on 255, not on 0"
    if is_first and not object_ids(labels):
        yield f"the video's first {kind} has no object pixel (1..254); label one or start later"
