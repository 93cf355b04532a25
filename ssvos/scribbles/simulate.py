"""Scribble simulation (III-E): thin a mask to strokes, and draw a background rectangle around its objects."""

import hashlib

import cv2
import numpy as np

from ssvos.config import ScribbleConfig
from ssvos.labels import BACKGROUND, UNLABELLED, object_ids
from ssvos.scribbles.thinning import thin

Box = tuple[int, int, int, int]  # top, left, bottom, right; bottom and right are exclusive


def scribble_rng(seed: int, sequence: str, frame: str) -> np.random.Generator:
    """The random generator of one frame's scribble. It depends neither on the order of frames nor on the workers.

    It does not depend on the data set's name, so that `ssvos scribble` gives the same scribbles as the pipeline.
    """
    digest = hashlib.sha256(f"{seed}\n{sequence}\n{frame}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def simulate_scribble(mask: np.ndarray, rng: np.random.Generator, config: ScribbleConfig) -> np.ndarray:
    """Simulate the scribble that a person could draw for a dense mask.

    mask: (H, W) uint8; its unlabelled pixels are unlabelled in the scribble
    rng: the generator
    config: parameters of the simulation
    returns: (H, W) uint8, mostly 255; every connected component of every object has a stroke
    """
    labels = np.full(mask.shape, UNLABELLED, dtype=np.uint8)
    box = _objects_box(mask)
    for object_id in object_ids(mask[box[0] : box[2], box[1] : box[3]]):
        region = (mask == object_id).view(np.uint8)
        x, y, w, h = cv2.boundingRect(region)
        window = slice(y, y + h), slice(x, x + w)
        labels[window][_object_stroke(region[window], config.width)] = object_id
    # Paper gap: a frame without objects also gets a rectangle, around a random box; all of it is background.
    if box[2] == 0:
        box = _random_box(mask.shape, rng)
    margin = config.margin_min + (config.margin_max - config.margin_min) * rng.random()
    _draw_rectangle(labels, mask, box, round(margin * max(mask.shape)), config.width)
    return labels


def stroke_disk(width: int) -> np.ndarray:
    """A disk of diameter `width` pixels, (width, width) uint8: the brush of simulated and imported strokes."""
    offset = np.arange(width) - (width - 1) / 2
    return (offset[:, None] ** 2 + offset[None, :] ** 2 <= (width / 2) ** 2).astype(np.uint8)


def _object_stroke(region: np.ndarray, width: int) -> np.ndarray:
    """Thin a region, and dilate the line inside it. region: (h, w) uint8 of 0 and 1; returns (h, w) bool."""
    line = thin(region.view(bool))
    _mark_missing_components(line, region)
    stroke: np.ndarray = cv2.dilate(line.view(np.uint8), stroke_disk(width)) & region
    return stroke.view(bool)


def _mark_missing_components(line: np.ndarray, region: np.ndarray) -> None:
    """Mark one pixel, the farthest from the boundary, of every component that the thinning removed, in place.

    Nothing would train a component without a stroke, and the paper fails on small, rope-like objects.
    """
    num, components, stats, _ = cv2.connectedComponentsWithStats(region, connectivity=8)
    has_line = np.zeros(num, dtype=bool)
    has_line[components[line]] = True
    for component in np.flatnonzero(~has_line[1:]) + 1:
        x, y, w, h = stats[component, :4]
        window = slice(y, y + h), slice(x, x + w)
        part = np.pad((components[window] == component).astype(np.uint8), 1)
        depth = cv2.distanceTransform(part, cv2.DIST_L2, 3)[1:-1, 1:-1]
        line[window][np.unravel_index(depth.argmax(), depth.shape)] = True


def _objects_box(mask: np.ndarray) -> Box:
    """The bounding box of all objects; (0, 0, 0, 0) without objects."""
    x, y, w, h = cv2.boundingRect(((mask != BACKGROUND) & (mask != UNLABELLED)).view(np.uint8))
    return y, x, y + h, x + w


def _random_box(shape: tuple[int, int], rng: np.random.Generator) -> Box:
    """A random box in the frame, with sides of a quarter to a half of the frame's."""
    sides = [max(1, round(length * rng.uniform(0.25, 0.5))) for length in shape]
    top, left = (int(rng.integers(0, length - side + 1)) for length, side in zip(shape, sides, strict=True))
    return top, left, top + sides[0], left + sides[1]


def _draw_rectangle(labels: np.ndarray, mask: np.ndarray, box: Box, margin: int, width: int) -> None:
    """Draw the outline of the rectangle into `labels`, in place, on pixels that the mask labels background."""
    top, left, bottom, right = box
    height, wide = mask.shape
    is_skipped = [top == 0, left == 0, bottom == height, right == wide]
    if all(is_skipped):
        # Paper gap: objects that touch all four edges would leave no background stroke, so all four sides are drawn.
        is_skipped = [False] * 4
    # a side outside the image is drawn at the image's edge
    top, bottom = max(0, top - margin - width), min(height, bottom + margin + width)
    left, right = max(0, left - margin - width), min(wide, right + margin + width)
    rows, columns = slice(top, bottom), slice(left, right)
    sides = (
        (slice(top, top + width), columns),
        (rows, slice(left, left + width)),
        (slice(max(top, bottom - width), bottom), columns),
        (rows, slice(max(left, right - width), right)),
    )
    stroke = np.zeros(mask.shape, dtype=bool)
    for side, skip in zip(sides, is_skipped, strict=True):
        if not skip:
            stroke[side] = True
    labels[stroke & (mask == BACKGROUND)] = BACKGROUND
