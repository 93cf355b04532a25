"""Images: masks and strokes over frames, in the colours of the label palette; and the axes and marks of charts."""

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


@dataclass(frozen=True)
class Axis:
    """An axis of a chart.

    low: value at the start
    high: value at the end
    marks: value and text of each mark
    is_log: whether the axis is logarithmic
    """

    low: float
    high: float
    marks: tuple[tuple[float, str], ...]
    is_log: bool = False

    def at(self, value: float) -> float:
        """The position of a value on the axis: 0 at `low`, 1 at `high`."""
        low, high = self.low, self.high
        if self.is_log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return (value - low) / (high - low)


def linear_axis(values: Iterable[float], num: int = 5) -> Axis:
    """A linear axis with about `num` marks at multiples of 1, 2 or 5 times a power of ten, which enclose all values."""
    values = list(values)
    low, high = min(values), max(values)
    step = round_step((high - low or abs(high) or 1.0) / num)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    marks = [round(k * step, 12) for k in range(first, last + 1)]
    return Axis(marks[0], marks[-1], tuple((mark, f"{mark:g}") for mark in marks))


def log_axis(values: Iterable[float]) -> Axis:
    """A logarithmic axis with a margin around values above 0, and at most five marks: at 1, 2, 5, at 1, 3, or at 1."""
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
    """The smallest number that is 1, 2 or 5 times a power of ten and at least `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(lead * power for lead in (1, 2, 5, 10) if lead * power >= least * (1 - 1e-9))


@dataclass(frozen=True)
class Point:
    """A point of a chart.

    x: position on the x axis
    y: position on the y axis
    title: tooltip
    kind: `dot`, `best`, `start`, or `faint` for a point of less weight
    """

    x: float
    y: float
    title: str
    kind: str = "dot"


@dataclass(frozen=True)
class Line:
    """A named set of points.

    name: name in the legend
    parts: points of each part
    is_joined: whether the points of a part are joined by a line
    """

    name: str
    parts: tuple[tuple[Point, ...], ...]
    is_joined: bool = True


@dataclass(frozen=True)
class Chart:
    """A chart of lines on two axes.

    title: title
    x: horizontal axis
    y: vertical axis
    x_label: label of the horizontal axis
    y_label: label of the vertical axis
    lines: the lines
    split: position on x of a vertical divider; None: no divider
    sections: position on x and text of each section title above the chart
    """

    title: str
    x: Axis
    y: Axis
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    split: float | None = None
    sections: tuple[tuple[float, str], ...] = ()
