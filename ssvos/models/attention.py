"""Scribble attention (III-C, Eqs. 8-10): every position attends only to the foreground strokes of the initial frame."""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from ssvos.config import AttentionConfig


class Strokes(NamedTuple):
    """Features at foreground-stroke positions, padded to the longest sample.

    features: (N, S, C)
    is_stroke: which of the S are strokes and not padding, (N, S) bool
    """

    features: Tensor
    is_stroke: Tensor


def gather_strokes(features: Tensor, has_stroke: Tensor) -> Strokes:
    """Gather the features (N, C, H, W) at which `has_stroke` (N, H, W) is true.

    Attention then needs a matrix of HW x S, not of HW x HW.
    """
    flat = has_stroke.flatten(1)
    # a compiled graph has fixed shapes: it gathers all cells and masks those without a stroke
    longest = flat.shape[1] if torch.compiler.is_compiling() else max(1, int(flat.sum(dim=1).max()))
    position = flat.int().argsort(dim=1, descending=True, stable=True)[:, :longest]
    columns = rearrange(features, "n c h w -> n (h w) c")
    gathered = columns.gather(1, position[..., None].expand(-1, -1, columns.shape[-1]))
    return Strokes(gathered, flat.gather(1, position))


class QueryKeyValue(nn.Module):
    """The parameters of scribble attention, shared by the variants that also weight positions by query and key.

    The printed sizes (key, query, value to C/2) need a 1x1 convolution back to C for the sum in (10). gamma (`scale`)
    starts at `config.initial_scale`, 0 by default.
    """

    def __init__(self, channels: int, config: AttentionConfig):
        super().__init__()
        self.query = nn.Linear(channels, channels // 2)
        self.key = nn.Linear(channels, channels // 2)
        self.value = nn.Linear(channels, channels // 2)
        self.back = nn.Linear(channels // 2, channels)
        self.scale = nn.Parameter(torch.full((1,), config.initial_scale))
        self.affinity_scale = (channels // 2) ** -0.5 if config.scaled else 1.0


class ScribbleAttention(QueryKeyValue):
    """Z = gamma * O + X, with O gathered from the stroke positions (Eqs. 8-10)."""

    def forward(self, x: Tensor, strokes: Strokes) -> Tensor:
        """Attend from every position of x (N, C, H, W) to the strokes of the same sample.

        returns: (N, C, H, W); a sample without strokes is unchanged
        """
        has_any = strokes.is_stroke.any(dim=1)
        # softmax over an empty set is NaN: a sample without strokes attends to its padding and is zeroed below
        allowed = strokes.is_stroke | ~has_any[:, None]
        # one head: without a head dimension PyTorch builds the whole affinity matrix
        context = scaled_dot_product_attention(
            self.query(rearrange(x, "n c h w -> n 1 (h w) c")),
            self.key(strokes.features)[:, None],
            self.value(strokes.features)[:, None],
            attn_mask=allowed[:, None, None, :],
            scale=self.affinity_scale,
        )[:, 0]
        output: Tensor = self.back(context)
        scale = self.scale * has_any[:, None, None, None]
        return x + scale * rearrange(output, "n (h w) c -> n c h w", h=x.shape[-2])
