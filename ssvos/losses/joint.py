"""The joint loss (Eq. 19) of a predicted clip, with the auxiliary loss of the coarse branch."""

from typing import NamedTuple

import torch
from torch import Tensor

from ssvos.config import LossConfig
from ssvos.losses.dense_crf import regularizer
from ssvos.losses.partial_cross_entropy import partial_cross_entropy
from ssvos.models.network import ClipPrediction, upsample_coarse


class JointLoss(NamedTuple):
    """total = partial_cross_entropy + auxiliary weight * auxiliary + lambda * regularizer; all scalars."""

    total: Tensor
    partial_cross_entropy: Tensor
    auxiliary: Tensor
    regularizer: Tensor


def joint_loss(
    prediction: ClipPrediction,
    frames: Tensor,
    target: Tensor,
    config: LossConfig,
    auxiliary_weight: float,
    regularized: Tensor | None = None,
) -> JointLoss:
    """Loss of a batch of clips.

    frames: (B, T, 3, H, W) in [0, 1]; target: (B, T, H, W) of 0, 1, 255.
    regularized: frame indices (B, R) on which the regularizer is taken; None: all.
    """
    height, width = target.shape[-2:]
    logits, labels = prediction.logits.flatten(0, 1).float(), target.flatten(0, 1)
    pce = partial_cross_entropy(logits, labels, config.balance)
    auxiliary = energy = pce.new_zeros(())
    if auxiliary_weight > 0:
        coarse = upsample_coarse(prediction.coarse_logits.flatten(0, 1).float(), height, width)
        auxiliary = partial_cross_entropy(coarse, labels, config.balance)
    if config.regularizer != "none" and config.weight > 0:
        probs = prediction.logits.float().softmax(dim=2)
        if regularized is not None:
            clip = torch.arange(len(frames), device=frames.device)[:, None]
            probs, frames = probs[clip, regularized], frames[clip, regularized]
        energy = regularizer(probs.flatten(0, 1), frames.flatten(0, 1), config)
    total = pce + auxiliary_weight * auxiliary + config.weight * energy
    return JointLoss(total, pce, auxiliary, energy)
