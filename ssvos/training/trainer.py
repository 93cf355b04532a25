"""The training loop of one stage in plain PyTorch, the same on one device and in every DDP worker."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from ssvos.config import Config, StageConfig
from ssvos.data.clips import ClipSampler
from ssvos.device import deterministic
from ssvos.hardware import peak_bytes
from ssvos.losses.joint import JointLoss
from ssvos.models.checkpoint import difference, load_checkpoint
from ssvos.models.network import Network
from ssvos.training.distributed import mean_over_ranks, rank, world_size
from ssvos.training.holdout import holdout_score
from ssvos.training.train_state import EpochReport, TrainState
from ssvos.training.train_step import TrainStep, copy_weights
from ssvos.training.training_data import TrainingData, batches

log = logging.getLogger(__name__)
LOSS_TERMS = ("loss", *JointLoss._fields[1:])


def first_network(config: Config, checkpoint: str | Path = "") -> Network:
    """The network that a stage starts from: a checkpoint's, or without one a new network.

    The seed determines the new network's random weights.
    Raises ValueError for a checkpoint of another network than `config.model`.
    """
    if checkpoint:
        network, info = load_checkpoint(checkpoint)
        if info.model != config.model:
            raise ValueError(f"{checkpoint}: {difference(info.model, config.model)}; train its stage again")
        return network
    torch.manual_seed(config.train.seed)
    return Network.create(config.model)


def fit(
    network: Network,
    data: TrainingData,
    config: Config,
    stage: StageConfig,
    device: torch.device | str,
    report: Callable[[EpochReport], None],
    resume: TrainState | None = None,
    num_loaders: int = 0,
    save: Callable[[TrainState], None] | None = None,
    warn: Callable[[str], None] = log.warning,
) -> TrainState:
    """Train one stage; the returned state holds the weights of the epoch with the best held-out score.

    In a process group every rank calls this with the same arguments. The ranks share every global batch, so a step
    takes the same clips whatever the number of workers.

    network: the network to start from; its weights change.
    report: called on every rank after each epoch.
    resume: a state that `report` or `save` received, to resume from.
    num_loaders: number of processes that read clips; 0: this process reads them.
    save: called on every rank after each `save_every` steps. The state that `report` and `save` receive changes in the
        next step.
    warn: called with one line for each warning.
    Raises ValueError if the ranks cannot share a batch, and FloatingPointError if the loss is NaN or infinite in more
    than `train.max_skipped_batches` batches.
    """
    if stage.batch_clips % (world_size() * stage.accumulate):
        parts = f" in {stage.accumulate} parts" if stage.accumulate > 1 else ""
        raise ValueError(
            f"batch_clips {stage.batch_clips} cannot be shared by {world_size()} workers{parts}; "
            f"make it a multiple of {world_size() * stage.accumulate}"
        )
    # gradients of a saturated softmax underflow; denormal numbers would make CPU convolutions several times slower
    torch.set_flush_denormal(True)
    train_state = resume or TrainState(chosen_by=data.choose_by)
    with deterministic(config.train.deterministic):
        train_step = TrainStep(network, config, stage, torch.device(device), warn)
        if train_state.weights:
            train_step.load(train_state)
        while train_state.epoch < stage.epochs and not _is_out_of_patience(train_state, stage):
            row, speed = _train_epoch(train_step, data.fit, train_state, num_loaders, save)
            row |= holdout_score(train_step.evaluated_network, data, config, stage, device)
            _finish_epoch(train_state, row, train_step)
            report(EpochReport(row, speed, train_state))
    return train_state


def _train_epoch(
    train_step: TrainStep,
    sampler: ClipSampler,
    train_state: TrainState,
    num_loaders: int,
    save: Callable[[TrainState], None] | None,
) -> tuple[dict[str, float], dict[str, float]]:
    """Take the remaining steps of an epoch -> the epoch's row of the history, and the speed of these steps."""
    config, stage, epoch, first = train_step.config, train_step.stage, train_state.epoch, train_state.step
    train_step.model.train()
    specs = sampler.draw(stage, config.train.seed, epoch)
    num_steps = len(specs) // stage.batch_clips
    if num_steps == 0:
        raise ValueError(f"clips_per_epoch {stage.clips_per_epoch} is less than one batch of {stage.batch_clips}")
    sums = torch.tensor(train_state.sums or [0.0] * (len(LOSS_TERMS) + 1), dtype=torch.float64)
    timer = _EpochTimer(train_step.device)
    remaining, pin_memory = specs[first * stage.batch_clips :], train_step.device.type == "cuda"
    loader = batches(sampler, remaining, config, stage, num_loaders, pin_memory)
    for step, batch in enumerate(timer.timed(loader), first):
        total_steps = epoch * num_steps + step
        ramp = min(1.0, total_steps / stage.ramp_steps) if stage.ramp_steps else 1.0
        terms = train_step.step(batch, _learning_rate(stage, epoch, total_steps), ramp)
        if torch.isfinite(terms[0]):
            sums += torch.cat([terms, torch.ones(1, dtype=torch.float64)])
        else:
            clips = ", ".join(map(sampler.name, specs[step * stage.batch_clips :][: stage.batch_clips]))
            fault = f"loss is {float(terms[0])} in epoch {epoch + 1}, step {step + 1} ({clips})"
            _skip_batch(train_step, train_state, fault)
        if save and stage.save_every and (step + 1) % stage.save_every == 0:
            train_state.step, train_state.sums = step + 1, mean_over_ranks(sums).tolist()
            train_step.store(train_state)
            save(train_state)
    means = mean_over_ranks(sums)
    row = {"epoch": epoch + 1, "learning_rate": _learning_rate(stage, epoch, epoch * num_steps + num_steps - 1)}
    row |= dict(zip(LOSS_TERMS, (means[:-1] / means[-1]).tolist(), strict=True))
    return row, timer.speed((num_steps - first) * stage.batch_clips)


class _EpochTimer:
    """Measures the time and memory of an epoch's steps, and the time spent waiting for their batches."""

    def __init__(self, device: torch.device):
        self.device, self.started, self.waited = device, time.perf_counter(), 0.0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def timed(self, loader: Iterator[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
        """The loader's batches; the time that each takes to arrive counts as waiting."""
        while True:
            began = time.perf_counter()
            batch = next(loader, None)
            self.waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def speed(self, num_clips: int) -> dict[str, float]:
        """The figures of EpochReport. Peak memory is the GPU's; on a CPU that of the process since its start."""
        seconds = time.perf_counter() - self.started
        peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else peak_bytes()
        return {
            "clips_per_second": num_clips / seconds,
            "data_wait_share": self.waited / seconds,
            "peak_memory_gb": peak / 1e9,
        }


def _skip_batch(train_step: TrainStep, train_state: TrainState, fault: str) -> None:
    """Count a skipped batch; FloatingPointError if the limit is reached already."""
    limit = train_step.config.train.max_skipped_batches
    if train_state.skipped == limit:
        also = f", after {limit} skipped batches" if limit else ""
        raise FloatingPointError(f"{fault}{also}; lower learning_rate or set grad_clip_norm")
    train_state.skipped += 1
    if rank() == 0:
        train_step.warn(f"{fault}; batch skipped, {train_state.skipped} of at most {limit}")


def _finish_epoch(train_state: TrainState, row: dict[str, float], train_step: TrainStep) -> None:
    """Record an epoch, and its weights if its held-out score is the best so far."""
    train_state.epoch, train_state.step, train_state.sums = train_state.epoch + 1, 0, []
    train_state.history.append(row)
    train_step.store(train_state)
    if not train_state.best_weights or row["holdout_score"] > train_state.best_score:
        train_state.best_score, train_state.best_epoch = row["holdout_score"], train_state.epoch
        train_state.best_weights = copy_weights(train_step.evaluated_network)


def _is_out_of_patience(train_state: TrainState, stage: StageConfig) -> bool:
    return bool(stage.patience) and train_state.epoch - train_state.best_epoch >= stage.patience


def _learning_rate(stage: StageConfig, epoch: int, step: int) -> float:
    warmup = min(1.0, (step + 1) / stage.warmup_steps) if stage.warmup_steps else 1.0
    return stage.learning_rate * stage.lr_decay**epoch * warmup
