"""Answers without training, to measure networks by: nothing, the first mask, GrabCut with optical flow."""

from collections.abc import Iterable, Iterator

import numpy as np

from ssvos.baselines.grabcut_flow import GrabCutFlow
from ssvos.labels import BACKGROUND, UNLABELLED


def empty(first: np.ndarray, num_frames: int) -> Iterator[np.ndarray]:
    """No object anywhere: `num_frames` masks of 0, (H, W) uint8 like `first`."""
    for _ in range(num_frames):
        yield np.zeros(first.shape, dtype=np.uint8)


def copy_first(mask: np.ndarray, num_frames: int) -> Iterator[np.ndarray]:
    """The first frame's mask, (H, W) uint8, for `num_frames` frames; unlabelled pixels become background."""
    answer = np.where(mask == UNLABELLED, BACKGROUND, mask).astype(np.uint8)
    for _ in range(num_frames):
        yield answer.copy()


def grabcut_flow(frames: Iterable[np.ndarray], scribble: np.ndarray) -> Iterator[np.ndarray]:
    """A video's masks by GrabCut and optical flow (ssvos.baselines.grabcut_flow) from the scribble of its first frame.

    frames:   (H, W, 3) uint8 RGB, all of one size; two of them are held at a time
    scribble: of the first frame, (H, W) uint8: 0 background strokes, 1..K objects' strokes, 255 unknown
    yields:   a mask for every frame, (H, W) uint8. The same input gives the same masks.
    Raises ValueError where frame and scribble differ in size.
    """
    carried = GrabCutFlow()
    for number, frame in enumerate(frames):
        yield carried(frame, None if number else scribble)
