"""Images: masks and strokes over frames, in the colours of the label palette."""

import io

import cv2
import numpy as np
from PIL import Image

from ssvos.labels import BACKGROUND, UNLABELLED, davis_palette

_WHITE, _GREY, _BLACK = (255, 255, 255), (190, 190, 190), (0, 0, 0)


def overlay(frame: np.ndarray, labels: np.ndarray, opacity: float = 0.5) -> np.ndarray:
    """Blend the objects of a label image over a frame, with white outlines.

    frame: (H, W, 3) uint8 RGB
    labels: (H, W) uint8; background and 255 leave the frame unchanged
    opacity: opacity of the objects, 0 to 1
    returns: (H, W, 3) uint8
    """
    is_object = (labels > 0) & (labels != UNLABELLED)
    result = frame.copy()
    blended = (1 - opacity) * frame[is_object] + opacity * davis_palette()[labels[is_object]]
    result[is_object] = blended.astype(np.uint8)
    result[_outline(np.where(is_object, labels, 0))] = 255
    return result


def _outline(objects: np.ndarray) -> np.ndarray:
    """The boundaries of objects. objects: (H, W) of ids, 0 elsewhere; returns (H, W) bool."""
    return cv2.morphologyEx(objects.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0


def mask_layer(labels: np.ndarray, opacity: float = 0.5) -> bytes:
    """The objects and outlines of `overlay` as a PNG, transparent elsewhere. labels: (H, W) uint8."""
    objects = np.where(labels == UNLABELLED, BACKGROUND, labels).astype(np.uint8)
    ids = [int(i) for i in np.unique(objects) if i != BACKGROUND]
    colours = [(*_BLACK, 0), (*_WHITE, 255), *((*_colour(i), round(255 * opacity)) for i in ids)]
    positions = np.zeros(256, np.uint8)  # of a label in `colours`
    positions[ids] = np.arange(2, 2 + len(ids))
    layer = positions[objects]
    layer[_outline(objects)] = 1
    return _encode_layer(layer, colours)


def stroke_layer(scribble: np.ndarray) -> bytes:
    """The strokes of a scribble as a PNG, transparent elsewhere.

    Object strokes have the object's colour and a white rim, background strokes are grey with a black rim.
    scribble: (H, W) uint8
    """
    ids = [int(i) for i in np.unique(scribble) if i not in (BACKGROUND, UNLABELLED)]
    colours = [(*_BLACK, 0), (*_BLACK, 150), (*_WHITE, 255), (*_GREY, 255), *((*_colour(i), 255) for i in ids)]
    positions = np.zeros(256, np.uint8)  # of a label in `colours`
    positions[BACKGROUND] = 3
    positions[ids] = np.arange(4, 4 + len(ids))
    layer = positions[scribble]
    for rim, strokes in ((1, layer == 3), (2, layer > 3)):
        wider = cv2.dilate(strokes.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        layer[wider & (layer < 3)] = rim
    return _encode_layer(layer, colours)


def _colour(object_id: int) -> tuple[int, ...]:
    return tuple(int(channel) for channel in davis_palette()[object_id])


def _encode_layer(layer: np.ndarray, colours: list[tuple[int, ...]]) -> bytes:
    """Encode positions (H, W) in a list of RGBA colours as a palette PNG, with as few bits as the colours need."""
    image = Image.fromarray(layer)
    image.putpalette([channel for colour in colours for channel in colour[:3]])
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True, transparency=bytes(colour[3] for colour in colours))
    return buffer.getvalue()


def encode_jpeg(image: np.ndarray, quality: int = 85) -> bytes:
    """Encode an image (H, W, 3) uint8 RGB as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def limit_width(image: np.ndarray, width: int) -> np.ndarray:
    """Shrink an image to at most `width` pixels wide; the aspect ratio does not change.

    image: a frame (H, W, 3), resized by area, or labels (H, W), resized by nearest neighbour
    """
    if image.shape[1] <= width:
        return image
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if image.ndim == 3 else cv2.INTER_NEAREST)
