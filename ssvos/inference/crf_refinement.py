"""CRF refinement: mean-field inference of the dense CRF whose energy (12)-(16) the training loss uses.

Training lowers the energy of the network's masks on average over frames. Refinement lowers it for one frame, so its
outlines follow the image, not a feature map at stride 4 (Krähenbühl & Koltun 2011, with the Potts model).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ssvos.config import ColorModelConfig, CrfRefinementConfig
from ssvos.inference.color_model import ColorModel, color_bins
from ssvos.labels import UNLABELLED
from ssvos.losses.dense_crf import crf_features
from ssvos.losses.mean_field import mean_field
from ssvos.losses.permutohedral import LatticeFilter

_CLAMP = 1e-6


class CrfRefiner:
    """Refines the masks of one video frame by frame: adds the evidence of the color model, then runs mean-field
    inference. With both switched off, masks do not change.
    """

    def __init__(self, refinement: CrfRefinementConfig, color: ColorModelConfig):
        self.refinement = refinement
        self._color_model = ColorModel(color) if color.weight else None
        self._num_known = 1  # classes that have begun, the background included

    def __call__(self, probs: Tensor, image: np.ndarray, frame: Tensor, strokes: Tensor | None = None) -> Tensor:
        """Refine the soft masks of the next frame.

        probs: of the background and the objects, (C, H, W); objects are in the order in which they begin.
        image: (H, W, 3) uint8 RGB.
        frame: the same image as network input, (1, 3, H, W) in [0, 1].
        strokes: on a frame on which objects begin, class indices and 255 for unlabelled, (H, W).
        returns: (C, H, W).
        """
        if not (self._color_model or self.refinement.iterations):
            return probs
        infer, logs = self._mean_field(frame), probs.clamp(min=_CLAMP).log()
        if self._color_model is None:
            return infer(logs)
        bins = color_bins(image, self._color_model.config.bins).to(probs.device)
        if strokes is not None and len(probs) > self._num_known:
            self._learn(self._color_model, infer, logs, bins, strokes)
        return infer(logs + self._color_model.evidence(bins))

    def _learn(
        self, model: ColorModel, infer: Callable[[Tensor], Tensor], logs: Tensor, bins: Tensor, strokes: Tensor
    ) -> None:
        """Learn the colors of the new classes from the frame's mask, then from the mask that these colors give."""
        probs = infer(logs)
        for number in range(model.config.rounds):
            if number:
                probs = infer(logs + model.evidence(bins))
            model.learn(bins, _with_strokes(probs, strokes), self._num_known)
        self._num_known = len(logs)

    def _mean_field(self, frame: Tensor) -> Callable[[Tensor], Tensor]:
        """The inference of one frame: unnormalised log-probabilities (C, H, W) -> probabilities (C, H, W)."""
        config = self.refinement
        if not config.iterations:
            return lambda logs: logs.softmax(dim=0)
        # built once a frame: the inference may run several times
        kernel = LatticeFilter(crf_features(frame, config.sigma_xy * frame.shape[-2], config.sigma_rgb))
        return lambda logs: mean_field(logs.flatten(1)[None], kernel, config.weight, config.iterations)[0].view_as(logs)


def _with_strokes(probs: Tensor, strokes: Tensor) -> Tensor:
    """Probabilities (C, H, W), set to 0 and 1 under the strokes."""
    classes = torch.arange(len(probs), device=probs.device)[:, None, None]
    return torch.where(strokes == UNLABELLED, probs, (strokes == classes).to(probs.dtype))
