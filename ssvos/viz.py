"""Pictures: masks over frames, grids of them, and curves; colours follow the label palette."""

import io

import cv2
import numpy as np
from PIL import Image

from ssvos.labels import UNLABELLED, davis_palette


def overlay(frame: np.ndarray, labels: np.ndarray, opacity: float = 0.5) -> np.ndarray:
    """Lay labels (H, W) over a frame (H, W, 3) uint8, objects outlined in white -> (H, W, 3) uint8.

    Background and 255 stay as they are.
    """
    shown = (labels > 0) & (labels != UNLABELLED)
    result = frame.copy()
    mixed = (1 - opacity) * frame[shown] + opacity * davis_palette()[labels[shown]]
    result[shown] = mixed.astype(np.uint8)
    edge = cv2.morphologyEx(np.where(shown, labels, 0).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8))
    result[edge > 0] = 255
    return result


def draw_strokes(frame: np.ndarray, scribble: np.ndarray) -> np.ndarray:
    """Paint a scribble's strokes (H, W) on a frame: objects in their colour, background strokes in grey."""
    result = frame.copy()
    objects = (scribble > 0) & (scribble != UNLABELLED)
    result[objects] = davis_palette()[scribble[objects]]
    result[scribble == 0] = (160, 160, 160)
    return result


def encode_jpeg(image: np.ndarray, quality: int = 85) -> bytes:
    """(H, W, 3) uint8 RGB -> JPEG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def fit_width(image: np.ndarray, width: int) -> np.ndarray:
    """Resize (H, W, 3) to a width, keeping the aspect ratio."""
    height = round(image.shape[0] * width / image.shape[1])
    how = cv2.INTER_AREA if image.shape[1] > width else cv2.INTER_CUBIC
    return cv2.resize(image, (width, height), interpolation=how)


def grid(rows: list[list[np.ndarray]], gap: int = 4) -> np.ndarray:
    """Pictures of one size in rows and columns, white gaps between -> one picture."""
    height, width = rows[0][0].shape[:2]
    columns = max(len(row) for row in rows)
    canvas = np.full((len(rows) * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            top, left = i * (height + gap), j * (width + gap)
            canvas[top : top + height, left : left + width] = picture
    return canvas
