"""The plan of a run: its time, memory and disk space on this machine, from a profile of the network and video
counts."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch

from ssvos.config import Config, StageConfig, parse
from ssvos.config.variants import Params, merge
from ssvos.device import choose_device
from ssvos.hardware import Machine
from ssvos.planning.profile import NetworkProfile
from ssvos.planning.profiler import profile_network, reading_seconds
from ssvos.planning.video_counts import SourceCounts, count_sources

STAGES = ("stage1", "stage2")
_ASSUMED_SIZE, _ASSUMED_OBJECTS = (480, 854), 2  # of videos whose folder is not known yet
# seconds of a stage besides its work, measured on two CPU cores: start of Ray, PyTorch and MLflow, output files, DVC
_START_TRAINING, _START_SEARCH, _START_MASKS, _START_SCORES, _START_REST = 38.0, 30.0, 18.0, 6.0, 58.0
# seconds per megapixel of the videos' own frames on one core: checking, scribbling, a baseline's mask of one object,
# and scoring one variant
_CHECKING, _SCRIBBLING, _BASELINE, _SCORING = 0.03, 0.04, 0.6, 0.03
_RENDERING = 0.3  # the same, of the embedded data set
# memory of allocators and kernels as a factor of that of the tensors, and the bytes of a CUDA process without tensors
_CPU_OVERHEAD, _GPU_OVERHEAD, _GPU_CONTEXT = 1.2, 1.1, 6e8
_MASK_BYTES = 4000  # of a palette PNG at 480p
_COPIES = 3  # of an output: in the workspace, in DVC's cache and, of a checkpoint, in MLflow's artifacts
_NUM_BASELINES = 4


@dataclass(frozen=True)
class StageCosts:
    """The costs of one stage of one variant.

    training: seconds of training.
    scoring: seconds of scoring the held-out videos.
    memory: peak bytes of a worker.
    """

    training: float
    scoring: float
    memory: float

    @property
    def seconds(self) -> float:
        """Seconds of the stage."""
        return self.training + self.scoring


@dataclass(frozen=True)
class VariantPlan:
    """The costs of one variant.

    stages: by the name of the stage.
    masks: seconds of prediction.
    on_gpu: bytes that one GPU needs if it takes whole batches.
    """

    profile: NetworkProfile
    stages: dict[str, StageCosts]
    masks: float
    on_gpu: float

    @property
    def seconds(self) -> float:
        """Seconds of training and prediction."""
        return sum(stage.seconds for stage in self.stages.values()) + self.masks


@dataclass(frozen=True)
class RunPlan:
    """The costs of a run.

    sources: the counted videos; None if a folder is not known yet. The times then lack everything that depends on it.
    workers: number of training workers, by the name of the stage.
    search: seconds of the search if no trial is stopped early.
    rest: seconds of everything else, including start-up.
    checkpoints, masks: approximate bytes on disk.
    """

    params: Params
    machine: Machine
    sources: tuple[SourceCounts, ...] | None
    workers: dict[str, int]
    variants: dict[str, VariantPlan]
    search: float
    rest: float
    checkpoints: float
    masks: float

    @property
    def seconds(self) -> float:
        """Seconds of the run."""
        return sum(variant.seconds for variant in self.variants.values()) + self.search + self.rest

    @property
    def memory(self) -> float:
        """Peak bytes of all workers of the largest stage; with GPUs, of the worker of one GPU."""
        peaks = {stage: max(v.stages[stage].memory for v in self.variants.values()) for stage in STAGES}
        return max(peak * (1 if self.machine.num_gpus else self.workers[stage]) for stage, peak in peaks.items())

    @property
    def has_room(self) -> bool:
        """Whether the machine has enough memory."""
        return self.memory <= (self.machine.gpu_memory or self.machine.memory)


def make_plan(
    params: Params,
    machine: Machine,
    requested_workers: int | None = None,
    tracked: Callable[[str, int], AbstractContextManager[Callable[[], None]]] | None = None,
) -> RunPlan:
    """Count the videos, profile the network of every variant, and estimate the costs of the run.

    requested_workers: number of training workers; None: the machine's default.
    tracked: `with tracked(what, total) as advance` shows progress.
    Raises FaultyData for a missing folder or list.
    """
    config = params.base
    _trial(params)  # reports a faulty search before the measurements
    sources = count_sources(config)
    workers = {
        name: machine.workers(_clips_in_memory(getattr(config.train, name)), requested_workers) for name in STAGES
    }
    variants: dict[str, VariantPlan] = {}
    progress = tracked("measuring", len(params.variants)) if tracked else nullcontext(lambda: None)
    with _worker_threads(machine, workers), progress as advance:
        for name, variant in params.variants.items():
            profile = _profile(variant, machine, sources)
            # memory that earlier measurements did not free does not belong to a worker
            resting = min([profile.resting, *(v.profile.resting for v in variants.values())])
            profile = replace(profile, resting=resting)
            variants[name] = _VariantCosts(variant, profile, machine, sources).plan(workers)
            advance()
    weights = [4 * variant.profile.parameters for variant in variants.values()]
    num_masks = sum(sum(source.val) for source in sources or ())
    return RunPlan(
        params,
        machine,
        sources,
        workers,
        variants,
        search=_search_seconds(params, variants, machine, workers, sources),
        rest=_rest_seconds(sources, machine, len(variants)),
        checkpoints=_COPIES * len(STAGES) * sum(weights),
        masks=(_COPIES - 1) * _MASK_BYTES * num_masks * (len(variants) + _NUM_BASELINES),
    )


@contextmanager
def _worker_threads(machine: Machine, workers: dict[str, int]) -> Iterator[None]:
    """Set PyTorch's number of threads to that of a worker of the run."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, machine.cpus // max(workers.values())))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _profile(config: Config, machine: Machine, sources: Sequence[SourceCounts] | None) -> NetworkProfile:
    sizes = [(stage.height, stage.width) for stage in (config.train.stage1, config.train.stage2)]
    largest = max(sizes, key=lambda size: size[0] * size[1])
    device = choose_device("cuda" if machine.num_gpus else "cpu")
    return profile_network(config, largest, _source_size(sources), round(_num_objects(sources)), device)


def _source_size(sources: Sequence[SourceCounts] | None) -> tuple[int, int]:
    """(height, width) of the largest frames of the videos."""
    return max((s.size for s in sources), key=lambda size: size[0] * size[1]) if sources else _ASSUMED_SIZE


def _num_objects(sources: Sequence[SourceCounts] | None) -> float:
    return sum(s.objects for s in sources) / len(sources) if sources else _ASSUMED_OBJECTS


@dataclass(frozen=True)
class _VariantCosts:
    """Computes the costs of one variant from its parameters and its profile."""

    config: Config
    profile: NetworkProfile
    machine: Machine
    sources: Sequence[SourceCounts] | None

    def plan(self, workers: dict[str, int]) -> VariantPlan:
        """All costs. workers: by the name of the stage."""
        train = self.config.train
        costs = {
            name: StageCosts(
                self.training(getattr(train, name), workers[name]),
                self.scoring(getattr(train, name), workers[name]),
                self.memory(getattr(train, name), workers[name], bool(self.machine.num_gpus)),
            )
            for name in STAGES
        }
        on_gpu = max(self.memory(stage, 1, True) for stage in (train.stage1, train.stage2))
        return VariantPlan(self.profile, costs, self.masks(), on_gpu)

    def training(self, stage: StageConfig, workers: int) -> float:
        """Seconds of a stage without scoring. A worker reads a batch, then takes the step."""
        share = stage.batch_clips // workers
        px = share * stage.height * stage.width
        step = self.profile.step_seconds(px, stage.clip_frames, self._regularized(stage))
        read = share * stage.clip_frames * self._reading(stage)
        return num_steps(stage) * stage.epochs * (step + read)

    def scoring(self, stage: StageConfig, workers: int) -> float:
        """Seconds of scoring the held-out videos after every epoch; without masks, of the loss of four clips per
        video."""
        videos = [length for source in self.sources or () for length in source.holdout]
        share = -(-len(videos) // workers)
        px = stage.height * stage.width
        if self.sources and not all(source.has_masks for source in self.sources):
            num_frames = 4 * share * stage.clip_frames
            # a forward pass takes about a third of forward and backward
            return stage.epochs * num_frames * (self.profile.training.at(px) / 3 + self._reading(stage))
        limit = stage.holdout_frames or sys.maxsize
        frames = share * sum(min(length, limit) for length in videos) / max(1, len(videos))
        return stage.epochs * frames * (self.profile.segmenting.at(px) + self._reading(stage))

    def memory(self, stage: StageConfig, workers: int, on_gpu: bool) -> float:
        """Peak bytes of one worker."""
        px = _clips_in_memory(stage) // workers * stage.height * stage.width
        tensors = self.profile.step_bytes(px, stage.clip_frames, self._regularized(stage))
        tensors += self.profile.state_bytes(stage.ema_decay > 0, workers > 1)
        return _GPU_OVERHEAD * tensors + _GPU_CONTEXT if on_gpu else _CPU_OVERHEAD * tensors + self.profile.resting

    def masks(self) -> float:
        """Seconds of predicting the masks of the evaluation videos."""
        stage, predict = self.config.train.stage2, self.config.predict
        px = (predict.height or stage.height) * (predict.width or stage.width)
        videos = [length for source in self.sources or () for length in source.val]
        workers = max(1, min(len(videos), self.machine.num_gpus or self.machine.cpus))
        frame = self.profile.segmenting.at(px) + self.profile.refining.at(px) + self._reading(stage)
        # a step of test-time training has one clip per object, with the regularizer on all its frames
        length, objects = predict.test_time_training.clip_frames, max(1, round(_num_objects(self.sources)))
        training = predict.test_time_training.steps * objects * self.profile.step_seconds(px, length, length)
        return (sum(videos) * frame + len(videos) * training) / workers

    def _regularized(self, stage: StageConfig) -> int:
        """Number of frames of a clip with the regularizer."""
        return min(stage.regularized_frames or stage.clip_frames, stage.clip_frames)

    def _reading(self, stage: StageConfig) -> float:
        """Seconds of reading one frame."""
        return reading_seconds((stage.height, stage.width), _source_size(self.sources), self.config.train.augment)


def _clips_in_memory(stage: StageConfig) -> int:
    """Number of clips that all workers together hold in memory: one part of an accumulated batch."""
    return stage.batch_clips // stage.accumulate


def num_steps(stage: StageConfig) -> int:
    """Number of steps per epoch."""
    return stage.clips_per_epoch // stage.batch_clips


def _trial(params: Params) -> Config:
    """The parameters of a trial of the search, with those of `tune.trial`."""
    tune = params.base.tune
    return parse(Config, merge(params.variant(tune.variant).model_dump(mode="json"), tune.trial), "tune.trial")


def _search_seconds(
    params: Params,
    variants: dict[str, VariantPlan],
    machine: Machine,
    workers: dict[str, int],
    sources: Sequence[SourceCounts] | None,
) -> float:
    """Upper bound of the seconds of the search; trials may be stopped early. One trial runs per GPU, or per CPU
    core."""
    config = _trial(params)
    costs = _VariantCosts(config, variants[config.tune.variant].profile, machine, sources)
    stages = (config.train.stage1, config.train.stage2)
    seconds = sum(costs.training(stage, 1) + costs.scoring(stage, 1) for stage in stages)
    concurrent = machine.num_gpus or max(workers.values())  # on CPUs the profile is of this share of the cores
    return _START_SEARCH + seconds * -(-config.tune.trials // concurrent)


def _rest_seconds(sources: Sequence[SourceCounts] | None, machine: Machine, num_variants: int) -> float:
    """Seconds of checks, scribbles, baselines and scores, and of the start-up of all stages except the search."""
    starts = num_variants * (len(STAGES) * _START_TRAINING + _START_MASKS + _START_SCORES) + _START_REST
    work = 0.0
    for source in sources or ():
        megapixels = source.size[0] * source.size[1] / 1e6
        evaluated = sum(source.val) * megapixels
        rendering = _RENDERING if source.source.layout == "embedded" else 0.0
        work += (_CHECKING + rendering) * source.num_frames * megapixels + _SCORING * num_variants * evaluated
        work += (_SCRIBBLING * source.num_frames * megapixels + _BASELINE * evaluated * source.objects) / machine.cpus
    return starts + work
