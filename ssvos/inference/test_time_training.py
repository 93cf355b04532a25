"""Test-time training: a few steps on the first scribble of a video with the training loss, which needs no mask.

Published methods train at test time on a dense first mask. A scribble labels only a few pixels; partial cross-entropy
alone would ignore the others, while the scribble-supervised loss is defined on every pixel.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from ssvos.config import LossConfig, TestTimeTrainingConfig
from ssvos.data.augment import draw_variation, split_strokes
from ssvos.labels import binary_scribbles, object_ids
from ssvos.losses.joint import joint_loss
from ssvos.models.network import Network

_MAX_NORM = 1.0


def train_at_test_time(
    network: Network, frame: np.ndarray, scribble: np.ndarray, config: TestTimeTrainingConfig, loss: LossConfig
) -> Network:
    """Train a copy of the network on one frame, on all its objects together; the network itself does not change.

    Each step takes a clip of random variations of the frame. The same input gives the same weights.

    frame: (H, W, 3) uint8 RGB, at the network's input size.
    scribble: (H, W) uint8 of object ids, of the same size.
    returns: the trained copy, in evaluation mode.
    Raises FloatingPointError if the loss is NaN or infinite.
    """
    rng = np.random.default_rng(config.seed)
    ids = object_ids(scribble)
    with torch.inference_mode(False), torch.enable_grad():
        trained = copy.deepcopy(network).train()
        device = next(trained.parameters()).device
        weights = [parameter for parameter in trained.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(weights, lr=config.learning_rate)
        share = trained.config.input_share
        for _ in range(config.steps):
            frames, strokes, target = (part.to(device) for part in _draw(frame, scribble, ids, config, share, rng))
            optimizer.zero_grad(set_to_none=True)
            prediction = trained(frames, strokes)
            total = joint_loss(prediction, frames, target, loss, auxiliary_weight=0.0).total
            if not total.isfinite():
                raise FloatingPointError(
                    "predict.test_time_training: the loss is NaN or infinite; lower its learning_rate"
                )
            total.backward()  # type: ignore[no-untyped-call]  # not annotated in PyTorch
            clip_grad_norm_(weights, _MAX_NORM)
            optimizer.step()
    return trained.eval()


def _draw(
    frame: np.ndarray,
    scribble: np.ndarray,
    ids: Sequence[int],
    config: TestTimeTrainingConfig,
    share: float,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """One clip per object: frames (K, T, 3, H, W) in [0, 1], input strokes (K, H, W) and target (K, T, H, W)."""
    variations = [draw_variation(config.augment, rng) for _ in range(config.clip_frames)]
    # all frames of a clip are mirrored, or none
    variations = [replace(one, flip=variations[0].flip) for one in variations]
    frames = np.stack([one.frame(frame) for one in variations])
    strokes = np.stack([binary_scribbles(one.scribble(scribble), ids) for one in variations], axis=1)
    inputs = np.stack([split_strokes(one[0], share, rng) for one in strokes])
    stacked = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    return stacked.expand(len(ids), *stacked.shape), torch.from_numpy(inputs), torch.from_numpy(strokes)
