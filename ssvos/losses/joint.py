"""The joint loss (Eq. 19) of a predicted clip, with the auxiliary loss of the coarse branch."""

from typing import NamedTuple

import torch
from torch import Tensor

from ssvos.config import LossConfig
from ssvos.losses.dense_crf import regularizer
from ssvos.losses.partial_cross_entropy import partial_cross_entropy
from ssvos.losses.proximal import proximal_loss
from ssvos.models.grid import upsample_coarse
from ssvos.models.state import ClipPrediction


class JointLoss(NamedTuple):
    """The terms, all scalars, and their weighted sum.

    total = partial_cross_entropy + auxiliary weight * auxiliary + lambda * regularizer + proximal weight * proximal
        + teacher weight * teacher
    """

    total: Tensor
    partial_cross_entropy: Tensor
    auxiliary: Tensor
    regularizer: Tensor
    proximal: Tensor
    teacher: Tensor


def has_regularizer(config: LossConfig) -> bool:
    """Whether the loss has a dense-CRF term."""
    return config.regularizer != "none" and config.weight > 0


def joint_loss(
    prediction: ClipPrediction,
    frames: Tensor,
    target: Tensor,
    config: LossConfig,
    auxiliary_weight: float,
    regularized: Tensor | None = None,
    taught: Tensor | None = None,
) -> JointLoss:
    """Loss of a batch of clips.

    frames: (B, T, 3, H, W) in [0, 1]
    target: (B, T, H, W) of 0, 1, 255
    auxiliary_weight: weight of the partial cross-entropy of the coarse mask; 0: not computed
    regularized: frame indices (B, R) on which the regularizer and the proximal loss are computed; None: all frames
    taught: the teacher's labels, (B, T, H, W) of 0, 1, 255; None without a teacher
    """
    height, width = target.shape[-2:]
    logits, labels = prediction.logits.flatten(0, 1).float(), target.flatten(0, 1)
    pce = partial_cross_entropy(logits, labels, config.balance)
    auxiliary = energy = proximal = teacher = pce.new_zeros(())
    if auxiliary_weight > 0:
        coarse = upsample_coarse(prediction.coarse_logits.flatten(0, 1).float(), height, width)
        auxiliary = partial_cross_entropy(coarse, labels, config.balance)
    if has_regularizer(config):
        probs = _select(prediction.logits, regularized).float().softmax(dim=1)
        energy = regularizer(probs, _select(frames, regularized), config)
    if config.proximal.weight > 0:
        chosen_logits = _select(prediction.logits, regularized).float()
        proximal = proximal_loss(
            chosen_logits, _select(frames, regularized), _select(target, regularized), config.proximal
        )
    if taught is not None:
        teacher = partial_cross_entropy(logits, taught.flatten(0, 1), "pixel")
    total = pce + auxiliary_weight * auxiliary + config.weight * energy + config.proximal.weight * proximal
    total = total + config.teacher.weight * teacher
    return JointLoss(total, pce, auxiliary, energy, proximal, teacher)


def _select(clips: Tensor, indices: Tensor | None) -> Tensor:
    """Frames of clips (B, T, ...) at indices (B, R), or all frames, as one batch (B*R, ...)."""
    if indices is not None:
        clips = clips[torch.arange(len(clips), device=clips.device)[:, None], indices]
    return clips.flatten(0, 1)
