"""What a run will take on this machine, time, memory and disk: from a probe of the network and a count of videos."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch

from ssvos.config import Config, StageConfig, parse
from ssvos.config.variants import Params, merge
from ssvos.device import choose_device
from ssvos.hardware import Machine
from ssvos.planning.profiler import Probe, probe, reading_seconds
from ssvos.planning.video_counts import SourceCounts, count_sources

STAGES = ("stage1", "stage2")
_ASSUMED_SIZE, _ASSUMED_OBJECTS = (480, 854), 2  # of videos that are not there yet
# Seconds around the work of a stage, measured on two CPU cores: starting Ray, PyTorch and MLflow, writing, DVC itself.
_START_TRAINING, _START_SEARCH, _START_MASKS, _START_SCORES, _START_REST = 38.0, 30.0, 18.0, 6.0, 58.0
# Seconds a megapixel of the videos' own frames takes on one core: checking it, scribbling it, a baseline's mask of an
# object on it, scoring that of one variant.
_CHECKING, _SCRIBBLING, _YARDSTICK, _SCORING = 0.03, 0.04, 0.6, 0.03
_RENDERING = 0.3  # of the embedded data set
# What allocators and kernels take on top of the tensors, and what a process of CUDA takes before the first one.
_CPU_OVERHEAD, _GPU_OVERHEAD, _GPU_CONTEXT = 1.2, 1.1, 6e8
_MASK_BYTES = 4000  # a palette PNG at 480p
_COPIES = 3  # of an output on disk: in the workspace, in DVC's cache and, of a checkpoint, among MLflow's artifacts


@dataclass(frozen=True)
class StageCosts:
    """One stage of one variant: seconds of training and of scoring held-out videos, peak bytes of a worker."""

    training: float
    scoring: float
    memory: float

    @property
    def seconds(self) -> float:
        return self.training + self.scoring


@dataclass(frozen=True)
class VariantPlan:
    """masks: seconds of prediction. on_gpu: bytes of one GPU that takes whole batches."""

    probe: Probe
    stages: dict[str, StageCosts]
    masks: float
    on_gpu: float

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages.values()) + self.masks


@dataclass(frozen=True)
class RunPlan:
    """sources: None where a folder is not known yet; what depends on it is then left out of all times.

    search: seconds of the search if no trial is stopped early; rest: of everything else, starting included.
    checkpoints, masks: bytes on disk, roughly.
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
        return sum(variant.seconds for variant in self.variants.values()) + self.search + self.rest

    @property
    def memory(self) -> float:
        """Bytes of all workers of the largest stage at their peak; of one GPU where there are any."""
        peaks = {stage: max(v.stages[stage].memory for v in self.variants.values()) for stage in STAGES}
        return max(peak * (1 if self.machine.num_gpus else self.workers[stage]) for stage, peak in peaks.items())

    @property
    def has_room(self) -> bool:
        return self.memory <= (self.machine.gpu_memory or self.machine.memory)


def make_plan(
    params: Params,
    machine: Machine,
    asked_workers: int | None = None,
    tracked: Callable[[str, int], AbstractContextManager[Callable[[], None]]] | None = None,
) -> RunPlan:
    """Count the videos and measure every variant's network. Raises FaultyData for a folder or list that is not there.

    tracked: `with tracked(what, total) as advance` shows progress.
    """
    config = params.base
    _trial(params)  # a faulty search is found before anything is measured
    sources = count_sources(config)
    workers = {name: machine.workers(_at_once(getattr(config.train, name)), asked_workers) for name in STAGES}
    variants = {}
    show = tracked("measuring", len(params.variants)) if tracked else nullcontext(lambda: None)
    with _threads(machine, workers), show as advance:
        for name, variant in params.variants.items():
            measured = _measured(variant, machine, sources)
            # what an earlier variant's probe left behind is no part of a worker
            resting = min([measured.resting, *(v.probe.resting for v in variants.values())])
            measured = replace(measured, resting=resting)
            variants[name] = _Costs(variant, measured, machine, sources).plan(workers)
            advance()
    state = [4 * variant.probe.parameters for variant in variants.values()]
    judged = sum(sum(source.judged) for source in sources or ())
    return RunPlan(
        params,
        machine,
        sources,
        workers,
        variants,
        search=_search_seconds(params, variants, machine, workers, sources),
        rest=_rest_seconds(sources, machine, len(variants)),
        checkpoints=_COPIES * len(STAGES) * sum(state),
        # beside the variants' own masks those of four baselines
        masks=(_COPIES - 1) * _MASK_BYTES * judged * (len(variants) + 4),
    )


@contextmanager
def _threads(machine: Machine, workers: dict[str, int]) -> Iterator[None]:
    """PyTorch's threads as a worker of the run has them."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, machine.cpus // max(workers.values())))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measured(config: Config, machine: Machine, sources: Sequence[SourceCounts] | None) -> Probe:
    sizes = [(stage.height, stage.width) for stage in (config.train.stage1, config.train.stage2)]
    largest = max(sizes, key=lambda size: size[0] * size[1])
    device = choose_device("cuda" if machine.num_gpus else "cpu")
    return probe(config, largest, _own_size(sources), round(_objects(sources)), device)


def _own_size(sources: Sequence[SourceCounts] | None) -> tuple[int, int]:
    return max((s.size for s in sources), key=lambda size: size[0] * size[1]) if sources else _ASSUMED_SIZE


def _objects(sources: Sequence[SourceCounts] | None) -> float:
    return sum(s.objects for s in sources) / len(sources) if sources else _ASSUMED_OBJECTS


@dataclass(frozen=True)
class _Costs:
    """What one variant's parameters cost by its probe."""

    config: Config
    probe: Probe
    machine: Machine
    sources: Sequence[SourceCounts] | None

    def plan(self, workers: dict[str, int]) -> VariantPlan:
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
        return VariantPlan(self.probe, costs, self.masks(), on_gpu)

    def training(self, stage: StageConfig, workers: int) -> float:
        """Seconds of a stage without scoring: reading and steps, one after the other, as a worker does them."""
        share = stage.batch_clips // workers
        px = share * stage.height * stage.width
        step = self.probe.step_seconds(px, stage.clip_frames, self._regularized(stage))
        read = share * stage.clip_frames * self._reading(stage)
        return num_steps(stage) * stage.epochs * (step + read)

    def scoring(self, stage: StageConfig, workers: int) -> float:
        """Seconds of scoring the held-out videos after every epoch; by loss, that of four clips a video, forward."""
        videos = [length for source in self.sources or () for length in source.holdout]
        share = -(-len(videos) // workers)
        px = stage.height * stage.width
        if self.sources and not all(source.has_masks for source in self.sources):
            frames = 4 * share * stage.clip_frames
            return stage.epochs * frames * (self.probe.training.at(px) / 3 + self._reading(stage))
        limit = stage.holdout_frames or sys.maxsize
        frames = share * sum(min(length, limit) for length in videos) / max(1, len(videos))
        return stage.epochs * frames * (self.probe.segmenting.at(px) + self._reading(stage))

    def memory(self, stage: StageConfig, workers: int, on_gpu: bool) -> float:
        """Peak bytes of one worker."""
        px = _at_once(stage) // workers * stage.height * stage.width
        tensors = self.probe.step_bytes(px, stage.clip_frames, self._regularized(stage))
        tensors += self.probe.state_bytes(stage.ema_decay > 0, workers > 1)
        return _GPU_OVERHEAD * tensors + _GPU_CONTEXT if on_gpu else _CPU_OVERHEAD * tensors + self.probe.resting

    def masks(self) -> float:
        stage, given = self.config.train.stage2, self.config.predict
        px = (given.height or stage.height) * (given.width or stage.width)
        videos = [length for source in self.sources or () for length in source.judged]
        workers = max(1, min(len(videos), self.machine.num_gpus or self.machine.cpus))
        frame = self.probe.segmenting.at(px) + self.probe.refining.at(px) + self._reading(stage)
        # every object has a clip of its own in a step, and the loss is taken on all its frames
        length, objects = given.test_time_training.clip_frames, max(1, round(_objects(self.sources)))
        learning = given.test_time_training.steps * objects * self.probe.step_seconds(px, length, length)
        return (sum(videos) * frame + len(videos) * learning) / workers

    def _regularized(self, stage: StageConfig) -> int:
        return min(stage.regularized_frames or stage.clip_frames, stage.clip_frames)

    def _reading(self, stage: StageConfig) -> float:
        return reading_seconds((stage.height, stage.width), _own_size(self.sources), self.config.train.augment)


def _at_once(stage: StageConfig) -> int:
    """Clips that all workers together have in memory: a part of a batch that is accumulated."""
    return stage.batch_clips // stage.accumulate


def num_steps(stage: StageConfig) -> int:
    """Steps an epoch."""
    return stage.clips_per_epoch // stage.batch_clips


def _trial(params: Params) -> Config:
    """A trial's parameters, with the cheaper ones of `tune.trial`."""
    tune = params.base.tune
    return parse(Config, merge(params.variant(tune.variant).model_dump(mode="json"), tune.trial), "tune.trial")


def _search_seconds(
    params: Params,
    variants: dict[str, VariantPlan],
    machine: Machine,
    workers: dict[str, int],
    sources: Sequence[SourceCounts] | None,
) -> float:
    """At most: trials that are stopped early take less. One runs on each GPU, or on each CPU core."""
    config = _trial(params)
    costs = _Costs(config, variants[config.tune.variant].probe, machine, sources)
    stages = (config.train.stage1, config.train.stage2)
    seconds = sum(costs.training(stage, 1) + costs.scoring(stage, 1) for stage in stages)
    at_once = machine.num_gpus or max(workers.values())  # on CPUs the probe had this part of the cores
    return _START_SEARCH + seconds * -(-config.tune.trials // at_once)


def _rest_seconds(sources: Sequence[SourceCounts] | None, machine: Machine, num_variants: int) -> float:
    """Checking, scribbles, baselines, scores, and all stages' starts but the search's."""
    starts = num_variants * (len(STAGES) * _START_TRAINING + _START_MASKS + _START_SCORES) + _START_REST
    work = 0.0
    for source in sources or ():
        megapixels = source.size[0] * source.size[1] / 1e6
        judged = sum(source.judged) * megapixels
        made = _RENDERING if source.source.layout == "embedded" else 0.0
        work += (_CHECKING + made) * source.num_frames * megapixels + _SCORING * num_variants * judged
        work += (_SCRIBBLING * source.num_frames * megapixels + _YARDSTICK * judged * source.objects) / machine.cpus
    return starts + work
