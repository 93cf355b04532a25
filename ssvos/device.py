"""Choosing a device by name, and how PyTorch computes on it."""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import torch


def use_threads(count: int) -> None:
    """The most threads that PyTorch and OpenCV take in this process: both would take every core, workers or not."""
    torch.set_num_threads(count)
    # 0 is one thread as well; asked for 1, OpenCV waits for the threads of its pool, which a forked process lacks
    cv2.setNumThreads(count if count > 1 else 0)


def choose_device(name: str) -> torch.device:
    """`auto` is the first CUDA device, or the CPU. ValueError for a device that is unknown or not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name!r}: unknown; use auto, cpu or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {name!r}: not supported; use auto, cpu or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name!r}: PyTorch sees {torch.cuda.device_count()} CUDA devices; use cpu or auto")
    return device


def require_precision(precision: str, device: torch.device) -> None:
    """ValueError for float16 on a CPU, where it would be slower than float32 and no more exact than bfloat16."""
    if precision == "float16" and device.type == "cpu":
        raise ValueError("precision float16 is for GPUs alone; on a CPU use float32 or bfloat16")


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Inside, PyTorch uses deterministic algorithms alone; ValueError for an operator that has none. Where that is not
    wanted, a GPU's convolutions are tried out and the fastest are taken: clips have one size."""
    if not wanted:
        with _fastest_convolutions():
            yield
        return
    was_on, only_warned = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    had_benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        if "determinis" not in reason.lower():
            raise
        remedy = "set CUBLAS_WORKSPACE_CONFIG=:4096:8 in the environment" if "CUBLAS" in reason else "set it to false"
        raise ValueError(f"train.deterministic: {reason.split(', but')[0][:200]}; {remedy}") from error
    finally:
        torch.backends.cudnn.benchmark = had_benchmark
        torch.use_deterministic_algorithms(was_on, warn_only=only_warned)


@contextmanager
def _fastest_convolutions() -> Iterator[None]:
    had_benchmark = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = had_benchmark
