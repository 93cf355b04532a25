"""Memory of labelled cells, beyond the paper: what the cells most like this one were labelled, on the first frame and
on recent ones."""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from ssvos.config import MemoryConfig
from ssvos.models.attention import gather_strokes

_SHARPNESS = 16.0  # to begin with: a cosine higher by 0.1 then weighs five times as much
_TINY = 1e-6  # beside a squared length: a cell without any features has a finite gradient
_BEYOND = 4.0  # further apart than any two cosines
_PAIRS = 2**20  # of a cell and a remembered one that are compared at a time; so many stay in a processor's cache
NUM_READOUTS = 4  # of one memory


class Cells(NamedTuple):
    """Remembered cells of N objects.

    keys: (N, M, K), of length 1. labels: (N, M, 2), shares of background and foreground; 0 in both: not remembered.
    """

    keys: Tensor
    labels: Tensor


class Remembered(NamedTuple):
    """first: labelled cells of the initial frame, padded to the longest sample. recent: all cells of the latest frames,
    newest first, those in doubt without a label; None where no frames are kept."""

    first: Cells
    recent: Cells | None


class Memory(nn.Module):
    """Compares every cell's key with the remembered ones, and reads what these were labelled.

    Keys have length 1 and are compared by their cosine. A scaled dot product would do for the weights of a softmax,
    but how near the nearest cell lies is read as well, and that needs numbers with the same meaning on every frame.
    How sharply the softmax prefers near cells is learnt (`sharpness`, a logarithm).
    """

    def __init__(self, in_channels: int, config: MemoryConfig):
        super().__init__()
        self.config = config
        self.project = nn.Conv2d(in_channels, config.channels, 1)
        self.sharpness = nn.Parameter(torch.full((1,), _SHARPNESS).log())

    @property
    def num_readouts(self) -> int:
        """Channels of what is read."""
        return NUM_READOUTS * (2 if self.config.frames else 1)

    def embed(self, features: Tensor) -> Tensor:
        """Features (N, C, h, w) -> keys (N, K, h, w), in single precision or finer: the best of many similar cells
        is found by small differences."""
        keys = self.project(features)
        keys = keys.float() if keys.dtype.itemsize < 4 else keys
        return keys * (keys.square().sum(dim=1, keepdim=True) + _TINY).rsqrt()

    def start(self, keys: Tensor, shares: Tensor) -> Remembered:
        """Remember the initial frame.

        keys: (N, K, h, w). shares: (N, 2, h, w), of background and foreground among a cell's labelled pixels; 0 in
        both where there is none.
        """
        labelled, _ = gather_strokes(torch.cat([keys, shares.to(keys.dtype)], dim=1), shares.sum(dim=1) > 0)
        # padding holds whatever lies at its place, which has no label either
        first = Cells(labelled[..., : self.config.channels], labelled[..., self.config.channels :])
        if not self.config.frames:
            return Remembered(first, None)
        count = self.config.frames * keys.shape[-2] * keys.shape[-1]
        nothing = Cells(keys.new_zeros(len(keys), count, keys.shape[1]), keys.new_zeros(len(keys), count, 2))
        return Remembered(first, nothing)

    def update(self, remembered: Remembered, keys: Tensor, probs: Tensor) -> Remembered:
        """Remember a frame by its predicted mask (N, 2, h, w), in the place of the oldest that is kept."""
        if remembered.recent is None:
            return remembered
        probs = probs.to(keys.dtype)
        labels = _columns(probs * (probs.amax(dim=1, keepdim=True) >= self.config.confident))
        kept = remembered.recent.labels.shape[1] - labels.shape[1]
        recent = Cells(
            torch.cat([_columns(keys), remembered.recent.keys[:, :kept]], dim=1),
            torch.cat([labels, remembered.recent.labels[:, :kept]], dim=1),
        )
        return remembered._replace(recent=recent)

    def read(self, keys: Tensor, remembered: Remembered) -> Tensor:
        """What the remembered cells say of every cell: keys (N, K, h, w) -> (N, R, h, w), R = `num_readouts`.

        Of the initial frame, then of the recent ones: the labels of all cells, weighed by the softmax of their cosines
        (background, foreground); the cosine of the nearest cell that is background, and of the nearest foreground.
        0 where there is no such cell.
        """
        queries = _columns(keys)
        with torch.autocast(keys.device.type, enabled=False):
            read = torch.cat([self._of(queries, cells) for cells in remembered if cells is not None], dim=2)
        return rearrange(read, "n (h w) r -> n r h w", h=keys.shape[-2])

    def _of(self, queries: Tensor, cells: Cells) -> Tensor:
        return torch.cat([self._expected(queries, cells), nearest(queries, cells)], dim=2)

    def _expected(self, queries: Tensor, cells: Cells) -> Tensor:
        """(N, P, 2), the labels expected at queries (N, P, K)."""
        labelled = cells.labels.sum(dim=2) > 0
        # softmax over nothing is NaN: an empty memory is read where its labels are 0
        allowed = labelled | ~labelled.any(dim=1, keepdim=True)
        # only values as wide as the keys are read without building all weights; one head, for the same reason
        values = pad(cells.labels, (0, max(0, queries.shape[2] - 2)))
        read = scaled_dot_product_attention(
            (queries * self.sharpness.exp())[:, None],
            cells.keys[:, None],
            values[:, None],
            attn_mask=allowed[:, None, None],
            scale=1.0,
        )
        return read[:, 0, :, :2]


def nearest(queries: Tensor, cells: Cells) -> Tensor:
    """Cosine of queries (N, P, K) with the nearest cell that is more background than foreground, and with the nearest
    that is no less foreground, (N, P, 2); 0 where there is none.

    Which cell that is has no gradient, so all pairs are compared outside the graph and none of them is kept.
    """
    with torch.no_grad():
        foreground = cells.labels[..., 1] >= cells.labels[..., 0]
        belongs = torch.stack([~foreground, foreground], dim=1) & (cells.labels.sum(dim=2) > 0)[:, None]
        handicap = torch.where(belongs, 0.0, -_BEYOND).to(queries.dtype)
        keys, chosen = cells.keys.transpose(1, 2), []
        for part in queries.split(max(1, _PAIRS // max(1, belongs[:, 0].numel())), dim=1):
            cosines = part @ keys
            chosen.append(torch.stack([(cosines + handicap[:, k, None]).argmax(dim=2) for k in range(2)], dim=2))
        place = torch.cat(chosen, dim=1)
    found = [
        (queries * cells.keys.gather(1, place[..., k, None].expand(-1, -1, queries.shape[2]))).sum(dim=2)
        for k in range(2)
    ]
    return torch.stack(found, dim=2) * belongs.any(dim=2)[:, None]


def _columns(maps: Tensor) -> Tensor:
    return rearrange(maps, "n c h w -> n (h w) c")
