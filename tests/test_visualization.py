"""Layers of masks and strokes over frames."""

import io

import numpy as np
from PIL import Image

from ssvos.visualization import mask_layer, overlay, stroke_layer


def composite(frame: np.ndarray, png: bytes) -> np.ndarray:
    """A transparent PNG over a frame, composited by Pillow."""
    layer = Image.open(io.BytesIO(png)).convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.fromarray(frame).convert("RGBA"), layer).convert("RGB"))


def test_mask_layer_over_a_frame_equals_the_overlay():
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    labels = np.zeros((20, 30), np.uint8)
    labels[3:12, 4:15], labels[6:18, 15:25], labels[0:2] = 1, 7, 255
    difference = composite(frame, mask_layer(labels)).astype(int) - overlay(frame, labels)
    assert np.abs(difference).max() <= 1
    assert (overlay(frame, labels) != frame).any()


def test_stroke_layer_colors_strokes_and_is_transparent_elsewhere():
    frame = np.full((9, 9, 3), 100, np.uint8)
    scribble = np.full((9, 9), 255, np.uint8)
    scribble[4, 2:7] = 1
    result = composite(frame, stroke_layer(scribble))
    assert (result[4, 2:7] == (128, 0, 0)).all(), "object 1 of the palette"
    assert (result[3, 2:7] == 255).all() and (result[5, 2:7] == 255).all()
    assert (result[[0, 1, 7, 8]] == 100).all()
