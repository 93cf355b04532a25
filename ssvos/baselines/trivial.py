"""Baselines without training: empty masks, the first mask copied, and GrabCut with optical flow."""

from collections.abc import Iterable, Iterator

import numpy as np

from ssvos.baselines.grabcut_flow import GrabCutFlow
from ssvos.labels import BACKGROUND, UNLABELLED


def empty(first: np.ndarray, num_frames: int) -> Iterator[np.ndarray]:
    """No object in any frame: `num_frames` masks of 0, (H, W) uint8, in the shape of `first`."""
    for _ in range(num_frames):
        yield np.zeros(first.shape, dtype=np.uint8)


def copy_first(mask: np.ndarray, num_frames: int) -> Iterator[np.ndarray]:
    """The first frame's mask, (H, W) uint8, for `num_frames` frames; unlabelled pixels become background."""
    first = np.where(mask == UNLABELLED, BACKGROUND, mask).astype(np.uint8)
    for _ in range(num_frames):
        yield first.copy()


def grabcut_flow(frames: Iterable[np.ndarray], scribble: np.ndarray) -> Iterator[np.ndarray]:
    """Masks of a video by GrabCut and optical flow (ssvos.baselines.grabcut_flow) from the scribble of its first frame.

    frames: (H, W, 3) uint8 RGB, all of one size; at most two are in memory at a time
    scribble: of the first frame, (H, W) uint8: 0 background strokes, 1..K object strokes, 255 unlabelled
    yields: a mask for every frame, (H, W) uint8; the same input gives the same masks

    Raises ValueError if frame and scribble differ in size.
    """
    segmenter = GrabCutFlow()
    for index, frame in enumerate(frames):
        yield segmenter(frame, None if index else scribble)
