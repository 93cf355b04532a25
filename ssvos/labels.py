"""The one label convention, for masks, scribbles and predictions: 0 background, 1..K objects, 255 unlabelled."""

import io
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ssvos.files import write_bytes

BACKGROUND = 0
UNLABELLED = 255
# what Pillow raises for a file that is no image; a broken PNG is a SyntaxError
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@cache
def davis_palette() -> np.ndarray:
    """The DAVIS (PASCAL VOC) palette, (256, 3) uint8: bit b of an index sets bit 7 - b//3 of channel b % 3."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    index = np.arange(256)
    for bit in range(8):
        channel, position = bit % 3, 7 - bit // 3
        palette[:, channel] |= (((index >> bit) & 1) << position).astype(np.uint8)
    palette.flags.writeable = False
    return palette


def decode_labels(data: bytes, name: str | Path = "label image") -> np.ndarray:
    """PNG bytes -> (H, W) uint8 labels. `name` is what an error calls the image."""
    return _labels_of(io.BytesIO(data), name)


def read_labels(path: str | Path) -> np.ndarray:
    """Read a palette or grey PNG of labels, (H, W) uint8.

    A grey image of 0 and 255 alone is a DAVIS-2016 mask: its 255 is read as object 1.
    Raises FileNotFoundError for a missing file, ValueError for an unreadable, RGB or 16-bit one, or one that is no PNG.
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
        # others are lossy or have no palette: ids would come out as other ids
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
    """Pillow's reason, without the address of the buffer that it read from."""
    if isinstance(error, UnidentifiedImageError):
        return "of no known format"
    return (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())


def encode_labels(labels: np.ndarray) -> bytes:
    """(H, W) uint8 -> bytes of an 8-bit palette PNG with the DAVIS palette."""
    assert labels.ndim == 2 and labels.dtype == np.uint8, (labels.shape, labels.dtype)
    image = Image.fromarray(labels)
    image.putpalette(davis_palette().tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def write_labels(path: str | Path, labels: np.ndarray) -> None:
    """Write (H, W) uint8 labels as a palette PNG, whole or not at all; folders are made."""
    write_bytes(Path(path), encode_labels(labels))


def object_ids(labels: np.ndarray) -> tuple[int, ...]:
    """The object ids that occur, in order; neither background nor unlabelled."""
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))  # sorting all pixels takes many times as long
    return tuple(int(i) for i in present if i not in (BACKGROUND, UNLABELLED))


def binary_scribbles(labels: np.ndarray, ids: Iterable[int]) -> np.ndarray:
    """(H, W) scribble of several objects -> (K, H, W) of 0, 1, 255, one an object: other objects are background."""
    planes = []
    for i in ids:
        plane = np.where(labels == UNLABELLED, UNLABELLED, 0).astype(np.uint8)
        plane[labels == i] = 1
        planes.append(plane)
    return np.stack(planes)
