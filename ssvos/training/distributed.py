"""Rank and size of the process group of a DDP run; a process without a group is rank 0 of 1."""

import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    """The rank of this process."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean of `values` over all ranks, on the CPU. Every rank must call it."""
    if world_size() == 1:
        return values
    is_nccl = dist.get_backend() == "nccl"  # which reduces tensors on a GPU
    total = values.float().cuda() if is_nccl else values.clone()
    dist.all_reduce(total)
    return total.cpu().to(values.dtype) / world_size()
