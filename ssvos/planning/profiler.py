"""How fast a network trains and segments on a device and what memory a step takes, from a few small real steps."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ssvos.baselines.grabcut_flow import GrabCutFlow
from ssvos.config import AugmentConfig, Config, LossConfig
from ssvos.data.augment import draw_variation, resize_frame, resize_scribble
from ssvos.hardware import resident_bytes
from ssvos.inference.crf_refinement import CrfRefiner
from ssvos.inference.segmenter import segment
from ssvos.labels import UNLABELLED, decode_labels, encode_labels
from ssvos.losses.dense_crf import regularizer
from ssvos.losses.joint import has_regularizer, joint_loss
from ssvos.losses.proximal import proximal_loss
from ssvos.models.grid import STRIDE
from ssvos.models.network import Network
from ssvos.planning.dummy_data import FRAMES, smooth_frames, strokes

_SMALL_SIDE = 48
_SECONDS = 0.5  # about the longest that one measurement may take
_REPEATS = 3
# Bytes that saved tensors leave out. A frame's pixel: logits, their softmax and labels as int64 beside them.
_LOSS_BYTES = 36
# A point of the lattice while it is built and applied: keys and numbers of its six nodes, int64, their weights, and its
# share of the nodes; measured, 420 to 560.
_LATTICE_BYTES = 600


class Line(NamedTuple):
    """y = fixed + slope * x."""

    fixed: float
    slope: float

    @classmethod
    def through(cls, x: tuple[float, float], y: tuple[float, float]) -> "Line":
        """Through two points with x[0] <= x[1]; noise never makes it fall."""
        slope = max(0.0, (y[1] - y[0]) / (x[1] - x[0])) if x[1] > x[0] else y[1] / x[1]
        return cls(max(0.0, y[1] - slope * x[1]), slope)

    def at(self, x: float) -> float:
        return self.fixed + self.slope * x


@dataclass(frozen=True)
class Probe:
    """Costs of one network and loss. `px` is the number of pixels of all clips of a batch at one point of time.

    training: seconds a frame of `px`, forward and backward; regularizer: those of a regularised frame on top, its
    proximal loss among them, against px ** power. update: seconds of an optimizer step. segmenting: seconds a frame of
    `px` with all objects; refining: on top of it, of the masks that are given out.
    saved: bytes a frame of `px` keeps for the backward pass; regularizer_saved: those of a regularised one on top.
    resting: bytes a process holds besides the network when all its libraries are loaded. parameters, trainable: counts.
    """

    training: Line
    regularizer: Line
    update: float
    segmenting: Line
    refining: Line
    saved: Line
    regularizer_saved: Line
    power: int
    resting: int
    parameters: int
    trainable: int

    def step_seconds(self, px: int, frames: int, regularized: int) -> float:
        return frames * self.training.at(px) + regularized * self.regularizer.at(px**self.power) + self.update

    def step_bytes(self, px: int, frames: int, regularized: int) -> float:
        """What a training step holds at its peak besides the network itself, to which the fixed part belongs."""
        return frames * self.saved.slope * px + regularized * self.regularizer_saved.slope * px**self.power

    def state_bytes(self, averaged: bool, distributed: bool) -> int:
        """Weights, gradients, Adam's two moments, the running average, DDP's buckets."""
        return 4 * (self.parameters * (1 + averaged) + self.trainable * (3 + distributed))


def probe(config: Config, size: tuple[int, int], source: tuple[int, int], objects: int, device: torch.device) -> Probe:
    """Take a few steps of the configured network and loss on random clips.

    size: (height, width) of the largest frames it will see; the probe's are smaller where those are slow. source:
    (height, width) of the videos' own frames. objects: how many are segmented at once. Time is that of the current
    number of threads.
    """
    torch.set_flush_denormal(True)
    network = Network(config.model).to(device)
    loss = config.loss
    without_terms = {"regularizer": "none", "proximal": loss.proximal.model_copy(update={"weight": 0.0})}
    plain = config.model_copy(update={"loss": loss.model_copy(update=without_terms)})
    small = _scaled(size, _SMALL_SIDE / size[0])
    _Step(network, plain, small, 0, device).bytes()  # the first step of all sets kernels up
    first = _Step(network, plain, small, 0, device).measure()
    parameters = sum(p.numel() for p in network.parameters())
    resting = max(0, resident_bytes() - 4 * parameters)
    sizes = (small, _larger(small, size, first.seconds))
    without = (first, _Step(network, plain, sizes[1], 0, device).measure())
    px = tuple(height * width for height, width in sizes)
    power = _power(loss)
    energy = energy_saved = Line(0.0, 0.0)
    if has_regularizer(loss) or loss.proximal.weight > 0:
        extra = [_Step(network, config, s, 1, device).bytes() - w.bytes for s, w in zip(sizes, without, strict=True)]
        raised = tuple(n**power for n in px)
        energy = Line.through(raised, tuple(_regularizer_seconds(config, s, device) for s in sizes))
        energy_saved = Line.through(raised, tuple(extra))
    trainable = [p for p in network.parameters() if p.requires_grad]
    return Probe(
        training=Line.through(px, tuple(w.seconds / FRAMES for w in without)),
        regularizer=energy,
        update=_update_seconds(network, trainable, device),
        segmenting=Line.through(px, tuple(_segmenting_seconds(network, s, source, objects) for s in sizes)),
        refining=Line.through(px, tuple(_refining_seconds(config, s, source, objects, device) for s in sizes)),
        saved=Line.through(px, tuple(w.bytes / FRAMES for w in without)),
        regularizer_saved=energy_saved,
        power=power,
        resting=resting,
        parameters=parameters,
        trainable=sum(p.numel() for p in trainable),
    )


@cache
def reading_seconds(size: tuple[int, int], source: tuple[int, int], augment: AugmentConfig) -> float:
    """Seconds that reading and varying one frame with its scribble takes: decoded at `source`, brought to `size`."""
    frame, scribble = smooth_frames(source)[0], strokes(source)
    jpeg, png = cv2.imencode(".jpg", frame)[1], encode_labels(scribble)
    rng = np.random.default_rng(0)

    def read() -> None:
        variation = draw_variation(augment, rng)
        variation.frame(resize_frame(cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB), *size))
        variation.scribble(resize_scribble(decode_labels(png), *size))

    return _seconds(read, torch.device("cpu"))


class _Cost(NamedTuple):
    seconds: float
    bytes: float


@dataclass(frozen=True)
class _Step:
    """One training step on one random clip of FRAMES frames, `regularized` of them with the regularizer."""

    network: Network
    config: Config
    size: tuple[int, int]
    regularized: int
    device: torch.device

    def measure(self) -> _Cost:
        """Seconds and bytes."""
        batch = self._batch()
        return _Cost(_seconds(lambda: self._run(batch), self.device), self.bytes())

    def bytes(self) -> float:
        """On CUDA the peak of what a step allocates; elsewhere counted, which is all that can be done."""
        batch = self._batch()
        if self.device.type != "cuda":
            return self._saved_bytes(batch)
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        self._run(batch)
        return torch.cuda.max_memory_allocated(self.device) - before

    def _run(self, batch: tuple[Tensor, Tensor]) -> None:
        self._loss(batch).backward()
        self.network.zero_grad(set_to_none=True)

    def _batch(self) -> tuple[Tensor, Tensor]:
        frames = torch.from_numpy(smooth_frames(self.size)).to(self.device).permute(0, 3, 1, 2)[None].float() / 255
        return frames, torch.from_numpy(strokes(self.size)).to(self.device)[None]

    def _loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        frames, scribble = batch
        target = scribble[:, None].expand(-1, FRAMES, -1, -1)
        chosen = torch.arange(self.regularized, device=self.device)[None]
        stage = self.config.train.stage1
        with torch.autocast(frames.device.type, getattr(torch, stage.precision), enabled=stage.precision != "float32"):
            prediction = self.network(frames, scribble)
        return joint_loss(prediction, frames, target, self.config.loss, stage.auxiliary_weight, chosen).total

    def _saved_bytes(self, batch: tuple[Tensor, Tensor]) -> float:
        """What the forward pass keeps for the backward pass, each storage once, and what no saved tensor shows."""
        found = {p.untyped_storage().data_ptr(): 0 for p in self.network.parameters()}  # weights count elsewhere

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            found.setdefault(storage.data_ptr(), storage.nbytes())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            self._loss(batch)
        return sum(found.values()) + FRAMES * _LOSS_BYTES * self.size[0] * self.size[1] + self._lattice_bytes()

    def _lattice_bytes(self) -> float:
        """What the filters of the regularised frames hold: they are built without gradient, so that no saved tensor
        shows it. That of the regularizer and that of the proximal loss are there one after the other."""
        loss, pixels = self.config.loss, self.size[0] * self.size[1]
        held = [0.0]
        if has_regularizer(loss) and loss.filter == "lattice":
            held.append(_LATTICE_BYTES * pixels * loss.scale**2)
        if loss.proximal.weight > 0:
            points = pixels * loss.proximal.scale**2
            held.append(_LATTICE_BYTES * points if loss.proximal.filter == "lattice" else 4 * points**2)
        return self.regularized * max(held)


def _power(loss: LossConfig) -> int:
    """With which power of the number of pixels the terms of regularised frames grow."""
    filters = [loss.filter] * has_regularizer(loss) + [loss.proximal.filter] * (loss.proximal.weight > 0)
    return 2 if "exact" in filters else 1


def _regularizer_seconds(config: Config, size: tuple[int, int], device: torch.device) -> float:
    """Of one frame, forward and backward; as a difference of two steps it would drown in their noise."""
    frame = torch.from_numpy(smooth_frames(size)[:1]).to(device).permute(0, 3, 1, 2).float() / 255
    logits = torch.zeros(1, 2, *size, device=device, requires_grad=True)

    unlabelled = torch.full((1, *size), UNLABELLED, dtype=torch.uint8, device=device)

    def work() -> None:
        total = logits.sum() * 0
        if has_regularizer(config.loss):
            total = total + regularizer(logits.softmax(dim=1), frame, config.loss)
        if config.loss.proximal.weight > 0:
            total = total + proximal_loss(logits, frame, unlabelled, config.loss.proximal)
        total.backward()

    return _seconds(work, device)


def _update_seconds(network: Network, trainable: list[nn.Parameter], device: torch.device) -> float:
    optimizer = torch.optim.Adam(trainable, lr=0.0, fused=True)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for parameter in trainable:
        parameter.grad = torch.zeros_like(parameter)

    def update() -> None:
        nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        average.update_parameters(network)

    return _seconds(update, device)


def _segmenting_seconds(network: Network, size: tuple[int, int], source: tuple[int, int], objects: int) -> float:
    """A frame's seconds with `objects` objects, the masks brought back to the frame's own size."""
    frames, scribble = smooth_frames(source), strokes(source, objects)
    device = next(network.parameters()).device

    def work() -> None:
        for _ in segment(network, frames, {0: scribble}, size):
            pass

    seconds = _seconds(work, device) / FRAMES
    network.train()
    return seconds


def _refining_seconds(
    config: Config, size: tuple[int, int], source: tuple[int, int], objects: int, device: torch.device
) -> float:
    """What is done beside the network: flow on the frame's own size, the rest on the network's."""
    predict = config.predict
    carrying = 0.0
    if predict.flow.weight:
        carried, frames = GrabCutFlow(), smooth_frames(source)
        carried(frames[0], strokes(source, objects))
        carrying = _seconds(lambda: carried(frames[1]), device)
    if not (predict.crf_refinement.iterations or predict.color_model.weight):
        return carrying
    image = smooth_frames(size)[0]
    frame = torch.from_numpy(image)[None].to(device).permute(0, 3, 1, 2).float() / 255
    probs = torch.full((objects + 1, *size), 1 / (objects + 1), device=device)
    refined = CrfRefiner(predict.crf_refinement, predict.color_model)
    refined(probs, image, frame, torch.full(size, UNLABELLED, dtype=torch.uint8, device=device))
    return carrying + _seconds(lambda: refined(probs, image, frame), device)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Median of a few calls, as single ones are disturbed by whatever else runs; of fewer where they are long. On a CPU
    the time that others have the cores does not count."""
    times: list[float] = []
    while len(times) < _REPEATS and sum(times) < _SECONDS:
        started, busy = time.perf_counter(), time.process_time()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elapsed = time.perf_counter() - started
        times.append(elapsed if device.type == "cuda" else min(elapsed, time.process_time() - busy))
    return sorted(times)[(len(times) - 1) // 2]


def _scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return tuple(max(2 * STRIDE, STRIDE * round(side * factor / STRIDE)) for side in size)


def _larger(small: tuple[int, int], size: tuple[int, int], seconds: float) -> tuple[int, int]:
    """A size at least twice as high as `small`, larger as far as the time allows, `size` at most."""
    grown = max(2.0, (_SECONDS / seconds) ** 0.5) * small[0] / size[0]
    return size if grown >= 1.0 else _scaled(size, grown)
