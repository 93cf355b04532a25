"""The training loop of one stage: plain PyTorch, the same on one device and in every worker of a DDP run."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from ssvos.checkpoint import difference, load_checkpoint
from ssvos.config import Config, StageConfig
from ssvos.data.augment import resize_scribble
from ssvos.data.clips import ClipDataset, ClipSource, ClipSpec, read_frame
from ssvos.data.index import IndexedVideo, read_index, videos_of
from ssvos.inference import segment
from ssvos.labels import object_ids, read_labels
from ssvos.losses.joint import JointLoss, joint_loss
from ssvos.metrics.region import region_similarity
from ssvos.models.network import Network
from ssvos.scribbles.store import read_store

log = logging.getLogger(__name__)
LOSS_TERMS = ("loss", "partial_cross_entropy", "auxiliary", "regularizer")


@dataclass
class Progress:
    """What a stage carries from epoch to epoch; plain values and tensors, so that it saves and loads safely."""

    epoch: int = 0  # epochs done
    chosen_by: str = ""
    best_score: float = float("-inf")
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class EpochReport:
    """One epoch's row of the history, its speed, and the progress from which the run can go on."""

    row: dict[str, float]
    clips_per_second: float
    progress: Progress

    def line(self, label: str, epochs: int) -> str:
        """What a person reads while it runs."""
        row = self.row
        name = "J" if self.progress.chosen_by == "J" else "score"
        best = "  best" if self.progress.best_epoch == row["epoch"] else ""
        return (
            f"{label}  epoch {row['epoch']}/{epochs}  loss {row['loss']:.3f}  "
            f"held-out {name} {row['holdout_score']:.3f}  {self.clips_per_second:.1f} clips/s{best}"
        )


@dataclass(frozen=True)
class TrainingData:
    """Clips to fit and held-out videos to choose by; `choose_by` is `J` where they have masks, else `loss`."""

    fit: ClipSource
    holdout: ClipSource
    choose_by: str


def training_data(index: Path, scribbles: Path, roots: Mapping[str, Path], config: Config) -> TrainingData:
    """Clips of the index's `train` rows and held-out videos of its `holdout` rows."""
    store = read_store(scribbles)
    videos = videos_of(read_index(index))
    weights = {source.name: source.weight for source in config.data.sources}
    parts = {}
    for split in ("train", "holdout"):
        chosen = [video for video in videos if video.split == split]
        if not chosen:
            raise ValueError(f"{index}: no sequence of split {split!r}; prepare the data again")
        parts[split] = ClipSource(chosen, roots, weights, store)
    return TrainingData(parts["train"], parts["holdout"], _choose_by(parts["holdout"].videos))


def _choose_by(videos: Sequence[IndexedVideo]) -> str:
    return "J" if all(any(f.mask_path for f in video.frames[1:]) for video in videos) else "loss"


def require_clips(index: pa.Table, config: Config, stage: StageConfig, scribbles: Path | None = None) -> None:
    """ValueError now for data that no epoch could be drawn of: before a worker starts, or anything is written.

    scribbles: the store of the index, where there is one already.
    """
    weights = {source.name: source.weight for source in config.data.sources}
    videos = [video for video in videos_of(index) if video.split in ("train", "holdout")]
    strange = {video.dataset for video in videos} - weights.keys()
    if strange:
        raise ValueError(f"the index is of source {min(strange)}, not of data.sources; prepare the data again")
    if scribbles:
        labelled = {
            (v.dataset, v.sequence, frame.name) for v in videos for frame in v.frames if frame.objects is not None
        }
        missing = labelled - set(read_store(scribbles))
        if missing:
            raise ValueError(f"{scribbles}: has none of {'/'.join(min(missing)[1:])}; make the scribbles again")
    parts = {split: [video for video in videos if video.split == split] for split in ("train", "holdout")}
    for split, chosen in parts.items():
        if split == "train" or _choose_by(chosen) == "loss":
            ClipSource(chosen, {}, weights, {}).draw(stage, config.train.seed, 0)


def first_network(config: Config, start: str | Path = "") -> Network:
    """The network a stage begins with: a checkpoint's, or a new one whose random weights follow from the seed."""
    if start:
        network, info = load_checkpoint(start)
        if info.model != config.model:
            raise ValueError(f"{start}: {difference(info.model, config.model)}; train its stage again")
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
    resume: Progress | None = None,
    num_loaders: int = 0,
) -> Progress:
    """Train one stage and keep the weights of the best held-out score.

    In an initialised process group every rank calls this with the same arguments; a global batch is shared out by
    rank, so that the same clips make up a step whatever the number of workers.
    report: called on every rank after each epoch; the progress it is given goes on changing afterwards.
    resume: a progress to go on from. num_loaders: reading processes.
    Raises ValueError if the batch cannot be shared out, FloatingPointError if the loss is not finite.
    """
    if stage.batch_clips % _world_size():
        raise ValueError(
            f"batch_clips {stage.batch_clips} cannot be shared by {_world_size()} workers; "
            "make it a multiple of their number"
        )
    # gradients of a saturated softmax underflow; denormal numbers would make CPU convolutions several times slower
    torch.set_flush_denormal(True)
    network.to(device)
    optimizer = torch.optim.Adam(_groups(network, stage.weight_decay), lr=stage.learning_rate, fused=True)
    progress = resume or Progress(chosen_by=data.choose_by)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(stage.average)) if stage.average else None
    if progress.epoch:
        network.load_state_dict(progress.weights)
        optimizer.load_state_dict(progress.optimizer)
        if average:
            average.load_state_dict(progress.average)
    learner = _Learner(_distribute(network), network, optimizer, average)
    while progress.epoch < stage.epochs and not _exhausted(progress, stage):
        started = time.perf_counter()
        row, num_clips = _train_epoch(learner, data.fit, config, stage, device, progress.epoch, num_loaders)
        speed = num_clips / (time.perf_counter() - started)
        row |= holdout_score(learner.judged, data, config, stage, device)
        _record(progress, row, learner)
        report(EpochReport(row, speed, progress))
    return progress


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


@dataclass(frozen=True)
class _Learner:
    """model: the network, wrapped for DDP where there are several workers; average: its running average, if any."""

    model: nn.Module
    network: Network
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None

    @property
    def judged(self) -> Network:
        """The weights that are scored and kept."""
        return self.average.module if self.average else self.network


def _train_epoch(
    learner: _Learner,
    source: ClipSource,
    config: Config,
    stage: StageConfig,
    device: torch.device | str,
    epoch: int,
    num_loaders: int,
) -> tuple[dict[str, float], int]:
    model, optimizer = learner.model, learner.optimizer
    model.train()
    specs = source.draw(stage, config.train.seed, epoch)
    steps = len(specs) // stage.batch_clips
    if steps == 0:
        raise ValueError(f"clips_per_epoch {stage.clips_per_epoch} is less than one batch of {stage.batch_clips}")
    totals = torch.zeros(len(LOSS_TERMS), dtype=torch.float64)
    for step, batch in enumerate(_batches(source, specs, config, stage, num_loaders)):
        rate = _learning_rate(stage, epoch, epoch * steps + step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        share = min(1.0, (epoch * steps + step) / stage.ramp) if stage.ramp else 1.0
        moved = {name: value.to(device) for name, value in batch.items()}
        optimizer.zero_grad(set_to_none=True)  # before the forward pass, which then has their memory
        terms = _loss(model, moved, config, stage.auxiliary_weight, share, stage.precision)
        _require_finite(terms.total, epoch, step, specs, stage.batch_clips, source.videos)
        terms.total.backward()
        if stage.max_norm:
            nn.utils.clip_grad_norm_(model.parameters(), stage.max_norm)
        optimizer.step()
        if learner.average:
            learner.average.update_parameters(learner.network)
        totals += torch.tensor([float(term.detach()) for term in terms], dtype=torch.float64)
    means = _mean_over_ranks(totals / steps)
    row = {"epoch": epoch + 1, "learning_rate": rate}
    return row | dict(zip(LOSS_TERMS, means.tolist(), strict=True)), steps * stage.batch_clips


def _loss(
    model: nn.Module,
    batch: dict[str, Tensor],
    config: Config,
    auxiliary_weight: float,
    share: float = 1.0,
    precision: str = "float32",
) -> JointLoss:
    """share: of the regularizer's weight."""
    loss = config.loss.model_copy(update={"weight": share * config.loss.weight})
    frames = batch["frames"]
    with torch.autocast(frames.device.type, getattr(torch, precision), enabled=precision != "float32"):
        prediction = model(frames, batch["scribble"])
    return joint_loss(prediction, frames, batch["target"], loss, auxiliary_weight, batch["regularized"])


def _batches(
    source: ClipSource, specs: Sequence[ClipSpec], config: Config, stage: StageConfig, num_loaders: int
) -> Iterator[dict[str, Tensor]]:
    """This rank's share of every global batch, in order."""
    size, rank, world = stage.batch_clips, _rank(), _world_size()
    share = size // world
    mine = [
        spec
        for start in range(0, len(specs) - size + 1, size)
        for spec in specs[start + rank * share : start + (rank + 1) * share]
    ]
    dataset = ClipDataset(source, mine, stage, config.train.augment, config.model.input_share)
    return iter(DataLoader(dataset, batch_size=share, num_workers=num_loaders, shuffle=False))


@torch.no_grad()
def holdout_score(
    network: Network, data: TrainingData, config: Config, stage: StageConfig, device: torch.device | str
) -> dict[str, float]:
    """Held-out quality, larger is better: `holdout_score`, the mean J over objects of frames 1.. where the videos have
    masks, else minus the partial cross-entropy of fixed clips. The videos are shared out by rank."""
    network.eval()
    videos = data.holdout.videos[_rank() :: _world_size()]
    if data.choose_by == "J":
        scores = [score for video in videos for score in _video_scores(network, video, data.holdout, stage)]
        total = torch.tensor([sum(scores), len(scores)], dtype=torch.float64)
    else:
        total = _holdout_loss(network, data.holdout, config, stage, device)
    total = _mean_over_ranks(total)
    return {"holdout_score": float(total[0] / total[1].clamp(min=1e-9))}


def _video_scores(network: Network, video: IndexedVideo, source: ClipSource, stage: StageConfig) -> list[float]:
    """Mean J of each object of a video over the frames after the first that have a mask, at the stage's size."""
    height, width = stage.height, stage.width
    root = source.roots[video.dataset]
    start = next(t for t, frame in enumerate(video.frames) if frame.objects)
    frames = video.frames[start:][: stage.holdout_frames or None]
    first = resize_scribble(source.scribbles[(video.dataset, video.sequence, frames[0].name)], height, width)
    images = (read_frame(root / frame.image_path, height, width) for frame in frames)
    ids = object_ids(first)
    scores: dict[int, list[float]] = {i: [] for i in ids}
    for frame, mask in zip(frames, segment(network, images, {0: first}), strict=True):
        if frame.mask_path is None or frame is frames[0]:
            continue
        truth = _nearest(read_labels(root / frame.mask_path), height, width)
        for i in ids:
            scores[i].append(region_similarity(truth == i, mask == i))
    return [float(np.mean(values)) for values in scores.values() if values]


def _nearest(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(int)
    return mask[rows[:, None], columns]


def _holdout_loss(
    network: Network, source: ClipSource, config: Config, stage: StageConfig, device: torch.device | str
) -> Tensor:
    """(minus summed pCE, number of clips) of clips that are the same in every epoch."""
    fixed = stage.model_copy(update={"clips_per_epoch": 4 * len(source.videos)})
    specs = source.draw(fixed, config.train.seed, 0)[_rank() :: _world_size()]
    dataset = ClipDataset(source, specs, stage, type(config.train.augment)(flip=0.0), config.model.input_share)
    plain = config.model_copy(update={"loss": config.loss.model_copy(update={"regularizer": "none"})})
    total = torch.zeros(2, dtype=torch.float64)
    for item in dataset:
        batch = {name: value[None].to(device) for name, value in item.items()}
        loss = _loss(network, batch, plain, auxiliary_weight=0.0).partial_cross_entropy
        total += torch.tensor([-float(loss), 1.0], dtype=torch.float64)
    return total


def _record(progress: Progress, row: dict[str, float], learner: _Learner) -> None:
    progress.epoch += 1
    progress.history.append(row)
    progress.weights = _copied(learner.network)
    progress.optimizer = learner.optimizer.state_dict()
    progress.average = _copied(learner.average) if learner.average else {}
    if not progress.best_weights or row["holdout_score"] > progress.best_score:
        progress.best_score, progress.best_epoch = row["holdout_score"], progress.epoch
        progress.best_weights = _copied(learner.judged)


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def _exhausted(progress: Progress, stage: StageConfig) -> bool:
    return bool(stage.patience) and progress.epoch - progress.best_epoch >= stage.patience


def _learning_rate(stage: StageConfig, epoch: int, step: int) -> float:
    warm = min(1.0, (step + 1) / stage.warmup) if stage.warmup else 1.0
    return stage.learning_rate * stage.decay**epoch * warm


def _require_finite(
    loss: Tensor, epoch: int, step: int, specs: Sequence[ClipSpec], size: int, videos: Sequence[IndexedVideo]
) -> None:
    if torch.isfinite(loss):
        return
    batch = specs[step * size : (step + 1) * size]
    named = ", ".join(f"{videos[s.video].sequence} frames {s.positions[0]}-{s.positions[-1]}" for s in batch)
    raise FloatingPointError(
        f"loss is {float(loss.detach())} in epoch {epoch + 1}, step {step + 1} ({named}); "
        "lower learning_rate or set max_norm"
    )


def _distribute(network: Network) -> nn.Module:
    if _world_size() == 1:
        return network
    # with the fine mask as state the coarse classifier is used by the auxiliary loss alone, which may be off
    unused = network.config.state == "fine"
    return DistributedDataParallel(network, broadcast_buffers=False, find_unused_parameters=unused)


def _mean_over_ranks(values: Tensor) -> Tensor:
    if _world_size() == 1:
        return values
    on_gpu = dist.get_backend() == "nccl"
    moved = values.float().cuda() if on_gpu else values.clone()
    dist.all_reduce(moved)
    return moved.cpu().to(values.dtype) / _world_size()


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
