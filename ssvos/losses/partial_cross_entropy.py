"""Partial cross-entropy (Eq. 11): cross-entropy on the labelled pixels only."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ssvos.labels import UNLABELLED


def partial_cross_entropy(logits: Tensor, target: Tensor, balance: Literal["pixel", "class"] = "class") -> Tensor:
    """Mean over the labelled pixels of each frame, then over the frames.

    A frame without a labelled pixel counts as 0, so that the value does not depend on how a batch is split.

    logits: (N, 2, H, W)
    target: (N, H, W) of 0, 1 and 255 (unlabelled)
    balance: `pixel` averages over pixels as (11) does; `class` averages background and foreground strokes separately,
        then over the classes that the frame has, because background strokes have several times more pixels
    returns: a scalar
    """
    # Paper gap: q(i) as printed counts foreground strokes only, and predicting foreground everywhere minimises that;
    # background strokes are targets here as well.
    target = target.long()
    per_pixel = cross_entropy(logits, target, ignore_index=UNLABELLED, reduction="none").flatten(1)
    target = target.flatten(1)
    if balance == "pixel":
        labelled = (target != UNLABELLED).sum(dim=1)
        return (per_pixel.sum(dim=1) / labelled.clamp(min=1)).mean()
    means, present = [], []
    for label in (0, 1):
        inside = target == label
        count = inside.sum(dim=1)
        means.append((per_pixel * inside).sum(dim=1) / count.clamp(min=1))
        present.append(count > 0)
    num_classes = torch.stack(present).sum(dim=0).clamp(min=1)
    return (torch.stack(means).sum(dim=0) / num_classes).mean()
