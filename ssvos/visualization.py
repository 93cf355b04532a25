"""Pictures: masks and strokes over frames, colours after the label palette, and the axes of charts."""

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from ssvos.labels import BACKGROUND, UNLABELLED, davis_palette

_WHITE, _GREY, _BLACK = (255, 255, 255), (190, 190, 190), (0, 0, 0)


def overlay(frame: np.ndarray, labels: np.ndarray, opacity: float = 0.5) -> np.ndarray:
    """Lay labels (H, W) over a frame (H, W, 3) uint8, objects outlined in white -> (H, W, 3) uint8.

    Background and 255 stay as they are.
    """
    shown = (labels > 0) & (labels != UNLABELLED)
    result = frame.copy()
    mixed = (1 - opacity) * frame[shown] + opacity * davis_palette()[labels[shown]]
    result[shown] = mixed.astype(np.uint8)
    result[_outline(np.where(shown, labels, 0))] = 255
    return result


def _outline(objects: np.ndarray) -> np.ndarray:
    """Where objects (H, W), 0 elsewhere, meet something else -> (H, W) bool."""
    return cv2.morphologyEx(objects.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0


def mask_layer(labels: np.ndarray, opacity: float = 0.5) -> bytes:
    """What `overlay` lays over a frame, as a PNG that is transparent elsewhere. labels: (H, W) uint8."""
    objects = np.where(labels == UNLABELLED, BACKGROUND, labels).astype(np.uint8)
    ids = [int(i) for i in np.unique(objects) if i != BACKGROUND]
    colours = [(*_BLACK, 0), (*_WHITE, 255), *((*_colour(i), round(255 * opacity)) for i in ids)]
    places = np.zeros(256, np.uint8)
    places[ids] = np.arange(2, 2 + len(ids))
    layer = places[objects]
    layer[_outline(objects)] = 1
    return _encode_layer(layer, colours)


def stroke_layer(scribble: np.ndarray) -> bytes:
    """A scribble's strokes (H, W) as a PNG that is transparent elsewhere.

    Objects in their colours with a white rim, background strokes in grey with a black one.
    """
    ids = [int(i) for i in np.unique(scribble) if i not in (BACKGROUND, UNLABELLED)]
    colours = [(*_BLACK, 0), (*_BLACK, 150), (*_WHITE, 255), (*_GREY, 255), *((*_colour(i), 255) for i in ids)]
    places = np.zeros(256, np.uint8)
    places[BACKGROUND] = 3
    places[ids] = np.arange(4, 4 + len(ids))
    layer = places[scribble]
    for rim, strokes in ((1, layer == 3), (2, layer > 3)):
        wider = cv2.dilate(strokes.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        layer[wider & (layer < 3)] = rim
    return _encode_layer(layer, colours)


def _colour(object_id: int) -> tuple[int, ...]:
    return tuple(int(channel) for channel in davis_palette()[object_id])


def _encode_layer(layer: np.ndarray, colours: list[tuple[int, ...]]) -> bytes:
    """(H, W) of positions in a list of RGBA colours -> palette PNG; few colours take few bits."""
    image = Image.fromarray(layer)
    image.putpalette([channel for colour in colours for channel in colour[:3]])
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True, transparency=bytes(colour[3] for colour in colours))
    return buffer.getvalue()


def encode_jpeg(image: np.ndarray, quality: int = 85) -> bytes:
    """(H, W, 3) uint8 RGB -> JPEG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def limit_width(image: np.ndarray, width: int) -> np.ndarray:
    """Shrink a frame (H, W, 3) or labels (H, W) to at most a width, keeping the aspect ratio; labels stay labels."""
    if image.shape[1] <= width:
        return image
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if image.ndim == 3 else cv2.INTER_NEAREST)


@dataclass(frozen=True)
class Axis:
    """The range of a chart's axis and its marks: (value, text) each."""

    low: float
    high: float
    marks: tuple[tuple[float, str], ...]
    is_log: bool = False

    def at(self, value: float) -> float:
        """Where a value lies, 0 at the low end, 1 at the high one."""
        low, high = self.low, self.high
        if self.is_log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return (value - low) / (high - low)


def linear_axis(values: Iterable[float], num: int = 5) -> Axis:
    """About `num` marks at multiples of 1, 2 or 5 times a power of ten; the first and the last enclose all values."""
    values = list(values)
    low, high = min(values), max(values)
    step = round_step((high - low or abs(high) or 1.0) / num)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    marks = [round(k * step, 12) for k in range(first, last + 1)]
    return Axis(marks[0], marks[-1], tuple((mark, f"{mark:g}") for mark in marks))


def log_axis(values: Iterable[float]) -> Axis:
    """A logarithmic axis with a little room around values above 0; at most five marks, at 1, 2, 5 or sparser."""
    values = list(values)
    low, high = min(values) / 1.3, max(values) * 1.3
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for leads in ((1, 2, 5), (1, 3), (1,)):
        marks = [lead * 10.0**power for power in decades for lead in leads if low <= lead * 10.0**power <= high]
        if len(marks) <= 5:
            break
    marks = marks or [float(f"{math.sqrt(low * high):.2g}")]
    return Axis(low, high, tuple((mark, f"{mark:g}") for mark in marks), is_log=True)


def round_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(lead * power for lead in (1, 2, 5, 10) if lead * power >= least * (1 - 1e-9))


@dataclass(frozen=True)
class Point:
    """A point of a chart, its tooltip, and its kind: `dot`, `best`, `start`, or `faint` for one that counts less."""

    x: float
    y: float
    title: str
    kind: str = "dot"


@dataclass(frozen=True)
class Line:
    """A named set of points; those of one part are joined. is_joined: whether any are."""

    name: str
    parts: tuple[tuple[Point, ...], ...]
    is_joined: bool = True


@dataclass(frozen=True)
class Chart:
    """Lines on two axes. split: where on x something else begins; sections: (x, text) above what lies there."""

    title: str
    x: Axis
    y: Axis
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    split: float | None = None
    sections: tuple[tuple[float, str], ...] = ()
