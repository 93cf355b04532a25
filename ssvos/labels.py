"""The label convention of masks, scribbles and predictions: 0 background, 1..K objects, 255 unlabelled."""

import io
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ssvos.files import write_bytes

BACKGROUND = 0
UNLABELLED = 255
# Pillow raises these for a file that is not an image; a corrupt PNG raises a SyntaxError
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@cache
def davis_palette() -> np.ndarray:
    """The DAVIS (PASCAL VOC) palette, (256, 3) uint8. Bit b of an index sets bit 7 - b//3 of channel b % 3."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    index = np.arange(256)
    for bit in range(8):
        channel, position = bit % 3, 7 - bit // 3
        palette[:, channel] |= (((index >> bit) & 1) << position).astype(np.uint8)
    palette.flags.writeable = False
    return palette


def decode_labels(data: bytes, name: str | Path = "label image") -> np.ndarray:
    """Decode a PNG of labels.

    data: bytes of a palette or grey PNG
    name: the image, as error messages name it
    returns: (H, W) uint8
    Raises ValueError as `read_labels` does.
    """
    return _labels_of(io.BytesIO(data), name)


def read_labels(path: str | Path) -> np.ndarray:
    """Read a PNG of labels.

    A grey image with no values but 0 and 255 is a DAVIS-2016 mask: its 255 becomes object 1.

    path: a palette or grey PNG
    returns: (H, W) uint8
    Raises FileNotFoundError for a missing file, ValueError for a file that is unreadable, not a PNG, RGB or 16-bit.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such label image; expected a palette PNG of object ids")
    return _labels_of(path, path)


def _labels_of(source: str | Path | io.BytesIO, name: str | Path) -> np.ndarray:
    try:
        with Image.open(source) as image:
            image.load()
    except UNREADABLE as error:
        raise ValueError(
            f"{name}: not a readable image ({why_unreadable(error)}); write it again as a palette PNG"
        ) from error
    if image.format != "PNG":
        # other formats are lossy or lack a palette, so the object ids could change
        raise ValueError(f"{name}: a label image must be a PNG, this one is {image.format}; draw or export it again")
    if image.mode not in ("P", "L", "1"):
        raise ValueError(
            f"{name}: a label image must be an 8-bit palette or grey PNG, this one is {image.mode}; "
            "save the object ids, not their colours"
        )
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    labels = np.array(image, dtype=np.uint8)
    if image.mode == "L" and not ((labels != BACKGROUND) & (labels != 255)).any():
        labels[labels == 255] = 1
    return labels


def why_unreadable(error: Exception) -> str:
    """The reason that Pillow gives, without the address of the buffer that it read."""
    if isinstance(error, UnidentifiedImageError):
        return "unknown format"
    return (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())


def encode_labels(labels: np.ndarray) -> bytes:
    """Encode labels (H, W) uint8 as an 8-bit PNG with the DAVIS palette."""
    assert labels.ndim == 2 and labels.dtype == np.uint8, (labels.shape, labels.dtype)
    image = Image.fromarray(labels)
    image.putpalette(davis_palette().tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def write_labels(path: str | Path, labels: np.ndarray) -> None:
    """Write labels as a PNG with the DAVIS palette, atomically; missing folders are created.

    path: the file to write
    labels: (H, W) uint8
    """
    write_bytes(Path(path), encode_labels(labels))


def object_ids(labels: np.ndarray) -> tuple[int, ...]:
    """The object ids in a label image (H, W) uint8, in ascending order, without background and unlabelled."""
    # np.unique sorts all pixels, which is many times slower than counting
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
    return tuple(int(i) for i in present if i not in (BACKGROUND, UNLABELLED))


def binary_scribbles(labels: np.ndarray, ids: Iterable[int]) -> np.ndarray:
    """Split a scribble into one binary scribble per object, in which other objects are background.

    labels: scribble of several objects, (H, W) uint8
    ids: the K object ids
    returns: (K, H, W) uint8 of 0, 1 and 255
    """
    planes = []
    for i in ids:
        plane = np.where(labels == UNLABELLED, UNLABELLED, 0).astype(np.uint8)
        plane[labels == i] = 1
        planes.append(plane)
    return np.stack(planes)
