"""One training step, the same on one device and in every DDP worker."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ssvos.config import Config, LossConfig, StageConfig
from ssvos.device import require_precision
from ssvos.losses.joint import JointLoss, joint_loss
from ssvos.losses.teacher import teacher_targets
from ssvos.models.network import Network
from ssvos.models.state import ClipPrediction
from ssvos.training.distributed import mean_over_ranks, rank, world_size
from ssvos.training.train_state import TrainState

Forward = Callable[[Tensor, Tensor], ClipPrediction]  # frames and scribble of a batch of clips -> prediction


class TrainStep:
    """A network in training with its optimizer, its running average (if the stage has one) and its loss scaler.

    warn: called with one line for each warning.
    Raises ValueError for a precision that the device does not support.
    """

    def __init__(
        self, network: Network, config: Config, stage: StageConfig, device: torch.device, warn: Callable[[str], None]
    ):
        require_precision(stage.precision, device)
        self.network, self.config, self.stage, self.device, self.warn = network.to(device), config, stage, device, warn
        self.optimizer = torch.optim.Adam(_groups(network, stage.weight_decay), lr=stage.learning_rate, fused=True)
        averaging = get_ema_multi_avg_fn(stage.ema_decay)  # type: ignore[no-untyped-call]  # not annotated in PyTorch
        self.average = AveragedModel(network, multi_avg_fn=averaging) if stage.ema_decay else None
        # small gradients underflow in float16: the scaler multiplies the loss and divides the gradients
        self.scaler = torch.amp.GradScaler(device.type, enabled=stage.precision == "float16")
        self.model = _distribute(network)
        self._forward: Forward = torch.compile(self.model) if config.train.compile else self.model

    @property
    def evaluated_network(self) -> Network:
        """The network that is scored and saved: the running average, or without one the trained network."""
        if self.average is None:
            return self.network
        assert isinstance(self.average.module, Network)
        return self.average.module

    def step(self, batch: dict[str, Tensor], learning_rate: float, ramp: float) -> Tensor:
        """Take one step.

        batch: this rank's part of the global batch, items of ClipDataset, stacked.
        learning_rate: of this step.
        ramp: factor of the weights of the regularizer and the proximal loss, in [0, 1].
        returns: the loss terms of `batch`, (6,) float64 in the order of JointLoss. If the first one is NaN or infinite,
            no step was taken. This happens if the loss of this rank is NaN or infinite, or (if batches may be skipped)
            that of any rank. It also happens if the gradient norm is NaN or infinite; the first term is then the norm.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        is_compiled = self._forward is not self.model
        terms = self._compiled_gradients(batch, ramp) if is_compiled else self._gradients(batch, ramp)
        if not torch.isfinite(terms[0]):
            return terms
        if self.stage.grad_clip_norm:
            self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.stage.grad_clip_norm)
            # the float16 scaler lets the largest gradients overflow at times, and skips these steps itself
            if not self.scaler.is_enabled() and not torch.isfinite(norm):
                terms[0] = float(norm)
                return terms
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update_parameters(self.network)
        return terms

    def _compiled_gradients(self, batch: dict[str, Tensor], ramp: float) -> Tensor:
        """`_gradients` of the compiled network; if compilation fails, the step and all later ones run without it."""
        from torch._dynamo.exc import TorchDynamoException  # slow to import

        try:
            return self._gradients(batch, ramp)
        except TorchDynamoException as error:
            reason = " ".join(str(error).split("\n\n")[0].split())[:200]  # the later paragraphs are advice
            if rank() == 0:
                self.warn(f"train.compile: {reason}; training continues without compilation")
            self._forward = self.model
            return self._gradients(batch, ramp)

    def _gradients(self, batch: dict[str, Tensor], ramp: float) -> Tensor:
        """Compute the gradients of a batch and return its loss terms.

        The batch is split into `accumulate` parts of equal size. Every loss term is a mean over clips, so the mean over
        the parts is the term of the batch.
        """
        self.optimizer.zero_grad(set_to_none=True)  # here, so that the forward pass can use the gradients' memory
        full = self.config.loss
        proximal = full.proximal.model_copy(update={"weight": ramp * full.proximal.weight})
        loss = full.model_copy(update={"weight": ramp * full.weight, "proximal": proximal})
        chunks = [value.chunk(self.stage.accumulate) for value in batch.values()]
        parts = [dict(zip(batch, chunk, strict=True)) for chunk in zip(*chunks, strict=True)]
        terms = torch.zeros(len(JointLoss._fields), dtype=torch.float64)
        for number, part in enumerate(parts, 1):
            on_device = {name: value.to(self.device, non_blocking=True) for name, value in part.items()}
            with self._gradient_sync(is_last=number == len(parts)):
                losses = loss_terms(
                    self._forward,
                    on_device,
                    loss,
                    self.stage.auxiliary_weight,
                    self.stage.precision,
                    self.evaluated_network,
                )
                terms += torch.stack([term.detach() for term in losses]).double().cpu() / len(parts)
                if self.config.train.max_skipped_batches:  # all ranks must skip the same batches
                    terms[0] += 0.0 * mean_over_ranks(terms[0])
                if not torch.isfinite(terms[0]):
                    break
                scaled = self.scaler.scale(losses.total / len(parts))
                scaled.backward()  # type: ignore[no-untyped-call]  # not annotated in PyTorch
        return terms

    def _gradient_sync(self, is_last: bool) -> AbstractContextManager[None]:
        """DDP averages the gradients over the workers once a batch, in the backward pass of its last part."""
        if isinstance(self.model, DistributedDataParallel) and not is_last:
            return self.model.no_sync()
        return nullcontext()

    def store(self, train_state: TrainState) -> None:
        """Put all that `load` needs into `train_state`. The optimizer's state is shared: the next step changes it."""
        train_state.weights = copy_weights(self.network)
        train_state.optimizer = self.optimizer.state_dict()
        train_state.average = copy_weights(self.average) if self.average else {}
        train_state.scaler = self.scaler.state_dict()
        train_state.random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            train_state.random["cuda"] = torch.cuda.get_rng_state(self.device)

    def load(self, train_state: TrainState) -> None:
        """Resume from a state that `store` filled."""
        self.network.load_state_dict(train_state.weights)
        self.optimizer.load_state_dict(train_state.optimizer)
        if self.average:
            self.average.load_state_dict(train_state.average)
        if train_state.scaler:
            self.scaler.load_state_dict(train_state.scaler)
        torch.set_rng_state(train_state.random["cpu"])
        if self.device.type == "cuda" and "cuda" in train_state.random:
            torch.cuda.set_rng_state(train_state.random["cuda"], self.device)


def copy_weights(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the current weights on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def loss_terms(
    forward: Forward,
    batch: dict[str, Tensor],
    loss: LossConfig,
    auxiliary_weight: float,
    precision: str = "float32",
    teacher: Network | None = None,
) -> JointLoss:
    """The loss terms of a batch. The network runs in `precision`, the loss in float32.

    forward: the network.
    batch: items of ClipDataset, stacked: frames (B, T, 3, H, W) uint8, target (B, T, H, W), scribble (B, H, W) and
        regularized (B, R).
    teacher: the network that segments every frame from its own strokes, for `loss.teacher`.
    """
    frames, taught = batch["frames"].float() / 255, None
    with torch.autocast(frames.device.type, getattr(torch, precision), enabled=precision != "float32"):
        if teacher is not None and loss.teacher.weight:
            taught = teacher_targets(teacher, frames, batch["target"], loss)
        prediction = forward(frames, batch["scribble"])
    return joint_loss(prediction, frames, batch["target"], loss, auxiliary_weight, batch["regularized"], taught)


def _groups(network: Network, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters in two groups, with and without weight decay.

    Paper gap: attention starts at gamma = 0, where its other weights have no gradient. Adam normalises every gradient,
    also that of weight decay alone: it would bring these weights to 0 within a few hundred steps, before gamma has
    moved. The weights of attention therefore do not decay.
    """
    with_decay: list[nn.Parameter] = []
    without_decay: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            (without_decay if name.startswith("attention.") else with_decay).append(parameter)
    return [{"params": with_decay, "weight_decay": weight_decay}, {"params": without_decay, "weight_decay": 0.0}]


def _distribute(network: Network) -> nn.Module:
    if world_size() == 1:
        return network
    # with the fine mask as state only the auxiliary loss, which may be off, uses the coarse classifier
    unused = network.config.state == "fine"
    return DistributedDataParallel(network, broadcast_buffers=False, find_unused_parameters=unused)
