"""Label propagation inside the network, not in the paper: every cell reads the labels of the cells that look like it.

It compares the backbone's features themselves, without learnt parameters. For frozen ImageNet features this is label
propagation (ssvos.baselines.label_propagation), whose result the fusion receives as evidence. No gradient flows through
it.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from ssvos.config import MemoryConfig
from ssvos.models.backbone import Trunk, select_images
from ssvos.models.grid import Move, cell_shares, outside_strokes
from ssvos.models.kernel_ridge import KernelRidge, fit_ridge, ridge_scores
from ssvos.models.matching import (
    KeyStatistics,
    Matches,
    StoredFrame,
    cell_keys,
    key_statistics,
    match_everywhere,
    match_window,
    move_frame,
    read_labels,
    with_newest,
)

NUM_READOUTS = 5
_OUTSIDE_SCORE = -2.0  # of cells that background strokes separate from the object


class MemoryState(NamedTuple):
    """What the memory stores.

    statistics: of the initial frame's features, for the keys of all frames
    ridge: classifier of each object, fitted to the strokes
    strokes: of the initial frame, which keep their labels: (N, 2, h, w) shares of background and foreground
    outside: cells of the initial frame that background strokes separate from the object, (N, 1, h, w) bool
    first: the initial frame, with the share of each object as label; None before it is predicted
    recent: recent frames, newest first
    number: of the next frame, from 0
    """

    statistics: KeyStatistics
    ridge: KernelRidge
    strokes: Tensor
    outside: Tensor
    first: StoredFrame | None
    recent: tuple[StoredFrame, ...]
    number: int


class Memory:
    """Reads labels from the initial frame and from recent frames."""

    def __init__(self, config: MemoryConfig):
        self.config = config

    @torch.no_grad()
    def start(self, trunk: Trunk, scribble: Tensor, stride: int, image_idx: Tensor | None) -> MemoryState:
        """The memory before the first step.

        scribble: padded, (N, H, W) of 0, 1, 255
        """
        statistics = key_statistics(trunk)
        keys = select_images(cell_keys(trunk, statistics), image_idx)
        shares = cell_shares(scribble, stride).to(keys.dtype)
        with torch.autocast(keys.device.type, enabled=False):  # small differences of cosines decide
            outside = outside_strokes(scribble, stride)
            ridge = fit_ridge(keys, shares, outside)
        return MemoryState(statistics, ridge, shares, outside[:, None], None, (), 0)

    @torch.no_grad()
    def read(self, keys: Tensor, state: MemoryState, image_idx: Tensor | None) -> Tensor:
        """Read the labels for the next frame: keys (M, D, h, w) of its images -> (N, 5, h, w).

        The channels are the score of the classifier; the labels, from -1 to 1, read from all stored frames, from the
        initial frame, and from recent frames; and the cosine of the best match. Channels without a stored frame are 0.
        """
        with torch.autocast(keys.device.type, enabled=False):
            return self._read(keys, state, image_idx)

    def _read(self, keys: Tensor, state: MemoryState, image_idx: Tensor | None) -> Tensor:
        config, (height, width) = self.config, keys.shape[-2:]
        score = ridge_scores(state.ridge, select_images(keys, image_idx))
        empty = score.new_zeros(len(score), NUM_READOUTS - 1, height, width)
        if state.first is None:
            return torch.cat([score.masked_fill(state.outside, _OUTSIDE_SCORE), empty], dim=1)
        first = [self._match(keys, state.first, image_idx, everywhere=True)]
        recent = [self._match(keys, frame, image_idx, everywhere=False) for frame in state.recent]
        planes = []
        for matches in ([*first, *recent], first, recent):
            if matches:
                labels = 2 * read_labels(matches, config.temperature, config.matches) - 1
                planes.append(_to_objects(labels, height, len(score)))
            else:
                planes.append(empty[:, :1])
        best = torch.stack([match.affinity[..., 0] for match in [*first, *recent]]).amax(dim=0)
        nearest = rearrange(best, "m (h w) -> m 1 h w", h=height)
        is_shared = len(nearest) < len(score)
        return torch.cat([score, *planes, select_images(nearest, image_idx) if is_shared else nearest], dim=1)

    @torch.no_grad()
    def update(self, state: MemoryState, keys: Tensor, probs: Tensor) -> MemoryState:
        """Store a frame with its predicted mask (N, 2, h, w)."""
        labels, number = probs[:, 1:].to(keys.dtype), state.number
        if state.first is None:
            labelled = state.strokes.sum(dim=1, keepdim=True) > 0
            first = StoredFrame(keys, torch.where(labelled, state.strokes[:, 1:], labels), number)
            return state._replace(first=first, number=number + 1)
        newest = StoredFrame(keys, labels, number)
        recent = with_newest(state.recent, newest, self.config.interval, self.config.frames)
        return state._replace(recent=recent, number=number + 1)

    @torch.no_grad()
    def move(self, state: MemoryState, size: tuple[int, int], stride: int, move: Move) -> MemoryState:
        """Recent frames in a new view, so that a cell and its surroundings stay at their place. The initial frame is
        compared everywhere and needs none. Arguments as for `grid.move_cells`."""
        return state._replace(recent=tuple(move_frame(frame, size, stride, move) for frame in state.recent))

    def _match(self, keys: Tensor, frame: StoredFrame, image_idx: Tensor | None, everywhere: bool) -> Matches:
        config, labels, stored = self.config, frame.labels, frame.keys
        if image_idx is not None and len(stored) == 1:  # all objects are of one image: compare its cells once
            labels = labels.transpose(0, 1)
        elif image_idx is not None:
            keys, stored = select_images(keys, image_idx), select_images(stored, image_idx)
        if everywhere:
            return match_everywhere(keys, stored, labels, config.matches)
        return match_window(keys, stored, labels, config.radius, config.matches)


def _to_objects(labels: Tensor, height: int, num_objects: int) -> Tensor:
    """Read labels (M, h*w, C) -> (N, 1, h, w)."""
    return rearrange(labels, "m (h w) c -> (m c) 1 h w", h=height, m=len(labels)).reshape(num_objects, 1, height, -1)
