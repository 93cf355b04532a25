"""Time and memory of one training step on synthetic frames."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ssvos.config import Config
from ssvos.losses.joint import has_regularizer, joint_loss
from ssvos.losses.teacher import teacher_targets
from ssvos.models.network import Network
from ssvos.planning.dummy_data import FRAMES, dummy_frames, dummy_scribble

MAX_SECONDS = 0.5  # about the longest time of one measurement
_REPEATS = 3
# bytes per pixel of a frame that saved tensors do not include: logits, their softmax, and labels as int64
_LOSS_BYTES = 36
# bytes per point of the lattice while it is built and applied: keys and numbers of its six nodes as int64, their
# weights, and its share of the nodes; measured: 420 to 560
_LATTICE_BYTES = 600


class StepCost(NamedTuple):
    """Seconds and bytes of a step."""

    seconds: float
    bytes: float


@dataclass(frozen=True)
class MeasuredStep:
    """One training step on a clip of FRAMES synthetic frames. regularized: number of frames with the regularizer."""

    network: Network
    config: Config
    size: tuple[int, int]
    regularized: int
    device: torch.device

    def measure(self) -> StepCost:
        """Measure time and memory."""
        batch = self._batch()
        return StepCost(median_seconds(lambda: self._run(batch), self.device), self.bytes())

    def bytes(self) -> float:
        """On CUDA the measured peak of allocations; on a CPU, which has no such figure, a count of the tensors."""
        batch = self._batch()
        if self.device.type != "cuda":
            return self._saved_bytes(batch)
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        self._run(batch)
        return float(torch.cuda.max_memory_allocated(self.device) - before)

    def _run(self, batch: tuple[Tensor, Tensor]) -> None:
        self._loss(batch).backward()  # type: ignore[no-untyped-call]  # not annotated in PyTorch
        self.network.zero_grad(set_to_none=True)

    def _batch(self) -> tuple[Tensor, Tensor]:
        frames = torch.from_numpy(dummy_frames(self.size)).to(self.device).permute(0, 3, 1, 2)[None].float() / 255
        return frames, torch.from_numpy(dummy_scribble(self.size)).to(self.device)[None]

    def _loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        frames, scribble = batch
        target = scribble[:, None].expand(-1, FRAMES, -1, -1)
        regularized, loss = torch.arange(self.regularized, device=self.device)[None], self.config.loss
        stage = self.config.train.stage1
        with torch.autocast(frames.device.type, getattr(torch, stage.precision), enabled=stage.precision != "float32"):
            taught = teacher_targets(self.network, frames, target, loss) if loss.teacher.weight else None
            prediction = self.network(frames, scribble)
        return joint_loss(prediction, frames, target, loss, stage.auxiliary_weight, regularized, taught).total

    def _saved_bytes(self, batch: tuple[Tensor, Tensor]) -> float:
        """Bytes that the forward pass saves for the backward pass, each storage once, and those of the loss that are in
        no saved tensor."""
        sizes = {p.untyped_storage().data_ptr(): 0 for p in self.network.parameters()}  # weights are counted elsewhere

        def count(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            sizes.setdefault(storage.data_ptr(), storage.nbytes())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            self._loss(batch)
        return sum(sizes.values()) + FRAMES * _LOSS_BYTES * self.size[0] * self.size[1] + self._filter_bytes()

    def _filter_bytes(self) -> float:
        """Bytes of the Gaussian filters of the regularized frames, which are built without gradient and so are in no
        saved tensor. The filters of the regularizer and of the proximal loss exist one after the other."""
        loss, pixels = self.config.loss, self.size[0] * self.size[1]
        sizes = [0.0]
        if has_regularizer(loss) and loss.filter == "lattice":
            sizes.append(_LATTICE_BYTES * pixels * loss.scale**2)
        if loss.proximal.weight > 0:
            points = pixels * loss.proximal.scale**2
            sizes.append(_LATTICE_BYTES * points if loss.proximal.filter == "lattice" else 4 * points**2)
        return self.regularized * max(sizes)


def median_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Median time of a few calls; of fewer if they are long. On a CPU, time in which other processes have the cores
    does
    not count."""
    times: list[float] = []
    while len(times) < _REPEATS and sum(times) < MAX_SECONDS:
        started, busy = time.perf_counter(), time.process_time()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elapsed = time.perf_counter() - started
        times.append(elapsed if device.type == "cuda" else min(elapsed, time.process_time() - busy))
    return sorted(times)[(len(times) - 1) // 2]
