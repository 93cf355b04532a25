"""The CPUs, memory and GPUs of this machine, and the number of training workers that it can run."""

import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Machine:
    """A machine to plan a run for.

    cpus: CPUs that this process may use
    memory: memory, bytes
    num_gpus: number of GPUs
    gpu_name: name of the first GPU; empty: no GPU
    gpu_memory: memory of the first GPU, bytes
    """

    cpus: int
    memory: int
    num_gpus: int = 0
    gpu_name: str = ""
    gpu_memory: int = 0

    def workers(self, batch_clips: int, requested: int | None = None) -> int:
        """The number of training workers: one per GPU, or two on CPUs, fewer if the batch does not divide evenly.

        batch_clips: clips of a batch
        requested: another number; 0: one worker, in the stage's own process
        Raises ValueError if `requested` exceeds the machine's number or does not divide the batch.
        """
        if requested == 0:
            return 1
        limit, kind = (self.num_gpus, "GPUs") if self.num_gpus else (self.cpus, "CPUs")
        if requested and requested > limit:
            raise ValueError(f"workers: {requested} requested, the machine has {limit} {kind}; request at most {limit}")
        if requested and batch_clips % requested:
            raise ValueError(
                f"workers: {requested} do not divide a batch of {batch_clips} clips; request a divisor of it"
            )
        count = requested or min(self.num_gpus or min(2, self.cpus), batch_clips)
        while batch_clips % count:
            count -= 1
        return count

    def __str__(self) -> str:
        if self.num_gpus:
            count = f"{self.num_gpus} x " if self.num_gpus > 1 else ""
            return f"{count}{self.gpu_name}, {self.gpu_memory / 1e9:.0f} GB each, {self.cpus} CPU cores"
        return f"{self.cpus} CPU core{'s' if self.cpus > 1 else ''}, {self.memory / 1e9:.0f} GB memory, no GPU"


def this_machine(device: str = "auto") -> Machine:
    """The machine that this process runs on.

    device: `cpu`: without its GPUs; `cuda`: with its GPUs; `auto`: with its GPUs, if it has any
    Raises ValueError for `cuda` without a GPU.
    """
    import torch

    from ssvos.device import choose_device

    if choose_device(device).type == "cpu":
        return Machine(available_cpus(), _memory())
    first = torch.cuda.get_device_properties(0)
    return Machine(available_cpus(), _memory(), torch.cuda.device_count(), first.name, first.total_memory)


def available_cpus() -> int:
    """The number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resident_bytes() -> int:
    """Resident memory of this process, bytes; its peak on a system without /proc."""
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return peak_bytes()


def peak_bytes() -> int:
    """Peak resident memory of this process, bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage's value includes that of the parent process
        peaks = [line.split() for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if peaks:
            return int(peaks[0][1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _memory() -> int:
    """Memory of the machine, or the limit of the container, bytes."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in map(Path, _CGROUP_LIMITS):
        text = path.read_text().strip() if path.is_file() else ""
        limits += [int(text)] if text.isdigit() else []
    return min(limits)
