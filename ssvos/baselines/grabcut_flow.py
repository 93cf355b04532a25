"""GrabCut and optical flow, without training: masks from the scribble, the colors and the motion of a video.

GrabCut: Rother et al. 2004; DIS flow: Kroeger et al. 2016 (both as implemented in OpenCV). The masks are a baseline
(ssvos.baselines.trivial), and additional evidence for the network's predictions (`predict.flow`).
"""

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssvos.config import FlowConfig
from ssvos.labels import UNLABELLED, object_ids

Mask = npt.NDArray[np.uint8]

GRABCUT_ROUNDS = 5
GRABCUT_SIDE = 432  # longer side of the frames that GrabCut works on, at most: faster, and better segmentation
NEAR_STROKE = 0.02  # of the longer side: around its strokes, GrabCut starts with "probably object"
SURROUNDINGS = 0.08  # of the longer side: margin around a warped object that GrabCut uses as context
BAND = 3  # pixels of GrabCut's frame on both sides of a warped outline, in which the outline may move


class GrabCutFlow:
    """Segments objects from their strokes by GrabCut, then propagates the masks by optical flow and GrabCut.

    It stores one frame and its mask. The same input gives the same masks.
    """

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._previous: np.ndarray | None = None
        self._mask: Mask = np.zeros((0, 0), np.uint8)
        self._known: set[int] = set()

    def __call__(self, frame: np.ndarray, scribble: np.ndarray | None = None) -> Mask:
        """Segment the next frame.

        frame: (H, W, 3) uint8 RGB
        scribble: (H, W) uint8 with the strokes of objects that start in this frame, or None
        returns: mask, (H, W) uint8

        Raises ValueError if a frame differs in size from its scribble or from the previous frame.
        """
        shape = frame.shape[:2]
        if scribble is not None and scribble.shape != shape:
            raise ValueError(
                f"frame is {frame.shape}, its scribble {scribble.shape}; give both the same height and width"
            )
        if self._previous is not None and self._previous.shape != shape:
            raise ValueError(f"frame is {shape}, the previous frame {self._previous.shape}; give all the same size")
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        mask: Mask = np.zeros(shape, np.uint8)
        if self._previous is not None:
            # OpenCV allocates the flow if it gets None, which its type annotations do not allow
            flow = self._flow.calc(grey, self._previous, None)  # type: ignore[call-overload]
            mask = refine_mask(frame, warp_mask(self._mask, flow))
        if scribble is not None and (new := set(object_ids(scribble)) - self._known):
            first = segment_first(frame, scribble)
            mask = np.where(np.isin(first, list(new)), first, mask)
            self._known |= new
        self._previous, self._mask = grey, mask
        return mask.copy()


def with_flow(odds: Tensor, mask: np.ndarray, ids: list[int], config: FlowConfig) -> Tensor:
    """Log-odds of objects with the evidence of the flow mask added: odds + w (2 s - 1).

    s is the share of a pixel that the flow mask assigns to the object. w is `config.weight` times
    min(1, IoU / agreement), where IoU is that of the network's mask and the flow mask. If flow has lost an object and
    follows something else, the two masks have little in common and the evidence has little weight.

    odds: log-odds of the objects `ids`, in order, (K, H, W)
    mask: object ids, (h, w) uint8, of any size
    returns: (K, H, W)
    """
    result = []
    for plane, number in zip(odds, ids, strict=True):
        area = cv2.resize((mask == number).astype(np.float32), plane.shape[::-1], interpolation=cv2.INTER_AREA)
        share = torch.from_numpy(area).to(plane)
        network_mask, flow_mask = plane > 0, share > 0.5
        iou = (network_mask & flow_mask).sum() / (network_mask | flow_mask).sum().clamp(min=1)
        result.append(plane + config.weight * (iou / config.agreement).clamp(max=1.0) * (2 * share - 1))
    return torch.stack(result)


def segment_first(frame: np.ndarray, scribble: np.ndarray) -> Mask:
    """GrabCut per object; only the regions that touch the object's strokes are kept.

    frame: (H, W, 3) uint8 RGB
    scribble: (H, W) uint8
    returns: (H, W) uint8
    """
    claims = {}
    for label in object_ids(scribble):
        strokes = scribble == label
        foreground = _grabcut(frame, _labels_from_strokes(scribble, strokes), GRABCUT_ROUNDS)
        _, components = cv2.connectedComponents((foreground | strokes).astype(np.uint8))
        claims[label] = np.isin(components, np.unique(components[strokes])), strokes
    return _merge(claims, scribble.shape)


def warp_mask(mask: np.ndarray, flow: np.ndarray) -> Mask:
    """Move a mask along the optical flow to the next frame.

    mask: of the previous frame, (H, W) uint8
    flow: (H, W, 2), (x, y) in pixels from this frame to the previous one
    returns: (H, W) uint8; a pixel has an object's label if the warped, interpolated object exceeds one half
    """
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]].astype(np.float32)
    warped = np.zeros_like(mask)
    for label in object_ids(mask):
        share = cv2.remap((mask == label).astype(np.float32), x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR)
        warped[share > 0.5] = label
    return warped


def refine_mask(frame: np.ndarray, mask: np.ndarray) -> Mask:
    """Let GrabCut move each object's outline within a narrow band, from the colors in the object's surroundings.

    frame: (H, W, 3) uint8 RGB
    mask: (H, W) uint8
    returns: (H, W) uint8
    """
    claims = {}
    scale = min(1.0, GRABCUT_SIDE / max(mask.shape))
    margin = round(SURROUNDINGS * max(mask.shape))
    for label in object_ids(mask):
        core = mask == label
        left, top, width, height = cv2.boundingRect(core.astype(np.uint8))
        rows = slice(max(0, top - margin), top + height + margin)
        columns = slice(max(0, left - margin), left + width + margin)
        claimed = np.zeros_like(core)
        labels = _labels_from_mask(core[rows, columns], scale)
        claimed[rows, columns] = _grabcut(frame[rows, columns], labels, rounds=1)
        claims[label] = claimed, core
    return _merge(claims, mask.shape)


def _merge(claims: dict[int, tuple[np.ndarray, np.ndarray]], shape: tuple[int, ...]) -> Mask:
    """One mask from overlapping objects; the nearest seed decides a pixel that several objects claim.

    claims: label -> pixels that it claims, and its seeds, both (H, W) bool
    """
    mask: Mask = np.zeros(shape, dtype=np.uint8)
    nearest = np.full(shape, np.inf, dtype=np.float32)
    for label, (claimed, seeds) in claims.items():
        distance = cv2.distanceTransform((~seeds).astype(np.uint8), cv2.DIST_L2, 5)
        wins = claimed & (distance < nearest)
        mask[wins] = label
        nearest[wins] = distance[wins]
    return mask


def _grabcut(frame: np.ndarray, labels: Mask, rounds: int) -> npt.NDArray[np.bool_]:
    """Foreground, (H, W) bool, after `rounds` of GrabCut.

    labels: initial GrabCut labels, which may be smaller than the frame; modified in place
    """
    if not np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).any():  # GrabCut needs samples of both classes
        return np.zeros(frame.shape[:2], dtype=bool)
    if not np.isin(labels, (cv2.GC_BGD, cv2.GC_PR_BGD)).any():
        return np.ones(frame.shape[:2], dtype=bool)
    image = cv2.resize(frame, labels.shape[::-1], interpolation=cv2.INTER_AREA)
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # GrabCut starts from a k-means with random centres
    bgr, box = cv2.cvtColor(image, cv2.COLOR_RGB2BGR), (0, 0, 0, 0)  # GC_INIT_WITH_MASK ignores the box
    cv2.grabCut(bgr, labels, box, background, foreground, rounds, cv2.GC_INIT_WITH_MASK)
    is_foreground = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    return cv2.resize(is_foreground, frame.shape[1::-1]) > 0.5


def _scaled_size(shape: tuple[int, ...], scale: float) -> tuple[int, int]:
    """(W, H) of an image of `shape` = (H, W), resized by `scale`."""
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def _labels_from_strokes(scribble: np.ndarray, strokes: np.ndarray) -> Mask:
    """Initial GrabCut labels of one object, at the size that GrabCut works on.

    Strokes are certain, pixels near the object's own strokes are probably object, and pixels outside the bounding box
    of all strokes are background, because the background strokes surround the objects.

    scribble: (H, W) uint8
    strokes: strokes of the object, (H, W) bool
    """
    near = cv2.dilate(strokes.astype(np.uint8), _disk(max(1, round(NEAR_STROKE * max(scribble.shape)))))
    full_size = np.where(near > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labelled = scribble != UNLABELLED
    left, top, width, height = cv2.boundingRect(labelled.astype(np.uint8))
    is_outside = np.ones(scribble.shape, dtype=bool)
    is_outside[top : top + height, left : left + width] = False
    full_size[is_outside] = cv2.GC_BGD
    size = _scaled_size(scribble.shape, min(1.0, GRABCUT_SIDE / max(scribble.shape)))
    labels: Mask = cv2.resize(full_size, size, interpolation=cv2.INTER_NEAREST).astype(np.uint8, copy=False)
    # resized by area: nearest-neighbour sampling of a smaller frame would miss thin strokes
    own, others = (
        cv2.resize(plane.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        for plane in (strokes, labelled & ~strokes)
    )
    labels[others > 0] = cv2.GC_BGD
    labels[(own > 0) & (own >= others)] = cv2.GC_FGD
    return labels


def _labels_from_mask(core: np.ndarray, scale: float) -> Mask:
    """Initial GrabCut labels of an object's mask (H, W) bool, resized by `scale`: certain except near the outline."""
    size = _scaled_size(core.shape, scale)
    inside = (cv2.resize(core.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5).astype(np.uint8)
    labels = np.where(inside > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[cv2.erode(inside, _disk(BAND)) > 0] = cv2.GC_FGD
    labels[cv2.dilate(inside, _disk(BAND)) == 0] = cv2.GC_BGD
    return labels


def _disk(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
