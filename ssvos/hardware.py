"""What a run is planned for: the CPUs, memory and GPUs of this machine, and how a batch is shared out among workers."""

import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Machine:
    """cpus: that this process may use. memory, gpu_memory: bytes; gpu_name, gpu_memory: of the first GPU, if any."""

    cpus: int
    memory: int
    num_gpus: int = 0
    gpu_name: str = ""
    gpu_memory: int = 0

    def workers(self, batch_clips: int, asked: int | None = None) -> int:
        """How many workers train: one a GPU, or two on CPUs, fewer where the batch does not divide evenly. `asked`
        sets another number; 0 is training in the stage's own process.

        Raises ValueError if `asked` is more than the machine has or does not divide the batch.
        """
        if asked == 0:
            return 1
        limit, kind = (self.num_gpus, "GPUs") if self.num_gpus else (self.cpus, "CPUs")
        if asked and asked > limit:
            raise ValueError(f"workers: {asked} asked for, there are {limit} {kind}; ask for at most that")
        if asked and batch_clips % asked:
            raise ValueError(f"workers: a batch of {batch_clips} clips cannot be shared by {asked}; ask for a divisor")
        count = asked or min(self.num_gpus or min(2, self.cpus), batch_clips)
        while batch_clips % count:
            count -= 1
        return count

    def __str__(self) -> str:
        if self.num_gpus:
            count = f"{self.num_gpus} x " if self.num_gpus > 1 else ""
            return f"{count}{self.gpu_name}, {self.gpu_memory / 1e9:.0f} GB each, {self.cpus} CPU cores"
        return f"{self.cpus} CPU core{'s' if self.cpus > 1 else ''}, {self.memory / 1e9:.0f} GB memory, no GPU"


def this_machine(device: str = "auto") -> Machine:
    """device: `cpu` leaves GPUs out of account, `cuda` wants one (ValueError), `auto` takes what is there."""
    import torch

    from ssvos.device import choose_device

    if choose_device(device).type == "cpu":
        return Machine(available_cpus(), _memory())
    first = torch.cuda.get_device_properties(0)
    return Machine(available_cpus(), _memory(), torch.cuda.device_count(), first.name, first.total_memory)


def available_cpus() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resident_bytes() -> int:
    """Memory that this process holds, in bytes; where the system does not tell, the most it has held."""
    told = Path("/proc/self/statm")
    if told.is_file():
        return int(told.read_text().split()[1]) * resource.getpagesize()
    return peak_bytes()


def peak_bytes() -> int:
    """The most memory that this process has held, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage's figure holds that of the process which started this one
        told = [line.split() for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if told:
            return int(told[0][1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _memory() -> int:
    """Bytes of memory, or of a container's share of it."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in map(Path, _CGROUP_LIMITS):
        text = path.read_text().strip() if path.is_file() else ""
        limits += [int(text)] if text.isdigit() else []
    return min(limits)
