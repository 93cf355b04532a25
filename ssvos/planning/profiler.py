"""Profiling of a network on a device: a few small steps of training and inference on synthetic frames."""

from functools import cache

import cv2
import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ssvos.baselines.grabcut_flow import GrabCutFlow
from ssvos.config import AugmentConfig, Config, LossConfig
from ssvos.data.augment import draw_variation, resize_frame, resize_scribble
from ssvos.hardware import resident_bytes
from ssvos.inference.crf_refinement import CrfRefiner
from ssvos.inference.segmenter import segment
from ssvos.labels import UNLABELLED, decode_labels, encode_labels
from ssvos.losses.dense_crf import regularizer
from ssvos.losses.joint import has_regularizer
from ssvos.losses.proximal import proximal_loss
from ssvos.models.grid import STRIDE
from ssvos.models.network import Network
from ssvos.planning.dummy_data import FRAMES, dummy_frames, dummy_scribble
from ssvos.planning.profile import Line, NetworkProfile
from ssvos.planning.step_cost import MAX_SECONDS, MeasuredStep, median_seconds

_SMALL_SIDE = 48


def profile_network(
    config: Config, size: tuple[int, int], source: tuple[int, int], objects: int, device: torch.device
) -> NetworkProfile:
    """Measure the configured network and loss, with the current number of threads.

    Costs are measured at two frame sizes. Sizes for which a step would take too long are not measured but extrapolated.

    size: (height, width) of the largest frames that the network takes.
    source: (height, width) of the videos' own frames.
    objects: number of objects that are segmented together.
    """
    torch.set_flush_denormal(True)
    network = Network(config.model).to(device)
    loss = config.loss
    without_terms = {"regularizer": "none", "proximal": loss.proximal.model_copy(update={"weight": 0.0})}
    plain = config.model_copy(update={"loss": loss.model_copy(update=without_terms)})
    small = _scaled(size, _SMALL_SIDE / size[0])
    MeasuredStep(network, plain, small, 0, device).bytes()  # the first step initialises the kernels
    first = MeasuredStep(network, plain, small, 0, device).measure()
    parameters = sum(p.numel() for p in network.parameters())
    resting = max(0, resident_bytes() - 4 * parameters)
    sizes = (small, _larger(small, size, first.seconds))
    steps = (first, MeasuredStep(network, plain, sizes[1], 0, device).measure())
    px = [height * width for height, width in sizes]
    power = _power(loss)
    regularizer_seconds = regularizer_bytes = Line(0.0, 0.0)
    if has_regularizer(loss) or loss.proximal.weight > 0:
        raised = [n**power for n in px]
        regularizer_seconds = Line.through(raised, [_regularizer_seconds(config, s, device) for s in sizes])
        regularized = [MeasuredStep(network, config, s, 1, device).bytes() for s in sizes]
        regularizer_bytes = Line.through(raised, [r - s.bytes for r, s in zip(regularized, steps, strict=True)])
    trainable = [p for p in network.parameters() if p.requires_grad]
    return NetworkProfile(
        training=Line.through(px, [step.seconds / FRAMES for step in steps]),
        regularizer=regularizer_seconds,
        update=_update_seconds(network, trainable, device),
        segmenting=Line.through(px, [_segmenting_seconds(network, s, source, objects) for s in sizes]),
        refining=Line.through(px, [_refining_seconds(config, s, source, objects, device) for s in sizes]),
        saved=Line.through(px, [step.bytes / FRAMES for step in steps]),
        regularizer_saved=regularizer_bytes,
        power=power,
        resting=resting,
        parameters=parameters,
        trainable=sum(p.numel() for p in trainable),
    )


@cache
def reading_seconds(size: tuple[int, int], source: tuple[int, int], augment: AugmentConfig) -> float:
    """Seconds of reading and augmenting one frame with its scribble.

    size: (height, width) to which they are resized.
    source: (height, width) of the frame on disk.
    """
    frame, scribble = dummy_frames(source)[0], dummy_scribble(source)
    jpeg, png = cv2.imencode(".jpg", frame)[1], encode_labels(scribble)
    rng = np.random.default_rng(0)

    def read() -> None:
        variation = draw_variation(augment, rng)
        decoded = cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB)
        assert decoded is not None
        variation.frame(resize_frame(decoded, *size))
        variation.scribble(resize_scribble(decode_labels(png), *size))

    return median_seconds(read, torch.device("cpu"))


def _power(loss: LossConfig) -> int:
    """The power of the number of pixels with which the terms of regularized frames grow."""
    filters = [loss.filter] * has_regularizer(loss) + [loss.proximal.filter] * (loss.proximal.weight > 0)
    return 2 if "exact" in filters else 1


def _regularizer_seconds(config: Config, size: tuple[int, int], device: torch.device) -> float:
    """Of one frame, forward and backward. The difference of two steps would be smaller than their noise."""
    frame = torch.from_numpy(dummy_frames(size)[:1]).to(device).permute(0, 3, 1, 2).float() / 255
    logits = torch.zeros(1, 2, *size, device=device, requires_grad=True)

    unlabelled = torch.full((1, *size), UNLABELLED, dtype=torch.uint8, device=device)

    def work() -> None:
        total = logits.sum() * 0
        if has_regularizer(config.loss):
            total = total + regularizer(logits.softmax(dim=1), frame, config.loss)
        if config.loss.proximal.weight > 0:
            total = total + proximal_loss(logits, frame, unlabelled, config.loss.proximal)
        total.backward()  # type: ignore[no-untyped-call]  # not annotated in PyTorch

    return median_seconds(work, device)


def _update_seconds(network: Network, trainable: list[nn.Parameter], device: torch.device) -> float:
    """Of one optimizer step, with gradient clipping and the running average."""
    optimizer = torch.optim.Adam(trainable, lr=0.0, fused=True)
    averaging = get_ema_multi_avg_fn(0.9)  # type: ignore[no-untyped-call]  # not annotated in PyTorch
    average = AveragedModel(network, multi_avg_fn=averaging)
    for parameter in trainable:
        parameter.grad = torch.zeros_like(parameter)

    def update() -> None:
        nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        average.update_parameters(network)

    return median_seconds(update, device)


def _segmenting_seconds(network: Network, size: tuple[int, int], source: tuple[int, int], objects: int) -> float:
    """Per frame with `objects` objects, including resizing the masks to the frame's own size."""
    frames, scribble = dummy_frames(source), dummy_scribble(source, objects)
    device = next(network.parameters()).device

    def work() -> None:
        for _ in segment(network, frames, {0: scribble}, size):
            pass

    seconds = median_seconds(work, device) / FRAMES
    network.train()
    return seconds


def _refining_seconds(
    config: Config, size: tuple[int, int], source: tuple[int, int], objects: int, device: torch.device
) -> float:
    """Per frame, of GrabCut and flow at the frame's own size, and of color model and CRF at the network's input
    size."""
    predict = config.predict
    flow_seconds = 0.0
    if predict.flow.weight:
        grabcut_flow, frames = GrabCutFlow(), dummy_frames(source)
        grabcut_flow(frames[0], dummy_scribble(source, objects))
        flow_seconds = median_seconds(lambda: grabcut_flow(frames[1]), device)
    if not (predict.crf_refinement.iterations or predict.color_model.weight):
        return flow_seconds
    image = dummy_frames(size)[0]
    frame = torch.from_numpy(image)[None].to(device).permute(0, 3, 1, 2).float() / 255
    probs = torch.full((objects + 1, *size), 1 / (objects + 1), device=device)
    refiner = CrfRefiner(predict.crf_refinement, predict.color_model)
    refiner(probs, image, frame, torch.full(size, UNLABELLED, dtype=torch.uint8, device=device))
    return flow_seconds + median_seconds(lambda: refiner(probs, image, frame), device)


def _scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    height, width = (max(2 * STRIDE, STRIDE * round(side * factor / STRIDE)) for side in size)
    return height, width


def _larger(small: tuple[int, int], size: tuple[int, int], seconds: float) -> tuple[int, int]:
    """A size at least twice as high as `small` and at most `size`, as large as the time allows.

    seconds: time of a step at `small`.
    """
    factor = max(2.0, (MAX_SECONDS / seconds) ** 0.5) * small[0] / size[0]
    return size if factor >= 1.0 else _scaled(size, factor)
