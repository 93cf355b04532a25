"""The training loop of one stage: plain PyTorch, the same on one device and in every worker of a DDP run."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ssvos.config import Config, StageConfig
from ssvos.data.augment import resize_scribble
from ssvos.data.clip_sources import Renderer, read_frame, read_mask
from ssvos.data.clips import ClipDataset, ClipSampler, ClipSpec, Supervision
from ssvos.data.index import IndexedVideo, read_index, videos_of
from ssvos.device import deterministic, use_threads
from ssvos.hardware import peak_bytes
from ssvos.inference.segmenter import segment
from ssvos.labels import object_ids
from ssvos.losses.joint import JointLoss
from ssvos.metrics.region import region_similarity
from ssvos.models.checkpoint import difference, load_checkpoint
from ssvos.models.network import Network
from ssvos.scribbles.store import read_store
from ssvos.training.distributed import mean_over_ranks, rank, world_size
from ssvos.training.train_state import EpochReport, TrainState
from ssvos.training.train_step import TrainStep, copied, loss_terms

log = logging.getLogger(__name__)
_PREFETCHED = 4  # batches that each reading process is ahead
LOSS_TERMS = ("loss", *JointLoss._fields[1:])


@dataclass(frozen=True)
class TrainingData:
    """Clips to fit and held-out videos to choose by; `choose_by` is `J` where they have masks, else `loss`."""

    fit: ClipSampler
    holdout: ClipSampler
    choose_by: str


def training_data(
    index: Path, scribbles: Path, roots: Mapping[str, Path], config: Config, cache: Path | None = None
) -> TrainingData:
    """Clips of the index's `train` rows and held-out videos of its `holdout` rows. cache: of rendered clips."""
    store = read_store(scribbles)
    videos = videos_of(read_index(index))
    weights = {source.name: source.weight for source in config.data.sources}
    parts = {}
    for split in ("train", "holdout"):
        chosen = [video for video in videos if video.split == split]
        if not chosen:
            raise ValueError(f"{index}: no sequence of split {split!r}; prepare the data again")
        is_fit = split == "train"
        supervision, renderers = (_supervision(config), _renderers(config, cache)) if is_fit else ({}, {})
        parts[split] = ClipSampler(chosen, roots, weights, store, supervision, renderers)
    return TrainingData(parts["train"], parts["holdout"], _choose_by(parts["holdout"].videos))


def _choose_by(videos: Sequence[IndexedVideo]) -> str:
    return "J" if all(any(f.mask_path for f in video.frames[1:]) for video in videos) else "loss"


def _supervision(config: Config) -> dict[str, Supervision]:
    return {s.name: Supervision(s.scribble_every, s.dense_every) for s in config.data.sources}


def _renderers(config: Config, cache: Path | None = None) -> dict[str, Renderer]:
    return {s.name: Renderer(config.synthetic, config.scribbles, cache) for s in config.data.sources if s.unlimited}


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
    for source in config.data.sources:
        own = [video for video in parts["train"] if video.dataset == source.name]
        if source.dense_every and not any(frame.mask_path for video in own for frame in video.frames):
            raise ValueError(f"data.sources: {source.name} has no dense mask to train on; set its dense_every to 0")
    drawn_from = ClipSampler(parts["train"], {}, weights, {}, _supervision(config), _renderers(config))
    drawn_from.draw(stage, config.train.seed, 0)
    if _choose_by(parts["holdout"]) == "loss":
        ClipSampler(parts["holdout"], {}, weights, {}).draw(stage, config.train.seed, 0)


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
    resume: TrainState | None = None,
    num_loaders: int = 0,
    save: Callable[[TrainState], None] | None = None,
    say: Callable[[str], None] = log.warning,
) -> TrainState:
    """Train one stage and keep the weights of the best held-out score.

    In an initialised process group every rank calls this with the same arguments; a global batch is shared out by
    rank, so that the same clips make up a step whatever the number of workers.
    report: called on every rank after each epoch; save: on every rank after each `save_every` steps of an epoch. The
    progress that they are given goes on changing afterwards. resume: a progress to go on from, of either.
    num_loaders: reading processes. say: takes a line of what goes wrong and does not stop the training.
    Raises ValueError if the batch cannot be shared out, FloatingPointError if the loss is not finite.
    """
    if stage.batch_clips % (world_size() * stage.accumulate):
        parts = f" in {stage.accumulate} parts" if stage.accumulate > 1 else ""
        raise ValueError(
            f"batch_clips {stage.batch_clips} cannot be shared by {world_size()} workers{parts}; "
            f"make it a multiple of {world_size() * stage.accumulate}"
        )
    # gradients of a saturated softmax underflow; denormal numbers would make CPU convolutions several times slower
    torch.set_flush_denormal(True)
    progress = resume or TrainState(chosen_by=data.choose_by)
    with deterministic(config.train.deterministic):
        learner = TrainStep(network, config, stage, torch.device(device), say)
        if progress.weights:
            learner.load(progress)
        while progress.epoch < stage.epochs and not _exhausted(progress, stage):
            row, speed = _train_epoch(learner, data.fit, progress, num_loaders, save)
            row |= holdout_score(learner.judged, data, config, stage, device)
            _record(progress, row, learner)
            report(EpochReport(row, speed, progress))
    return progress


def _train_epoch(
    learner: TrainStep,
    source: ClipSampler,
    progress: TrainState,
    num_loaders: int,
    save: Callable[[TrainState], None] | None,
) -> tuple[dict[str, float], dict[str, float]]:
    """Take the steps that are left of an epoch -> its row of the history, and the speed of these steps."""
    config, stage, epoch, first = learner.config, learner.stage, progress.epoch, progress.step
    learner.model.train()
    specs = source.draw(stage, config.train.seed, epoch)
    steps = len(specs) // stage.batch_clips
    if steps == 0:
        raise ValueError(f"clips_per_epoch {stage.clips_per_epoch} is less than one batch of {stage.batch_clips}")
    sums = torch.tensor(progress.sums or [0.0] * (len(LOSS_TERMS) + 1), dtype=torch.float64)
    watch = _Watch(learner.device)
    rest, pinned = specs[first * stage.batch_clips :], learner.device.type == "cuda"
    batches = _batches(source, rest, config, stage, num_loaders, pinned)
    for step, batch in enumerate(watch.waiting(batches), first):
        taken = epoch * steps + step
        share = min(1.0, taken / stage.ramp_steps) if stage.ramp_steps else 1.0
        terms = learner.step(batch, _learning_rate(stage, epoch, taken), share)
        if torch.isfinite(terms[0]):
            sums += torch.cat([terms, torch.ones(1, dtype=torch.float64)])
        else:
            clips = ", ".join(map(source.name, specs[step * stage.batch_clips :][: stage.batch_clips]))
            _leave_out(learner, progress, f"loss is {float(terms[0])} in epoch {epoch + 1}, step {step + 1} ({clips})")
        if save and stage.save_every and (step + 1) % stage.save_every == 0:
            progress.step, progress.sums = step + 1, mean_over_ranks(sums).tolist()
            learner.store(progress)
            save(progress)
    means = mean_over_ranks(sums)
    row = {"epoch": epoch + 1, "learning_rate": _learning_rate(stage, epoch, epoch * steps + steps - 1)}
    row |= dict(zip(LOSS_TERMS, (means[:-1] / means[-1]).tolist(), strict=True))
    return row, watch.speed((steps - first) * stage.batch_clips)


class _Watch:
    """Takes the time of an epoch's steps, that of waiting for their batches, and the memory they take."""

    def __init__(self, device: torch.device):
        self.device, self.started, self.waited = device, time.perf_counter(), 0.0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def waiting(self, batches: Iterator[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def speed(self, num_clips: int) -> dict[str, float]:
        """The figures of EpochReport; memory is the device's, on a CPU that of the process since it began."""
        seconds = time.perf_counter() - self.started
        peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else peak_bytes()
        return {
            "clips_per_second": num_clips / seconds,
            "data_wait_share": self.waited / seconds,
            "peak_memory_gb": peak / 1e9,
        }


def _leave_out(learner: TrainStep, progress: TrainState, fault: str) -> None:
    """Count a batch that is left out; FloatingPointError if it is one too many."""
    limit = learner.config.train.max_skipped_batches
    if progress.skipped == limit:
        also = f", after {limit} batches left out" if limit else ""
        raise FloatingPointError(f"{fault}{also}; lower learning_rate or set grad_clip_norm")
    progress.skipped += 1
    if rank() == 0:
        learner.say(f"{fault}; batch left out, {progress.skipped} of at most {limit}")


def _batches(
    source: ClipSampler,
    specs: Sequence[ClipSpec],
    config: Config,
    stage: StageConfig,
    num_loaders: int,
    pinned: bool = False,
) -> Iterator[dict[str, Tensor]]:
    """This rank's share of every global batch, in order."""
    size, share = stage.batch_clips, stage.batch_clips // world_size()
    mine = [
        spec
        for start in range(0, len(specs) - size + 1, size)
        for spec in specs[start + rank() * share : start + (rank() + 1) * share]
    ]
    dataset = ClipDataset(source, mine, stage, config.train.augment, config.model.input_share)
    # a generator of its own: the loader would draw from the global one, whose state a resumed run must find as it was
    generator = torch.Generator()
    loader = DataLoader(
        dataset,
        share,
        num_workers=num_loaders,
        shuffle=False,
        generator=generator,
        pin_memory=pinned,
        prefetch_factor=_PREFETCHED if num_loaders else None,
        worker_init_fn=_one_thread,
    )
    return iter(loader)


def _one_thread(_: int) -> None:
    """Reading processes are many already."""
    use_threads(1)


@torch.no_grad()
def holdout_score(
    network: Network, data: TrainingData, config: Config, stage: StageConfig, device: torch.device | str
) -> dict[str, float]:
    """Held-out quality, larger is better: `holdout_score`, the mean J over objects of frames 1.. where the videos have
    masks, else minus the partial cross-entropy of fixed clips. The videos are shared out by rank; those of a source
    that the stage leaves out do not choose, where there are others."""
    network.eval()
    choosing = [video for video in data.holdout.videos if stage.weights.get(video.dataset, 1.0) > 0]
    videos = (choosing or data.holdout.videos)[rank() :: world_size()]
    if data.choose_by == "J":
        scores = [score for video in videos for score in _video_scores(network, video, data.holdout, stage)]
        total = torch.tensor([sum(scores), len(scores)], dtype=torch.float64)
    else:
        total = _holdout_loss(network, data.holdout, config, stage, device)
    total = mean_over_ranks(total)
    return {"holdout_score": float(total[0] / total[1].clamp(min=1e-9))}


def _video_scores(network: Network, video: IndexedVideo, source: ClipSampler, stage: StageConfig) -> list[float]:
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
        truth = read_mask(root / frame.mask_path, height, width)
        for i in ids:
            scores[i].append(region_similarity(truth == i, mask == i))
    return [float(np.mean(values)) for values in scores.values() if values]


def _holdout_loss(
    network: Network, source: ClipSampler, config: Config, stage: StageConfig, device: torch.device | str
) -> Tensor:
    """(minus summed pCE, number of clips) of clips that are the same in every epoch."""
    fixed = stage.model_copy(update={"clips_per_epoch": 4 * len(source.videos)})
    specs = source.draw(fixed, config.train.seed, 0)[rank() :: world_size()]
    dataset = ClipDataset(source, specs, stage, type(config.train.augment)(flip=0.0), config.model.input_share)
    plain = config.loss.model_copy(update={"regularizer": "none"})
    total = torch.zeros(2, dtype=torch.float64)
    for item in dataset:
        batch = {name: value[None].to(device) for name, value in item.items()}
        loss = loss_terms(network, batch, plain, auxiliary_weight=0.0).partial_cross_entropy
        total += torch.tensor([-float(loss), 1.0], dtype=torch.float64)
    return total


def _record(progress: TrainState, row: dict[str, float], learner: TrainStep) -> None:
    progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, []
    progress.history.append(row)
    learner.store(progress)
    if not progress.best_weights or row["holdout_score"] > progress.best_score:
        progress.best_score, progress.best_epoch = row["holdout_score"], progress.epoch
        progress.best_weights = copied(learner.judged)


def _exhausted(progress: TrainState, stage: StageConfig) -> bool:
    return bool(stage.patience) and progress.epoch - progress.best_epoch >= stage.patience


def _learning_rate(stage: StageConfig, epoch: int, step: int) -> float:
    warm = min(1.0, (step + 1) / stage.warmup_steps) if stage.warmup_steps else 1.0
    return stage.learning_rate * stage.lr_decay**epoch * warm
