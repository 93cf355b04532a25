"""What the network computes for a frame, and the state that it carries from frame to frame."""

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ssvos.models.appearance import Gaussians
from ssvos.models.attention import Strokes
from ssvos.models.backbone import Trunk, select_images
from ssvos.models.memory import MemoryState


class FrameFeatures(NamedTuple):
    """Features of a frame for each of N objects, before the state is used.

    appearance: embedding for the appearance model, (N, D, h, w)
    reduced: the frame's part of the first convolution of mask propagation, (N, P, h, w)
    """

    appearance: Tensor
    reduced: Tensor


class DecoderFeatures(NamedTuple):
    """Features of an image at strides 8 and 4, for the up-sampling.

    s8, s4: the image's parts of the refining convolutions, (N, E, H/8, W/8) and (N, E, H/4, W/4)
    shallow: embedding for the shallow appearance model, (N, D, H/4, W/4); None without one
    """

    s8: Tensor
    s4: Tensor
    shallow: Tensor | None


class State(NamedTuple):
    """The state of N objects after a frame; its size does not grow with the video.

    image_idx: index of each object's image in the batch of frames, (N,); None: one object per image, in order
    strokes: the cells that scribble attention attends to; None for other attention
    gaussians: the appearance model
    mask: coarse mask of the previous frame as probabilities, (N, 2, h, w)
    first: the initial frame's part of the first convolution of mask propagation, (N, P, h, w)
    shallow: the shallow appearance model; None without one
    memory: None without a memory
    """

    image_idx: Tensor | None
    strokes: Strokes | None
    gaussians: Gaussians
    mask: Tensor
    first: Tensor
    shallow: Gaussians | None
    memory: MemoryState | None


class StepOutput(NamedTuple):
    """The prediction for one frame.

    encoding: coarse mask encoding, (N, E, h, w)
    coarse_logits: (N, 2, h, w)
    shallow_scores: scores of the shallow appearance model, (N, 4, H/4, W/4); None without one
    fine_logits: (N, 2, H, W) if the state uses the fine mask; None if they are not computed yet
    """

    encoding: Tensor
    coarse_logits: Tensor
    shallow_scores: Tensor | None
    fine_logits: Tensor | None


class ClipPrediction(NamedTuple):
    """The prediction for a batch of clips; channel 0 is background.

    logits: (B, T, 2, H, W)
    coarse_logits: at the padded size, (B, T, 2, h, w)
    """

    logits: Tensor
    coarse_logits: Tensor


Maps = TypeVar("Maps", Trunk, FrameFeatures, DecoderFeatures)


def select_image_maps(maps: Maps, image_idx: Tensor | None) -> Maps:
    """`select_images` of every map that is not None."""
    return type(maps)._make(x if x is None else select_images(x, image_idx) for x in maps)


def split_frames(maps: Maps, batch: int) -> list[Maps]:
    """Maps of a batch of clips, (T*B, ...) with time first -> one tuple of maps (B, ...) per frame."""
    starts = range(0, len(maps[0]), batch)
    return [type(maps)._make(x if x is None else x[start : start + batch] for x in maps) for start in starts]


def concatenate_frames(maps: list[Tensor | None]) -> Tensor | None:
    """One map per frame, (B, ...) each, or None for every frame -> (T*B, ...) with time first, or None."""
    present = [x for x in maps if x is not None]
    return torch.cat(present) if present else None


def repeat_strokes(strokes: Strokes | None, length: int) -> Strokes | None:
    """The initial frame's strokes for every frame of a clip, time first."""
    if strokes is None:
        return None
    return Strokes(strokes.features.repeat(length, 1, 1), strokes.is_stroke.repeat(length, 1))
