"""GrabCut and optical flow, without training: what scribble, colours and motion of a video say of its masks.

GrabCut: Rother et al. 2004; DIS flow: Kroeger et al. 2016 (both as OpenCV has them). Alone they are an answer to
measure networks by (ssvos.baselines.trivial); beside a network they are evidence (`predict.flow`).
"""

import cv2
import numpy as np
import torch
from torch import Tensor

from ssvos.config import FlowConfig
from ssvos.labels import UNLABELLED, object_ids

GRABCUT_ROUNDS = 5
GRABCUT_SIDE = 432  # GrabCut works on a frame whose longer side is at most this: faster, and finds better objects
NEAR_STROKE = 0.02  # of the longer side: what is probably object at first around its strokes
SURROUNDINGS = 0.08  # of the longer side: how much ground around a warped object GrabCut looks at
BAND = 3  # pixels of GrabCut's frame on both sides of a warped outline, in which it may move


class GrabCutFlow:
    """Segments objects from their strokes by GrabCut; optical flow and GrabCut carry the masks from frame to frame.

    It holds one frame and its mask. The same input gives the same masks.
    """

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._before: np.ndarray | None = None
        self._mask = np.zeros(0, np.uint8)
        self._known: set[int] = set()

    def __call__(self, frame: np.ndarray, scribble: np.ndarray | None = None) -> np.ndarray:
        """frame (H, W, 3) uint8 RGB, scribble (H, W) with the strokes of objects that begin here -> mask (H, W) uint8.

        Raises ValueError where a frame differs in size from its scribble or from the frame before.
        """
        shape = frame.shape[:2]
        if scribble is not None and scribble.shape != shape:
            raise ValueError(
                f"frame is {frame.shape}, its scribble {scribble.shape}; give both the same height and width"
            )
        if self._before is not None and self._before.shape != shape:
            raise ValueError(f"frame is {shape}, the one before {self._before.shape}; give all the same size")
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        if self._before is None:
            mask = np.zeros(shape, np.uint8)
        else:
            mask = refine_mask(frame, warp_mask(self._mask, self._flow.calc(grey, self._before, None)))
        new = set() if scribble is None else set(object_ids(scribble)) - self._known
        if new:
            found = segment_first(frame, scribble)
            mask = np.where(np.isin(found, list(new)), found, mask)
            self._known |= new
        self._before, self._mask = grey, mask
        return mask.copy()


def with_flow(odds: Tensor, mask: np.ndarray, ids: list[int], config: FlowConfig) -> Tensor:
    """Objects' log-odds with what flow says of them: odds + w (2 s - 1), where s is the share of a pixel that is object
    in flow's mask and w is `weight`, less where the two agree little: times min(1, IoU / agreement).

    odds: (K, H, W) of the objects `ids`, in order; mask: (h, w) uint8 of ids, of any size. Where flow has lost an
    object and found something else instead, the masks have little in common, and it is not heard.
    """
    told = []
    for plane, number in zip(odds, ids, strict=True):
        area = cv2.resize((mask == number).astype(np.float32), plane.shape[::-1], interpolation=cv2.INTER_AREA)
        share = torch.from_numpy(area).to(plane)
        own, its = plane > 0, share > 0.5
        common = (own & its).sum() / (own | its).sum().clamp(min=1)
        told.append(plane + config.weight * (common / config.agreement).clamp(max=1.0) * (2 * share - 1))
    return torch.stack(told)


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
