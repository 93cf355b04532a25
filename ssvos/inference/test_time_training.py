"""Online learning: a few steps on a video's own first scribble, with the losses of training, which need no mask.

Other methods that learn online have a dense first mask to learn from; a scribble labels a few pixels, and partial
cross-entropy on these alone would forget the rest. The scribble-supervised loss speaks of every pixel.
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
    """A copy of the network that has learnt from one frame, all its objects together; the network itself is unchanged.

    frame: (H, W, 3) uint8 RGB; scribble: (H, W) uint8 of ids, both at the size the network works at. The same input
    gives the same weights. A step's clip is the frame and variations of it, as a camera would see it that moves.
    """
    rng = np.random.default_rng(config.seed)
    ids = object_ids(scribble)
    with torch.inference_mode(False), torch.enable_grad():
        learner = copy.deepcopy(network).train()
        device = next(learner.parameters()).device
        weights = [parameter for parameter in learner.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(weights, lr=config.learning_rate)
        share = learner.config.input_share
        for _ in range(config.steps):
            frames, given, target = (part.to(device) for part in _draw(frame, scribble, ids, config, share, rng))
            optimizer.zero_grad(set_to_none=True)
            prediction = learner(frames, given)
            total = joint_loss(prediction, frames, target, loss, auxiliary_weight=0.0).total
            if not total.isfinite():
                raise FloatingPointError("predict.test_time_training: the loss is not finite; lower its learning_rate")
            total.backward()
            clip_grad_norm_(weights, _MAX_NORM)
            optimizer.step()
    return learner.eval()


def _draw(
    frame: np.ndarray,
    scribble: np.ndarray,
    ids: Sequence[int],
    config: TestTimeTrainingConfig,
    share: float,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """A clip an object: frames (K, T, 3, H, W) in [0, 1], the strokes that are given (K, H, W), target (K, T, H, W)."""
    variations = [draw_variation(config.augment, rng) for _ in range(config.clip_frames)]
    # one clip is not mirrored half-way
    variations = [replace(one, flip=variations[0].flip) for one in variations]
    frames = np.stack([one.frame(frame) for one in variations])
    strokes = np.stack([binary_scribbles(one.scribble(scribble), ids) for one in variations], axis=1)
    given = np.stack([split_strokes(one[0], share, rng) for one in strokes])
    stacked = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    return stacked.expand(len(ids), *stacked.shape), torch.from_numpy(given), torch.from_numpy(strokes)
