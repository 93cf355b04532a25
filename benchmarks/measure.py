"""Shared by the benchmarks: the machine, interleaved timing, peak memory, and the unit of speed."""

import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ssvos.config import BackboneConfig
from ssvos.files import write_text
from ssvos.models.resnet import ResNet

RESULTS = Path(__file__).parent / "results"


def use_precision(name: str) -> torch.dtype:
    """Set the precision of the network: float32, bfloat16 or tf32 -> the data type for autocast.

    tf32 is float32 whose convolutions and matrix products a GPU computes with 10-bit mantissas. In a bfloat16 network,
    operations that stay in float32 use full float32.
    """
    is_tf32 = name == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = is_tf32
    return torch.float32 if is_tf32 else getattr(torch, name)


def machine(device: torch.device, threads: int) -> dict:
    """Processor or GPU, threads, versions and load average. Turns TF32 off."""
    use_precision("float32")
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, {platform.system()}"
    on_gpu = device.type == "cuda"
    gpu_info = {"cuda_version": torch.version.cuda, "tf32": "off, but in runs of dtype tf32"} if on_gpu else {}
    return {
        "machine": f"{torch.cuda.get_device_name(device)}; {processor}" if on_gpu else processor,
        "threads": threads,
        "torch": torch.__version__,
        "load_average_before": round(os.getloadavg()[0], 1),
        "cuda": "run" if on_gpu else "not run: no GPU in this machine",
    } | gpu_info


def interleaved_times(
    functions: Mapping[str, Callable[[], object]], repeats: int, device: torch.device
) -> dict[str, float]:
    """Median seconds of each function. The calls are interleaved, so other load on the machine affects all alike."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    warm_ups = 3 if device.type == "cuda" else 1  # the first calls on a GPU load kernels and raise its clock
    for turn in range(warm_ups + repeats):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn >= warm_ups:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def plain_forward(frames: Tensor) -> Callable[[], object]:
    """The unit of speed: a forward pass of ResNet-101 as published, on all frames (N, 3, H, W).

    Layer4 is at stride 32, batch normalisation is a separate operation, and there is no classifier.
    """
    network = ResNet(BackboneConfig()).to(frames.device).eval()
    first, *others = network.layer4
    first.conv2.stride = first.downsample[0].stride = (2, 2)
    for block in others:
        block.conv2.dilation = block.conv2.padding = (1, 1)

    def layer(x: Tensor, blocks: torch.nn.Module) -> Tensor:
        for block in blocks:
            out = block.relu(block.bn1(block.conv1(x)))
            out = block.relu(block.bn2(block.conv2(out)))
            out = block.bn3(block.conv3(out))
            x = block.relu(out + (x if block.downsample is None else block.downsample(x)))
        return x

    @torch.inference_mode()
    def forward() -> Tensor:
        x = network.maxpool(network.relu(network.bn1(network.conv1(frames))))
        for blocks in (network.layer1, network.layer2, network.layer3, network.layer4):
            x = layer(x, blocks)
        return x

    return forward


def peak_gib(device: torch.device) -> float:
    """Peak memory so far in GiB: of this process, or allocated on the GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage includes the parent process's peak
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30  # bytes on macOS


def rounded(seconds: float) -> float:
    """Rounded to microseconds, because a step on a GPU takes a few milliseconds."""
    return round(seconds, 6)


def write(path: Path, result: dict) -> None:
    """Write a result as JSON and print it."""
    text = json.dumps(result, indent=2)
    write_text(path, text + "\n")
    print(text)
