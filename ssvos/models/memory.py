"""Memory of labelled cells, not in the paper.

For every cell it reads the labels of the most similar cells of the first frame and of recent frames.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from ssvos.config import MemoryConfig
from ssvos.models.attention import gather_strokes

_INITIAL_SHARPNESS = 16.0  # a cosine that is higher by 0.1 then has five times the weight
_EPSILON = 1e-6  # added to a squared length: a cell whose features are all 0 then has a finite gradient
_MASK_OFFSET = 4.0  # larger than the difference of any two cosines
_PAIRS_AT_ONCE = 2**20  # pairs of a cell and a stored cell that are compared at a time; they fit into a CPU's cache
NUM_READOUTS = 4  # per set of stored cells


class StoredCells(NamedTuple):
    """Stored cells of N objects.

    keys: of length 1, (N, M, K)
    labels: shares of background and foreground, (N, M, 2); 0 in both: an empty slot
    """

    keys: Tensor
    labels: Tensor


class MemoryState(NamedTuple):
    """What the memory stores.

    first: labelled cells of the initial frame, padded to the longest sample
    recent: all cells of the latest frames, newest first, uncertain cells without a label; None if no frames are stored
    """

    first: StoredCells
    recent: StoredCells | None


class Memory(nn.Module):
    """Compares every cell's key with the stored keys, and reads the labels of the stored cells.

    Keys have length 1 and are compared by their cosine. Scaled dot products would suffice for the weights of a softmax,
    but the memory also reads the cosine of the nearest cell, which must have the same meaning on every frame. The
    sharpness of the softmax is learnt (`sharpness`, a logarithm).
    """

    def __init__(self, in_channels: int, config: MemoryConfig):
        super().__init__()
        self.config = config
        self.project = nn.Conv2d(in_channels, config.channels, 1)
        self.sharpness = nn.Parameter(torch.full((1,), _INITIAL_SHARPNESS).log())

    @property
    def num_readouts(self) -> int:
        """Number of channels that `read` returns."""
        return NUM_READOUTS * (2 if self.config.frames else 1)

    def embed(self, features: Tensor) -> Tensor:
        """Features (N, C, h, w) -> keys (N, K, h, w).

        The keys are float32 or finer, because small differences decide which of many similar cells is the nearest.
        """
        keys: Tensor = self.project(features)
        keys = keys.float() if keys.dtype.itemsize < 4 else keys
        return keys * (keys.square().sum(dim=1, keepdim=True) + _EPSILON).rsqrt()

    def start(self, keys: Tensor, shares: Tensor) -> MemoryState:
        """Store the initial frame.

        keys: (N, K, h, w)
        shares: of background and foreground among a cell's labelled pixels, (N, 2, h, w); 0 in both for a cell without
            a labelled pixel
        """
        labelled, _ = gather_strokes(torch.cat([keys, shares.to(keys.dtype)], dim=1), shares.sum(dim=1) > 0)
        # padding contains the features of other cells, which have no label either
        first = StoredCells(labelled[..., : self.config.channels], labelled[..., self.config.channels :])
        if not self.config.frames:
            return MemoryState(first, None)
        count = self.config.frames * keys.shape[-2] * keys.shape[-1]
        empty = StoredCells(keys.new_zeros(len(keys), count, keys.shape[1]), keys.new_zeros(len(keys), count, 2))
        return MemoryState(first, empty)

    def update(self, state: MemoryState, keys: Tensor, probs: Tensor) -> MemoryState:
        """Store a frame with its predicted mask (N, 2, h, w), in place of the oldest recent frame."""
        if state.recent is None:
            return state
        probs = probs.to(keys.dtype)
        labels = _flatten_cells(probs * (probs.amax(dim=1, keepdim=True) >= self.config.confident))
        num_old = state.recent.labels.shape[1] - labels.shape[1]
        recent = StoredCells(
            torch.cat([_flatten_cells(keys), state.recent.keys[:, :num_old]], dim=1),
            torch.cat([labels, state.recent.labels[:, :num_old]], dim=1),
        )
        return state._replace(recent=recent)

    def read(self, keys: Tensor, state: MemoryState) -> Tensor:
        """Read the labels of the stored cells: keys (N, K, h, w) -> (N, R, h, w), R = `num_readouts`.

        There are four channels for the initial frame, and four for the recent frames if any are stored: the mean labels
        of the stored cells, weighted by the softmax of their cosines (background, foreground); the cosine of the
        nearest background cell, and that of the nearest foreground cell. A channel is 0 if there is no such cell.
        """
        queries = _flatten_cells(keys)
        with torch.autocast(keys.device.type, enabled=False):
            readouts = torch.cat([self._read_cells(queries, cells) for cells in state if cells is not None], dim=2)
        return rearrange(readouts, "n (h w) r -> n r h w", h=keys.shape[-2])

    def _read_cells(self, queries: Tensor, cells: StoredCells) -> Tensor:
        return torch.cat([self._mean_labels(queries, cells), nearest_cosines(queries, cells)], dim=2)

    def _mean_labels(self, queries: Tensor, cells: StoredCells) -> Tensor:
        """Mean labels weighted by the softmax of the cosines: queries (N, P, K) -> (N, P, 2)."""
        labelled = cells.labels.sum(dim=2) > 0
        # softmax over an empty set is NaN: an empty memory attends to all its slots, whose labels are 0
        allowed = labelled | ~labelled.any(dim=1, keepdim=True)
        # PyTorch avoids the whole weight matrix only if values are as wide as keys, and only with a head dimension
        values = pad(cells.labels, (0, max(0, queries.shape[2] - 2)))
        mean = scaled_dot_product_attention(
            (queries * self.sharpness.exp())[:, None],
            cells.keys[:, None],
            values[:, None],
            attn_mask=allowed[:, None, None],
            scale=1.0,
        )
        return mean[:, 0, :, :2]


def nearest_cosines(queries: Tensor, cells: StoredCells) -> Tensor:
    """Cosines with the nearest background cell and with the nearest foreground cell.

    A cell is background if its label has more background than foreground, and foreground otherwise. The choice of the
    cell has no gradient, so all pairs are compared outside the graph and no comparison is stored.

    queries: (N, P, K)
    returns: (N, P, 2); 0 if there is no cell of that class
    """
    with torch.no_grad():
        foreground = cells.labels[..., 1] >= cells.labels[..., 0]
        is_class = torch.stack([~foreground, foreground], dim=1) & (cells.labels.sum(dim=2) > 0)[:, None]
        offset = torch.where(is_class, 0.0, -_MASK_OFFSET).to(queries.dtype)
        keys, chosen = cells.keys.transpose(1, 2), []
        for part in torch.split(queries, max(1, _PAIRS_AT_ONCE // max(1, is_class[:, 0].numel())), dim=1):
            cosines = part @ keys
            chosen.append(torch.stack([(cosines + offset[:, k, None]).argmax(dim=2) for k in range(2)], dim=2))
        nearest = torch.cat(chosen, dim=1)
    cosines_of_class = [
        (queries * cells.keys.gather(1, nearest[..., k, None].expand(-1, -1, queries.shape[2]))).sum(dim=2)
        for k in range(2)
    ]
    return torch.stack(cosines_of_class, dim=2) * is_class.any(dim=2)[:, None]


def _flatten_cells(maps: Tensor) -> Tensor:
    return rearrange(maps, "n c h w -> n (h w) c")
