"""The device to compute on, and PyTorch's settings: threads, precision and determinism."""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import torch


def use_threads(count: int) -> None:
    """Limit the threads of PyTorch and OpenCV in this process to `count`; by default each library uses all cores."""
    torch.set_num_threads(count)
    # 0 also means one thread; with 1, OpenCV waits for its thread pool, which a forked process does not have
    cv2.setNumThreads(count if count > 1 else 0)


def choose_device(name: str) -> torch.device:
    """The device of a name.

    name: `cpu`, `cuda`, `cuda:N`, or `auto` for the first CUDA device if there is one, else the CPU
    Raises ValueError for a device that is unknown, unsupported or missing.
    """
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
    """Raise ValueError for float16 on a CPU, where it is slower than float32 and has no advantage over bfloat16."""
    if precision == "float16" and device.type == "cpu":
        raise ValueError("precision float16 needs a GPU; on a CPU use float32 or bfloat16")


@contextmanager
def deterministic(enabled: bool) -> Iterator[None]:
    """A context manager in which PyTorch uses deterministic algorithms only.

    If not enabled, cuDNN measures the algorithms of a convolution and uses the fastest: all clips have one size.
    Raises ValueError for an operator without a deterministic algorithm.
    """
    if not enabled:
        with _fastest_convolutions():
            yield
        return
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    was_warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
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
        torch.use_deterministic_algorithms(was_deterministic, warn_only=was_warn_only)


@contextmanager
def _fastest_convolutions() -> Iterator[None]:
    had_benchmark = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = had_benchmark
