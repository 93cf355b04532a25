"""Label propagation with ImageNet features, without training on video: every cell takes the labels of the cells that
look like it, in the first frame and in recent frames.

The first mask comes from the strokes, by kernel ridge regression on the same features. Label propagation: Wang et al.
2018, "Tracking emerges by colorizing videos", and later work on correspondence; the features here are those of a
classifier (ssvos.models.efficientnet).
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate, pad

from ssvos.config import BackboneConfig, RoiConfig
from ssvos.data.augment import resize_scribble
from ssvos.data.roi import FollowingRoi, Roi
from ssvos.labels import BACKGROUND, UNLABELLED, binary_scribbles, object_ids
from ssvos.losses.dense_crf import crf_features
from ssvos.losses.mean_field import mean_field
from ssvos.losses.permutohedral import LatticeFilter
from ssvos.models.backbone import Backbone
from ssvos.models.grid import STRIDE, Move, cell_shares, move_cells, outside_strokes
from ssvos.models.kernel_ridge import fit_ridge, ridge_scores
from ssvos.models.matching import (
    KeyStatistics,
    StoredFrame,
    cell_keys,
    key_statistics,
    match_everywhere,
    match_window,
    move_frame,
    read_labels,
    with_newest,
)
from ssvos.models.published_weights import create_backbone, load_published

BACKBONE = BackboneConfig(name="efficientnet_lite2", weights="imagenet", stride=8, last="layer3")

ROI = RoiConfig(margin=0.3)
AREA = 288 * 512  # pixels to which the region of interest is resized for the features
LARGEST_ENLARGEMENT = 2.0  # of a small frame
FRAMES = 5  # recent frames whose labels are read
INTERVAL = 4  # between them, except for the latest: a longer past in the same time, and less drift
RADIUS = 12  # cells of recent frames are compared if they are at most this many rows and columns away
MATCHES = 10  # most similar cells whose labels are read
TEMPERATURE = 0.1  # of the softmax over their cosines
SHARPENING = 1.15  # exponent of the labels that are stored: without it, every reading blurs them
RIDGE_LOG_ODDS = 4.0  # per unit of the classifier's score, which is about 1 on the object and -1 elsewhere
CRF_AREA = 240 * 428  # pixels at which masks are refined
CRF_ITERATIONS = 5
CRF_WEIGHT = {"first": 6.0, "later": 4.0}
CRF_SIGMA_XY, CRF_SIGMA_RGB = 0.125, 13.0  # share of the height, and gray levels, as CrfRefinementConfig
_CERTAIN = 10.0  # log-odds of background, of cells that background strokes separate from the object
_SMALLEST = 1e-4  # label


class LabelPropagation:
    """Segments a video frame by frame. Memory does not grow with the video: it stores the frames on which objects begin
    and `FRAMES` recent ones.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._backbone = _load_backbone(self.device)
        self._mean, self._std = (
            torch.tensor(values, device=self.device)[:, None, None]
            for values in (self._backbone.mean, self._backbone.std)
        )
        self._statistics: KeyStatistics
        self._ids: list[int] = []
        self._firsts: list[StoredFrame] = []
        self._recent: tuple[StoredFrame, ...] = ()
        self._number = 0
        self._following_roi = FollowingRoi(ROI)
        self._roi: Roi | None = None  # of the previous frame
        self._previous: np.ndarray | None = None  # its mask

    @torch.inference_mode()
    def __call__(self, frame: np.ndarray, scribble: np.ndarray | None = None) -> np.ndarray:
        """Segment the next frame.

        frame: (H, W, 3) uint8 RGB
        scribble: (H, W) uint8 with the strokes of objects that begin on this frame, or None
        returns: mask, (H, W) uint8

        Raises ValueError if a frame differs in size from its scribble or from the previous frame.
        """
        if scribble is not None and scribble.shape != frame.shape[:2]:
            raise ValueError(
                f"frame is {frame.shape}, its scribble {scribble.shape}; give both the same height and width"
            )
        starting = scribble if scribble is not None and self._new_ids(scribble) else None
        roi = self._following_roi.of_frame(frame.shape[:2], self._previous, starting)
        size = _scaled(frame.shape[:2], AREA, LARGEST_ENLARGEMENT, multiple=STRIDE)
        jump = roi.move_from(self._roi) if starting is not None and self._roi is not None else None
        mask = self._segment(roi.crop(frame), size, None if starting is None else roi.crop(starting), jump)
        self._roi, self._previous = roi, roi.paste(mask, frame.shape[:2])
        return self._previous

    def _segment(
        self, frame: np.ndarray, size: list[int], scribble: np.ndarray | None, jump: Move | None
    ) -> np.ndarray:
        """Segment the region of interest, which is resized to `size` for the features.

        scribble: of a frame on which objects begin
        jump: of the region, on such a frame
        """
        image = torch.from_numpy(np.ascontiguousarray(frame)).to(self.device).permute(2, 0, 1)[None].float() / 255
        keys = self._keys(image, size)
        labels = self._propagate(keys, size, jump) if self._ids else None
        if scribble is not None:
            new = self._new_ids(scribble)
            probs = self._begin(image, keys, scribble, new, labels)
            labels = adaptive_avg_pool2d(probs, (keys.shape[-2], keys.shape[-1]))
            self._firsts.append(StoredFrame(keys, labels, self._number))
            self._recent = ()  # they lack the new objects
        elif labels is not None:
            self._store(keys, labels)
            probs = _refine(image, labels.clamp(min=1e-2).log(), CRF_WEIGHT["later"])
        self._number += 1
        if labels is None:
            return np.zeros(frame.shape[:2], np.uint8)
        best = interpolate(probs, size=frame.shape[:2], mode="bilinear", align_corners=False)[0].argmax(dim=0)
        mask: np.ndarray = np.array([BACKGROUND, *self._ids], np.uint8)[best.cpu().numpy()]
        return mask

    def _new_ids(self, scribble: np.ndarray) -> list[int]:
        return [i for i in object_ids(scribble) if i not in self._ids]

    def _keys(self, image: Tensor, size: list[int]) -> Tensor:
        """Keys (1, D, h, w) of a frame (1, 3, H, W) in [0, 1], which is resized to `size`."""
        resized = interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)
        frames = ((resized - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
        trunk = self._backbone.trunk(frames)
        if not self._ids:  # no keys are stored yet
            self._statistics = key_statistics(trunk)
        return cell_keys(trunk, self._statistics)

    def _propagate(self, keys: Tensor, size: list[int], jump: Move | None) -> Tensor:
        """Labels (1, C, h, w) of a frame, read from the stored frames.

        After a jump of the region, cells that the previous region did not show are background: no stored frame contains
        anything like them.
        """
        num_classes = len(self._ids) + 1
        if jump:
            self._recent = tuple(move_frame(stored, size, BACKBONE.stride, jump) for stored in self._recent)
        matches = []
        for first in self._firsts:
            labels = _pad_classes(first.labels, num_classes)
            matches.append(match_everywhere(keys, first.keys, labels, MATCHES))
        for recent in self._recent:
            matches.append(match_window(keys, recent.keys, recent.labels, RADIUS, MATCHES))
        read = read_labels(matches, TEMPERATURE, MATCHES).mT.reshape(1, num_classes, *keys.shape[-2:])
        if jump:
            shown = move_cells(torch.ones_like(read[:, :1]), size, BACKBONE.stride, jump)
            read = torch.cat([1 - shown, torch.zeros_like(read[:, 1:])], dim=1) + shown * read
        return read

    def _begin(
        self, image: Tensor, keys: Tensor, scribble: np.ndarray, new: list[int], labels: Tensor | None
    ) -> Tensor:
        """Probabilities (1, C, H, W) of a frame on which the objects `new` begin, with the strokes held.

        labels: of the objects that are known already, (1, C', h, w); None if there are none
        """
        height, width = (8 * cells for cells in keys.shape[-2:])
        strokes = torch.from_numpy(binary_scribbles(resize_scribble(scribble, height, width), new)).to(self.device)
        shares, outside = cell_shares(strokes, 8), outside_strokes(strokes, 8)
        if labels is not None:  # what belongs to known objects is background of the new ones
            known_objects = (labels[:, :1] < 0.5) & (shares.sum(dim=1, keepdim=True) == 0)
            shares[:, :1] = torch.where(known_objects, 1.0, shares[:, :1])
        ridge = fit_ridge(keys.expand(len(new), -1, -1, -1), shares, outside)
        scores = ridge_scores(ridge, keys.expand(len(new), -1, -1, -1))
        odds = torch.where(outside, -_CERTAIN, RIDGE_LOG_ODDS * scores[:, 0])
        known = labels[0] if labels is not None else torch.ones_like(odds[:1])
        self._ids += new
        # a new object with odds of 1 to 1 takes half of a cell from the known classes
        logs = torch.cat([known.clamp(min=_SMALLEST).log(), odds])
        probs = _refine(image, logs[None], CRF_WEIGHT["first"])
        return _hold_strokes(probs, scribble, self._ids)

    def _store(self, keys: Tensor, labels: Tensor) -> None:
        sharp = labels.clamp(min=_SMALLEST) ** SHARPENING
        newest = StoredFrame(keys, sharp / sharp.sum(dim=1, keepdim=True), self._number)
        self._recent = with_newest(self._recent, newest, INTERVAL, FRAMES)


@cache
def _load_backbone(device: torch.device) -> Backbone:
    backbone = create_backbone(BACKBONE).eval()
    load_published(backbone, BACKBONE)
    backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch does not annotate it
    return backbone.to(device)


def _scaled(size: Sequence[int], area: int, largest: float, multiple: int = 1) -> list[int]:
    """(height, width) of about `area` pixels in the proportions of `size`, at most `largest` times as large."""
    scale = min(largest, (area / (size[0] * size[1])) ** 0.5)
    return [max(1, round(side * scale / multiple)) * multiple for side in size]


def _refine(image: Tensor, logs: Tensor, weight: float) -> Tensor:
    """Mean-field inference of the dense CRF: log-probabilities (1, C, h, w) -> probabilities (1, C, H', W')."""
    height, width = _scaled(image.shape[-2:], CRF_AREA, 1.0)
    small = interpolate(image, size=(height, width), mode="area")
    kernel = LatticeFilter(crf_features(small, CRF_SIGMA_XY * height, CRF_SIGMA_RGB))
    unary = interpolate(logs, size=(height, width), mode="bilinear", align_corners=False).log_softmax(dim=1)
    return mean_field(unary.flatten(2), kernel, weight, CRF_ITERATIONS).view_as(unary)


def _hold_strokes(probs: Tensor, scribble: np.ndarray, ids: list[int]) -> Tensor:
    """Probabilities at the scribble's size, (1, C, H, W), set to 0 and 1 on its strokes."""
    strokes = torch.from_numpy(scribble).to(probs.device)
    full = interpolate(probs, size=strokes.shape, mode="bilinear", align_corners=False)
    for channel, label in enumerate([BACKGROUND, *ids]):
        is_own = (strokes == label).to(full.dtype)
        full[:, channel] = torch.where(strokes == UNLABELLED, full[:, channel], is_own)
    return full


def _pad_classes(labels: Tensor, num_classes: int) -> Tensor:
    """Labels (1, C, h, w) with channels of 0 for objects that began later."""
    return pad(labels, (0, 0, 0, 0, 0, num_classes - labels.shape[1]))
