"""Targets where no stroke is: the confident masks of a teacher, which sees more strokes than the network in training.

The network in training gets a part of the first frame's strokes and propagates. The teacher, its running average, gets
all strokes of every frame, segments each frame by itself, and lets the dense CRF correct the outline.
"""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate

from ssvos.config import LossConfig
from ssvos.labels import UNLABELLED
from ssvos.losses.proximal import refined_mask
from ssvos.models.grid import outside_strokes
from ssvos.models.network import Network

_CERTAIN = 20.0  # log-odds of background


@torch.no_grad()
def teacher_targets(teacher: Network, frames: Tensor, target: Tensor, config: LossConfig) -> Tensor:
    """The teacher's confident labels.

    frames: (B, T, 3, H, W) in [0, 1]
    target: strokes of every frame, (B, T, H, W) of 0, 1, 255
    returns: (B, T, H, W) of 0, 1, 255; strokes keep their label, and a frame without a stroke on the object has no
        other labels
    """
    batch, height, width = len(frames), *frames.shape[-2:]
    images, strokes = frames.flatten(0, 1), target.flatten(0, 1)
    trunk = teacher.encode(images)
    logits, _, _ = teacher.first_step(trunk, teacher.begin(trunk, strokes))
    logits = logits[..., :height, :width].float()
    if config.teacher.outside:
        outside = outside_strokes(strokes, 1)[:, None]
        logits = torch.cat([logits[:, :1], logits[:, 1:].masked_fill(outside, -_CERTAIN)], dim=1)
    mask = refined_mask(logits, images, strokes, config.proximal)
    foreground = interpolate(mask[:, 1:], size=(height, width), mode="bilinear", align_corners=False)[:, 0]
    labels = torch.full_like(strokes, UNLABELLED)
    labels[foreground >= config.teacher.confident] = 1
    labels[foreground <= 1 - config.teacher.confident] = 0
    if config.teacher.outside:
        labels[outside[:, 0]] = 0
    has_object = (strokes == 1).flatten(1).any(dim=1)[:, None, None]
    labels = torch.where((strokes != UNLABELLED) | ~has_object, strokes, labels)
    return rearrange(labels, "(b t) h w -> b t h w", b=batch)
