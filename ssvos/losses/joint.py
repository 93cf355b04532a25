"""The joint loss (Eq. 19) of a predicted clip, with the auxiliary loss of the coarse branch."""

from typing import NamedTuple

import torch
from torch import Tensor

from ssvos.config import LossConfig
from ssvos.losses.dense_crf import regularizer
from ssvos.losses.partial_cross_entropy import partial_cross_entropy
from ssvos.losses.proximal import proximal_loss
from ssvos.models.network import ClipPrediction, upsample_coarse


class JointLoss(NamedTuple):
    """total = partial_cross_entropy + auxiliary weight * auxiliary + lambda * regularizer + proximal weight * proximal;
    all scalars."""

    total: Tensor
    partial_cross_entropy: Tensor
    auxiliary: Tensor
    regularizer: Tensor
    proximal: Tensor


def has_regularizer(config: LossConfig) -> bool:
    """Whether the dense-CRF term is taken."""
    return config.regularizer != "none" and config.weight > 0


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
    regularized: frame indices (B, R) on which the regularizer and the proximal loss are taken; None: all.
    """
    height, width = target.shape[-2:]
    logits, labels = prediction.logits.flatten(0, 1).float(), target.flatten(0, 1)
    pce = partial_cross_entropy(logits, labels, config.balance)
    auxiliary = energy = proximal = pce.new_zeros(())
    if auxiliary_weight > 0:
        coarse = upsample_coarse(prediction.coarse_logits.flatten(0, 1).float(), height, width)
        auxiliary = partial_cross_entropy(coarse, labels, config.balance)
    chosen = slice(None)
    if regularized is not None:
        chosen = (torch.arange(len(frames), device=frames.device)[:, None], regularized)
    if has_regularizer(config):
        probs = prediction.logits[chosen].float().softmax(dim=2)
        energy = regularizer(probs.flatten(0, 1), frames[chosen].flatten(0, 1), config)
    if config.proximal.weight > 0:
        parts = (prediction.logits[chosen].float(), frames[chosen], target[chosen])
        proximal = proximal_loss(*(part.flatten(0, 1) for part in parts), config.proximal)
    total = pce + auxiliary_weight * auxiliary + config.weight * energy + config.proximal.weight * proximal
    return JointLoss(total, pce, auxiliary, energy, proximal)
