"""Answers without training, to measure networks by: nothing, the first mask, GrabCut with optical flow."""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from ssvos.labels import BACKGROUND, UNLABELLED, object_ids

GRABCUT_ROUNDS = 5
GRABCUT_SIDE = 432  # GrabCut works on a frame whose longer side is at most this: faster, and finds better objects
NEAR_STROKE = 0.02  # of the longer side: what is probably object at first around its strokes
SURROUNDINGS = 0.08  # of the longer side: how much ground around a warped object GrabCut looks at
BAND = 3  # pixels of GrabCut's frame on both sides of a warped outline, in which it may move


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
    """Segment the first frame from its strokes by GrabCut; DIS optical flow and GrabCut carry the mask along.

    frames:   (H, W, 3) uint8 RGB, all of one size; two of them are held at a time
    scribble: of the first frame, (H, W) uint8: 0 background strokes, 1..K objects' strokes, 255 unknown
    yields:   a mask for every frame, (H, W) uint8. The same input gives the same masks.
    Raises ValueError where frame and scribble differ in size.

    GrabCut: Rother et al. 2004; DIS flow: Kroeger et al. 2016 (both as OpenCV has them).
    """
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    before, mask = None, None
    for frame in frames:
        if frame.shape != (*scribble.shape, 3):
            raise ValueError(
                f"frame is {frame.shape}, its scribble {scribble.shape}; give both the same height and width"
            )
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        if before is None:
            mask = segment_first(frame, scribble)
        else:
            mask = refine_mask(frame, warp_mask(mask, flow.calc(grey, before, None)))
        before = grey
        yield mask.copy()


def segment_first(frame: np.ndarray, scribble: np.ndarray) -> np.ndarray:
    """GrabCut per object: what it connects with the object's strokes.

    frame: (H, W, 3) uint8 RGB; scribble: (H, W) uint8; returns (H, W) uint8.
    """
    claims = {}
    for label in object_ids(scribble):
        strokes = scribble == label
        found = _grabcut(frame, _state_of_strokes(scribble, strokes), GRABCUT_ROUNDS)
        _, parts = cv2.connectedComponents((found | strokes).astype(np.uint8))
        claims[label] = np.isin(parts, np.unique(parts[strokes])), strokes
    return _merge(claims, scribble.shape)


def warp_mask(mask: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Fetch every pixel's label from where it was a frame before.

    mask: (H, W) uint8 of the frame before; flow: (H, W, 2), (x, y) pixels from this frame to the one before.
    Returns (H, W) uint8: an object's label where the warped, interpolated object exceeds one half.
    """
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]].astype(np.float32)
    warped = np.zeros_like(mask)
    for label in object_ids(mask):
        share = cv2.remap((mask == label).astype(np.float32), x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR)
        warped[share > 0.5] = label
    return warped


def refine_mask(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Let GrabCut move each object's outline within a narrow band, judging by the object's surroundings.

    frame: (H, W, 3) uint8 RGB; mask: (H, W) uint8; returns (H, W) uint8.
    """
    claims = {}
    shrink = min(1.0, GRABCUT_SIDE / max(mask.shape))
    around = round(SURROUNDINGS * max(mask.shape))
    for label in object_ids(mask):
        core = mask == label
        left, top, width, height = cv2.boundingRect(core.astype(np.uint8))
        rows = slice(max(0, top - around), top + height + around)
        columns = slice(max(0, left - around), left + width + around)
        claimed = np.zeros_like(core)
        state = _state_of_band(core[rows, columns], shrink)
        claimed[rows, columns] = _grabcut(frame[rows, columns], state, rounds=1)
        claims[label] = claimed, core
    return _merge(claims, mask.shape)


def _merge(claims: dict[int, tuple[np.ndarray, np.ndarray]], shape: tuple[int, int]) -> np.ndarray:
    """label -> (pixels it claims, its seeds), both (H, W) bool; a disputed pixel goes to the nearest seed."""
    mask = np.zeros(shape, dtype=np.uint8)
    nearest = np.full(shape, np.inf, dtype=np.float32)
    for label, (claimed, seeds) in claims.items():
        distance = cv2.distanceTransform((~seeds).astype(np.uint8), cv2.DIST_L2, 5)
        wins = claimed & (distance < nearest)
        mask[wins] = label
        nearest[wins] = distance[wins]
    return mask


def _grabcut(frame: np.ndarray, state: np.ndarray, rounds: int) -> np.ndarray:
    """Foreground, (H, W) bool, after `rounds` of GrabCut from its labels `state`, which may be smaller."""
    if not np.isin(state, (cv2.GC_FGD, cv2.GC_PR_FGD)).any():  # GrabCut needs a sample of both
        return np.zeros(frame.shape[:2], dtype=bool)
    if not np.isin(state, (cv2.GC_BGD, cv2.GC_PR_BGD)).any():
        return np.ones(frame.shape[:2], dtype=bool)
    image = cv2.resize(frame, state.shape[::-1], interpolation=cv2.INTER_AREA)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # GrabCut starts from a k-means of random centres
    cv2.grabCut(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), state, None, *models, rounds, cv2.GC_INIT_WITH_MASK)
    found = np.isin(state, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    return cv2.resize(found, frame.shape[1::-1]) > 0.5


def _small(shape: tuple[int, int], shrink: float) -> tuple[int, int]:
    """(W, H) of a picture of `shape` = (H, W) that is `shrink` times as large."""
    return max(1, round(shape[1] * shrink)), max(1, round(shape[0] * shrink))


def _state_of_strokes(scribble: np.ndarray, strokes: np.ndarray) -> np.ndarray:
    """GrabCut's labels from strokes, (H, W) bool, of one object, at the size GrabCut works on.

    Strokes are sure, what is near the object's own is probably object, and nothing is object outside the box
    that holds all strokes: the background's strokes go round the objects.
    """
    near = cv2.dilate(strokes.astype(np.uint8), _disk(max(1, round(NEAR_STROKE * max(scribble.shape)))))
    state = np.where(near > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    known = scribble != UNLABELLED
    left, top, width, height = cv2.boundingRect(known.astype(np.uint8))
    is_outside = np.ones(scribble.shape, dtype=bool)
    is_outside[top : top + height, left : left + width] = False
    state[is_outside] = cv2.GC_BGD
    small = _small(scribble.shape, min(1.0, GRABCUT_SIDE / max(scribble.shape)))
    state = cv2.resize(state, small, interpolation=cv2.INTER_NEAREST)
    # by area: thin strokes would fall between the samples of a smaller frame
    own, others = (
        cv2.resize(plane.astype(np.float32), small, interpolation=cv2.INTER_AREA)
        for plane in (strokes, known & ~strokes)
    )
    state[others > 0] = cv2.GC_BGD
    state[(own > 0) & (own >= others)] = cv2.GC_FGD
    return state


def _state_of_band(core: np.ndarray, shrink: float) -> np.ndarray:
    """GrabCut's labels, `shrink` times as large as `core`, (H, W) bool: sure except near its outline."""
    small = _small(core.shape, shrink)
    inside = (cv2.resize(core.astype(np.float32), small, interpolation=cv2.INTER_AREA) > 0.5).astype(np.uint8)
    state = np.where(inside > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    state[cv2.erode(inside, _disk(BAND)) > 0] = cv2.GC_FGD
    state[cv2.dilate(inside, _disk(BAND)) == 0] = cv2.GC_BGD
    return state


def _disk(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
