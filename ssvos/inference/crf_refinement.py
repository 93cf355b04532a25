"""Refinement of predicted masks: mean-field inference of the dense CRF whose energy trains them (12)-(16).

Training lowers this energy of the network's masks on average; here it is lowered for the one frame at hand, whose
outlines are then the image's and not those of a map at stride 4 (Krähenbühl & Koltun 2011, with the Potts model).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ssvos.config import ColorModelConfig, CrfRefinementConfig
from ssvos.inference.color_model import ColorModel, colour_cells
from ssvos.labels import UNLABELLED
from ssvos.losses.dense_crf import crf_features
from ssvos.losses.mean_field import mean_field
from ssvos.losses.permutohedral import LatticeFilter

_CLAMP = 1e-6


class CrfRefiner:
    """Refines the masks of a video in turn: first with what colours say (ssvos.inference.color_model), then by
    mean-field inference (ssvos.losses.mean_field). What is off in both parts leaves the masks as they are.
    """

    def __init__(self, refinement: CrfRefinementConfig, colour: ColorModelConfig):
        self.refinement = refinement
        self._colours = ColorModel(colour) if colour.weight else None
        self._num_known = 1  # classes; of the background something is always known

    def __call__(self, probs: Tensor, image: np.ndarray, frame: Tensor, strokes: Tensor | None = None) -> Tensor:
        """probs (C, H, W) of background and objects -> the same, refined.

        image: (H, W, 3) uint8 RGB; frame: the same as the network takes it, (1, 3, H, W) in [0, 1]. strokes: (H, W) of
        classes and 255, on a frame on which objects begin; objects come in the order in which they begin.
        """
        if not (self._colours or self.refinement.iterations):
            return probs
        crf, logs = self._crf(frame), probs.clamp(min=_CLAMP).log()
        if not self._colours:
            return crf(logs)
        cells = colour_cells(image, self._colours.config.bins).to(probs.device)
        if strokes is not None and len(probs) > self._num_known:
            self._learn(crf, logs, cells, strokes)
        return crf(logs + self._colours.evidence(cells))

    def _learn(self, crf: Callable[[Tensor], Tensor], logs: Tensor, cells: Tensor, strokes: Tensor) -> None:
        """Colours of the classes that begin, from the frame's mask, and that again with the colours."""
        found = crf(logs)
        for number in range(self._colours.config.rounds):
            if number:
                found = crf(logs + self._colours.evidence(cells))
            self._colours.learn(cells, _held(found, strokes), self._num_known)
        self._num_known = len(logs)

    def _crf(self, frame: Tensor) -> Callable[[Tensor], Tensor]:
        """From log-probabilities (C, H, W), less any constant, to probabilities; the filter is built once."""
        config = self.refinement
        if not config.iterations:
            return lambda logs: logs.softmax(dim=0)
        kernel = LatticeFilter(crf_features(frame, config.sigma_xy * frame.shape[-2], config.sigma_rgb))
        return lambda logs: mean_field(logs.flatten(1)[None], kernel, config.weight, config.iterations)[0].view_as(logs)


def _held(probs: Tensor, strokes: Tensor) -> Tensor:
    """Probabilities (C, H, W) that are certain under strokes."""
    classes = torch.arange(len(probs), device=probs.device)[:, None, None]
    return torch.where(strokes == UNLABELLED, probs, (strokes == classes).to(probs.dtype))
