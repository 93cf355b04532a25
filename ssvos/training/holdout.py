"""The held-out score, which chooses a stage's checkpoint."""

import numpy as np
import torch
from torch import Tensor

from ssvos.config import AugmentConfig, Config, StageConfig
from ssvos.data.augment import resize_scribble
from ssvos.data.clip_sources import read_frame, read_mask
from ssvos.data.clips import ClipDataset, ClipSampler
from ssvos.data.index import IndexedVideo
from ssvos.inference.segmenter import segment
from ssvos.labels import object_ids
from ssvos.metrics.region import region_similarity
from ssvos.models.network import Network
from ssvos.training.distributed import mean_over_ranks, rank, world_size
from ssvos.training.train_step import loss_terms
from ssvos.training.training_data import TrainingData


@torch.no_grad()
def holdout_score(
    network: Network, data: TrainingData, config: Config, stage: StageConfig, device: torch.device | str
) -> dict[str, float]:
    """Score the held-out videos; a larger score is better. Every rank scores its share of the videos.

    Videos of a source that has weight 0 in the stage do not count, unless all held-out videos are of such sources.
    returns: {"holdout_score": score}. With masks (`data.choose_by` is `J`) it is the mean J over the objects, in all
        frames but the first; without masks it is minus the mean partial cross-entropy of a fixed set of clips.
    """
    network.eval()
    of_stage = [video for video in data.holdout.videos if stage.weights.get(video.dataset, 1.0) > 0]
    videos = (of_stage or data.holdout.videos)[rank() :: world_size()]
    if data.choose_by == "J":
        scores = [score for video in videos for score in _object_scores(network, video, data.holdout, stage)]
        total = torch.tensor([sum(scores), len(scores)], dtype=torch.float64)
    else:
        total = _negative_loss(network, data.holdout, config, stage, device)
    total = mean_over_ranks(total)
    return {"holdout_score": float(total[0] / total[1].clamp(min=1e-9))}


def _object_scores(network: Network, video: IndexedVideo, sampler: ClipSampler, stage: StageConfig) -> list[float]:
    """Mean J of each object of a video over the annotated frames after the first, at the stage's frame size."""
    height, width = stage.height, stage.width
    root = sampler.roots[video.dataset]
    start = next(t for t, frame in enumerate(video.frames) if frame.objects)
    frames = video.frames[start:][: stage.holdout_frames or None]
    scribble = resize_scribble(sampler.scribbles[(video.dataset, video.sequence, frames[0].name)], height, width)
    images = (read_frame(root / frame.image_path, height, width) for frame in frames)
    ids = object_ids(scribble)
    scores: dict[int, list[float]] = {i: [] for i in ids}
    for frame, predicted in zip(frames, segment(network, images, {0: scribble}), strict=True):
        if frame.mask_path is None or frame is frames[0]:
            continue
        truth = read_mask(root / frame.mask_path, height, width)
        for i in ids:
            scores[i].append(region_similarity(truth == i, predicted == i))
    return [float(np.mean(values)) for values in scores.values() if values]


def _negative_loss(
    network: Network, sampler: ClipSampler, config: Config, stage: StageConfig, device: torch.device | str
) -> Tensor:
    """Minus the summed partial cross-entropy, and the number of clips, of clips that are the same in every epoch."""
    fixed = stage.model_copy(update={"clips_per_epoch": 4 * len(sampler.videos)})
    specs = sampler.draw(fixed, config.train.seed, 0)[rank() :: world_size()]
    dataset = ClipDataset(sampler, specs, stage, AugmentConfig(flip=0.0), config.model.input_share)
    unregularized = config.loss.model_copy(update={"regularizer": "none"})
    total = torch.zeros(2, dtype=torch.float64)
    for number in range(len(dataset)):
        batch = {name: value[None].to(device) for name, value in dataset[number].items()}
        loss = loss_terms(network, batch, unregularized, auxiliary_weight=0.0).partial_cross_entropy
        total += torch.tensor([-float(loss), 1.0], dtype=torch.float64)
    return total
