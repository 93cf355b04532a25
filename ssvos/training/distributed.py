"""This process among those of a DDP run; alone it is rank 0 of 1."""

import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean of every rank's `values`, on the CPU; all ranks must call it."""
    if world_size() == 1:
        return values
    on_gpu = dist.get_backend() == "nccl"
    moved = values.float().cuda() if on_gpu else values.clone()
    dist.all_reduce(moved)
    return moved.cpu().to(values.dtype) / world_size()
