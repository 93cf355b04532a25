"""The data of a training stage: clips to train on, held-out videos that choose the checkpoint, and batches of clips."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ssvos.config import Config, StageConfig
from ssvos.data.clip_sources import Renderer
from ssvos.data.clips import ClipDataset, ClipSampler, ClipSpec, Supervision
from ssvos.data.index import IndexedVideo, read_index, videos_of
from ssvos.device import use_threads
from ssvos.scribbles.store import STORE_SCHEMA, ScribbleStore, read_store
from ssvos.training.distributed import rank, world_size

_PREFETCHED_BATCHES = 4  # by each loader process


@dataclass(frozen=True)
class TrainingData:
    """The data of one stage.

    fit: sampler of the training clips.
    holdout: the held-out videos.
    choose_by: the held-out measure that chooses the checkpoint: `J` if the held-out videos have masks, else `loss`.
    """

    fit: ClipSampler
    holdout: ClipSampler
    choose_by: str


def training_data(
    index: Path, scribbles: Path, roots: Mapping[str, Path], config: Config, cache: Path | None = None
) -> TrainingData:
    """Read the `train` and `holdout` rows of an index and their scribbles.

    index, scribbles: the Parquet files of the stages `prepare` and `scribbles`.
    roots: the folder of each source.
    cache: a folder for rendered clips.
    """
    store = read_store(scribbles)
    videos = videos_of(read_index(index))
    weights = {source.name: source.weight for source in config.data.sources}
    samplers = {}
    for split in ("train", "holdout"):
        chosen = [video for video in videos if video.split == split]
        if not chosen:
            raise ValueError(f"{index}: no sequence of split {split!r}; prepare the data again")
        is_fit = split == "train"
        supervision, renderers = (_supervision(config), _renderers(config, cache)) if is_fit else ({}, {})
        samplers[split] = ClipSampler(chosen, roots, weights, store, supervision, renderers)
    return TrainingData(samplers["train"], samplers["holdout"], _choose_by(samplers["holdout"].videos))


def _choose_by(videos: Sequence[IndexedVideo]) -> str:
    return "J" if all(any(frame.mask_path for frame in video.frames[1:]) for video in videos) else "loss"


def _supervision(config: Config) -> dict[str, Supervision]:
    return {s.name: Supervision(s.scribble_every, s.dense_every) for s in config.data.sources}


def _renderers(config: Config, cache: Path | None = None) -> dict[str, Renderer]:
    return {s.name: Renderer(config.synthetic, config.scribbles, cache) for s in config.data.sources if s.unlimited}


def require_clips(index: pa.Table, config: Config, stage: StageConfig, scribbles: Path | None = None) -> None:
    """Check that a stage can draw its clips from an index, before a worker starts and before anything is written.

    scribbles: the scribble store of the index, if it exists already.
    Raises ValueError for data of other sources or scribbles, and where no clip can be drawn.
    """
    weights = {source.name: source.weight for source in config.data.sources}
    videos = [video for video in videos_of(index) if video.split in ("train", "holdout")]
    unknown = {video.dataset for video in videos} - weights.keys()
    if unknown:
        raise ValueError(f"the index has videos of {min(unknown)}, which data.sources lacks; prepare the data again")
    if scribbles:
        _require_scribbles(videos, scribbles)
    train, holdout = ([video for video in videos if video.split == split] for split in ("train", "holdout"))
    for source in config.data.sources:
        own = [video for video in train if video.dataset == source.name]
        if source.dense_every and not any(frame.mask_path for video in own for frame in video.frames):
            raise ValueError(f"data.sources: {source.name} has no dense mask to train on; set its dense_every to 0")
    no_scribbles = ScribbleStore(STORE_SCHEMA.empty_table())  # which drawing does not read
    sampler = ClipSampler(train, {}, weights, no_scribbles, _supervision(config), _renderers(config))
    sampler.draw(stage, config.train.seed, 0)
    if _choose_by(holdout) == "loss":
        ClipSampler(holdout, {}, weights, no_scribbles).draw(stage, config.train.seed, 0)


def _require_scribbles(videos: Sequence[IndexedVideo], scribbles: Path) -> None:
    labelled = {(v.dataset, v.sequence, frame.name) for v in videos for frame in v.frames if frame.objects is not None}
    missing = labelled - set(read_store(scribbles))
    if missing:
        raise ValueError(f"{scribbles}: has no scribble of {'/'.join(min(missing)[1:])}; make the scribbles again")


def batches(
    sampler: ClipSampler,
    specs: Sequence[ClipSpec],
    config: Config,
    stage: StageConfig,
    num_loaders: int,
    pin_memory: bool = False,
) -> Iterator[dict[str, Tensor]]:
    """This rank's part of every global batch, in order. Clips that do not fill a global batch are left out.

    num_loaders: number of processes that read clips; 0: this process reads them.
    pin_memory: whether to put batches into page-locked memory, from which a GPU copies them without waiting.
    """
    size, share = stage.batch_clips, stage.batch_clips // world_size()
    own_specs = [
        spec
        for start in range(0, len(specs) - size + 1, size)
        for spec in specs[start + rank() * share : start + (rank() + 1) * share]
    ]
    dataset = ClipDataset(sampler, own_specs, stage, config.train.augment, config.model.input_share)
    loader = DataLoader(
        dataset,
        share,
        num_workers=num_loaders,
        shuffle=False,
        # without its own generator the loader draws from the global one, whose state a resumed run restores
        generator=torch.Generator(),
        pin_memory=pin_memory,
        prefetch_factor=_PREFETCHED_BATCHES if num_loaders else None,
        worker_init_fn=_use_one_thread,
    )
    return iter(loader)


def _use_one_thread(_worker: int) -> None:
    """Loaders are parallel processes, so each needs a single thread."""
    use_threads(1)
