"""One step of training: from a batch of clips to other weights, the same on one device and in every worker of DDP."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ssvos.config import Config, LossConfig, StageConfig
from ssvos.device import require_precision
from ssvos.losses.joint import JointLoss, joint_loss
from ssvos.models.network import Network
from ssvos.training.distributed import mean_over_ranks, rank, world_size
from ssvos.training.train_state import TrainState


class TrainStep:
    """A network under training, with its optimizer, its running average if any, and the scale of its loss.

    say: takes a line for a person. Raises ValueError for a precision that the device has not.
    """

    def __init__(
        self, network: Network, config: Config, stage: StageConfig, device: torch.device, say: Callable[[str], None]
    ):
        require_precision(stage.precision, device)
        self.network, self.config, self.stage, self.device, self.say = network.to(device), config, stage, device, say
        self.optimizer = torch.optim.Adam(_groups(network, stage.weight_decay), lr=stage.learning_rate, fused=True)
        averaging = get_ema_multi_avg_fn(stage.ema_decay)
        self.average = AveragedModel(network, multi_avg_fn=averaging) if stage.ema_decay else None
        # float16 has no room for small gradients: the loss is scaled up before, and they are scaled down after
        self.scaler = torch.amp.GradScaler(device.type, enabled=stage.precision == "float16")
        self.model = _distribute(network)
        self._forward = torch.compile(self.model) if config.train.compile else self.model

    @property
    def judged(self) -> Network:
        """The weights that are scored and kept."""
        return self.average.module if self.average else self.network

    def step(self, batch: dict[str, Tensor], rate: float, share: float) -> Tensor:
        """Take one step -> the loss terms of this rank's part of the batch, (5,) float64 in the order of JointLoss.

        rate: the learning rate; share: of the regularizer's weight. If the first term comes back not finite, of this
        rank or (where such batches may be skipped) of any, no step was taken; nor if the gradient's norm is not finite,
        which then stands in its place: one such step would leave no weight.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        terms = self._gradients(batch, share) if self._forward is self.model else self._compiled(batch, share)
        if not torch.isfinite(terms[0]):
            return terms
        if self.stage.grad_clip_norm:
            self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.stage.grad_clip_norm)
            # float16's scale is made for the largest gradients to overflow now and then, and leaves such a step out
            if not self.scaler.is_enabled() and not torch.isfinite(norm):
                terms[0] = float(norm)
                return terms
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update_parameters(self.network)
        return terms

    def _compiled(self, batch: dict[str, Tensor], share: float) -> Tensor:
        from torch._dynamo.exc import TorchDynamoException  # where PyTorch keeps it; slow to import

        try:
            return self._gradients(batch, share)
        except TorchDynamoException as error:
            reason = " ".join(str(error).split("\n\n")[0].split())[:200]  # advice follows
            if rank() == 0:
                self.say(f"train.compile: {reason}; training goes on without it")
            self._forward = self.model
            return self._gradients(batch, share)

    def _gradients(self, batch: dict[str, Tensor], share: float) -> Tensor:
        """Loss terms of a batch, whose gradients are left in the parameters; taken in `accumulate` parts of one size,
        whose mean is that of the batch because every term is a mean over clips."""
        self.optimizer.zero_grad(set_to_none=True)  # before the forward pass, which then has their memory
        full = self.config.loss
        proximal = full.proximal.model_copy(update={"weight": share * full.proximal.weight})
        loss = full.model_copy(update={"weight": share * full.weight, "proximal": proximal})
        count = self.stage.accumulate
        parts = [
            dict(zip(batch, one, strict=True)) for one in zip(*(v.chunk(count) for v in batch.values()), strict=True)
        ]
        terms = torch.zeros(len(JointLoss._fields), dtype=torch.float64)
        for number, part in enumerate(parts, 1):
            moved = {name: value.to(self.device, non_blocking=True) for name, value in part.items()}
            is_last = number == len(parts)
            with nullcontext() if is_last or world_size() == 1 else self.model.no_sync():
                found = loss_terms(self._forward, moved, loss, self.stage.auxiliary_weight, self.stage.precision)
                terms += torch.stack([term.detach() for term in found]).double().cpu() / len(parts)
                if self.config.train.max_skipped_batches:  # one rank must not go on where another does not
                    terms[0] += 0.0 * mean_over_ranks(terms[0])
                if not torch.isfinite(terms[0]):
                    break
                self.scaler.scale(found.total / len(parts)).backward()
        return terms

    def store(self, progress: TrainState) -> None:
        """Put into `progress` all from which `load` goes on; the optimizer's state goes on changing afterwards."""
        progress.weights = copied(self.network)
        progress.optimizer = self.optimizer.state_dict()
        progress.average = copied(self.average) if self.average else {}
        progress.scaler = self.scaler.state_dict()
        progress.random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            progress.random["cuda"] = torch.cuda.get_rng_state(self.device)

    def load(self, progress: TrainState) -> None:
        self.network.load_state_dict(progress.weights)
        self.optimizer.load_state_dict(progress.optimizer)
        if self.average:
            self.average.load_state_dict(progress.average)
        if progress.scaler:
            self.scaler.load_state_dict(progress.scaler)
        torch.set_rng_state(progress.random["cpu"])
        if self.device.type == "cuda" and "cuda" in progress.random:
            torch.cuda.set_rng_state(progress.random["cuda"], self.device)


def copied(module: nn.Module) -> dict[str, Tensor]:
    """The weights as they are now, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def loss_terms(
    model: nn.Module, batch: dict[str, Tensor], loss: LossConfig, auxiliary_weight: float, precision: str = "float32"
) -> JointLoss:
    """The network in `precision`, the loss in single precision. batch: items of ClipDataset, stacked."""
    frames = batch["frames"].float() / 255
    with torch.autocast(frames.device.type, getattr(torch, precision), enabled=precision != "float32"):
        prediction = model(frames, batch["scribble"])
    return joint_loss(prediction, frames, batch["target"], loss, auxiliary_weight, batch["regularized"])


def _groups(network: Network, weight_decay: float) -> list[dict[str, Any]]:
    """The parameters that learn, with the decay of each group.

    Paper gap: attention begins at gamma = 0, where its other weights have no gradient. Adam brings any gradient to one
    size, the decay's as well when it stands alone: it would take them to 0 within a few hundred steps, before gamma has
    moved. So they do not decay.
    """
    decayed, kept = [], []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            (kept if name.startswith("attention.") else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]


def _distribute(network: Network) -> nn.Module:
    if world_size() == 1:
        return network
    # with the fine mask as state the coarse classifier is used by the auxiliary loss alone, which may be off
    unused = network.config.state == "fine"
    return DistributedDataParallel(network, broadcast_buffers=False, find_unused_parameters=unused)
