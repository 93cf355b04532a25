"""A model of the pipeline's run times by number of GPUs: measured costs, sizes of data, and distribution of work."""

import heapq
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from measure import plain_forward
from torch.utils.flop_counter import FlopCounterMode

from pipelines.scribbles import block_rows
from ssvos.config import Config, StageConfig
from ssvos.models.network import Network
from ssvos.planning.presets import compose

CONF = Path(__file__).parent.parent / "conf"
PIXELS_480P = 480 * 854


@dataclass(frozen=True)
class Assumptions:
    """Speeds of a cluster.

    gpu_tflops: sustained, not peak; the default is 20 % of the 156 TFLOP/s of an A100 in TF32
    link_gb:    gigabytes per second between nodes; the default is 100-gigabit Ethernet
    read_ms:    milliseconds to read a frame from the file system into a tensor, on one core
    """

    gpu_tflops: float = 31.0
    link_gb: float = 12.5
    cores_per_gpu: int = 8
    read_ms: float = 5.0


@dataclass(frozen=True)
class DataSet:
    """Sizes of a data set.

    train_frames, val_frames: labelled frames
    objects: mean number of objects of an evaluation video
    longest: frames of the longest evaluation video
    pixels:  of a mask on disk
    scored:  whether the masks of the evaluation videos are public
    holdout: fraction of the training videos that is held out
    """

    name: str
    train_videos: int
    train_frames: int
    val_videos: int
    val_frames: int
    objects: float
    longest: int
    pixels: int
    scored: bool
    holdout: float

    @property
    def scribbled(self) -> int:
        """Frames that get a scribble; of evaluation videos without public masks only the first."""
        return self.train_frames + (self.val_frames if self.scored else self.val_videos)


# approximate: frames and objects of the evaluation videos of YouTube-VOS, and `longest` of both
DAVIS = DataSet("DAVIS-2017", 60, 4209, 30, 1999, 61 / 30, 104, PIXELS_480P, True, 0.15)
YOUTUBE = DataSet("YouTube-VOS", 3471, 94_000, 507, 13_700, 1065 / 507, 36, 720 * 1280, False, 0.03)


@dataclass(frozen=True)
class Costs:
    """Measured costs of a frame of 480x854.

    train_*, infer_*: seconds on two cores, and the ratio to a plain forward
    scribble, score:  seconds of one core
    """

    train_seconds: float
    train_forwards: float
    infer_seconds: tuple[float, float]  # of 1 and of 3 objects
    infer_forwards: tuple[float, float]
    scribble: float
    score: float  # of an object in a frame

    @classmethod
    def read(cls, folder: Path) -> "Costs":
        """Read the costs from the JSON results of the benchmarks in a folder."""

        def load(name: str) -> dict:
            return json.loads((folder / f"{name}.json").read_text())

        training = load("train_step")
        step = max((run for run in training["runs"] if run["dtype"] == "float32"), key=lambda run: run["threads"])
        share = PIXELS_480P / (training["size"][0] * training["size"][1]) / training["frames"]
        inference = load("inference")["runs"][0]
        counts = [f"{count} objects, per_object keys" for count in (1, 3)]
        (scores,) = [run for run in load("bench_metrics")["runs"] if run["masks"].startswith("DAVIS")]
        return cls(
            train_seconds=step["seconds"]["step_half_scale"] * share,
            train_forwards=step["in_plain_forwards"]["step_half_scale"],
            infer_seconds=tuple(inference["seconds_a_frame"][name] for name in counts),
            infer_forwards=tuple(inference["in_plain_forwards"][name] for name in counts),
            scribble=load("scribbles")["ssvos_and_png"]["ms_mean"] / 1000,
            score=scores["ours_ms_per_object_frame"] / 1000,
        )


@cache
def forward_flop() -> float:
    """Floating-point operations of a plain forward of one frame of 480x854, counted by PyTorch."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        plain_forward(torch.empty(1, 3, 480, 854))()
    return counter.get_total_flops()


@cache
def paper() -> Config:
    """The parameters of preset `paper`."""
    values = compose(CONF, "paper")
    values["model"]["backbone"]["weights"] = ""
    return Config.model_validate({key: values[key] for key in Config.model_fields if key in values})


@cache
def gradient_bytes() -> int:
    """Bytes of the gradients that the workers exchange in a step, in single precision."""
    with torch.device("meta"):
        network = Network.create(paper().model)
    return 4 * sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def divisor(batch_clips: int, gpus: int) -> int:
    """Number of workers of a stage: the most GPUs that share its batch evenly (`pipelines/cluster/ray_cluster.py`)."""
    return max(count for count in range(1, min(gpus, batch_clips) + 1) if batch_clips % count == 0)


def lengths(data: DataSet) -> list[int]:
    """Frames of each evaluation video, in random order, assumed evenly spaced around the mean up to the longest."""
    mean = data.val_frames / data.val_videos
    steps = [2 * k / (data.val_videos - 1) - 1 for k in range(data.val_videos)]
    frames = [round(mean + (data.longest - mean) * step) for step in steps]
    random.Random(0).shuffle(frames)
    return frames


def schedule(tasks: Sequence[float], workers: int) -> float:
    """Seconds until the last task ends, if each task goes to the first free worker. tasks: seconds of each."""
    free = [0.0] * min(workers, len(tasks))
    for task in tasks:
        heapq.heapreplace(free, free[0] + task)
    return max(free)


@dataclass(frozen=True)
class Simulation:
    """A cluster of `gpus` GPUs; 0 is the two CPU cores of the measurements, for which only read_ms is assumed."""

    costs: Costs
    assumptions: Assumptions
    gpus: int

    @property
    def workers(self) -> int:
        return self.gpus or 1  # one worker uses both cores

    @property
    def cores(self) -> int:
        return self.gpus * self.assumptions.cores_per_gpu or 2

    def _seconds(self, measured: float, forwards: float, pixels: int) -> float:
        share = pixels / PIXELS_480P
        return share * (forwards * forward_flop() / (self.assumptions.gpu_tflops * 1e12) if self.gpus else measured)

    def train_frame(self, pixels: int) -> float:
        return self._seconds(self.costs.train_seconds, self.costs.train_forwards, pixels)

    def infer_frame(self, pixels: int, objects: float) -> float:
        def between(pair: tuple[float, float]) -> float:
            return pair[0] + (pair[1] - pair[0]) * (objects - 1) / 2

        return self._seconds(between(self.costs.infer_seconds), between(self.costs.infer_forwards), pixels)

    def scribbles(self, data: DataSet) -> float:
        rows = block_rows(data.scribbled, self.cores)
        cost = self.costs.scribble * data.pixels / PIXELS_480P
        return math.ceil(data.scribbled / rows / self.cores) * rows * cost

    def step(self, stage: StageConfig) -> tuple[int, float, float, float]:
        """Number of workers of a training step, and its seconds of computing, reading and exchanging gradients."""
        workers = divisor(stage.batch_clips, self.workers)
        frames = stage.batch_clips // workers * stage.clip_frames
        exchange = 2 * (workers - 1) / workers * gradient_bytes() / (self.assumptions.link_gb * 1e9)
        computing = frames * self.train_frame(stage.height * stage.width)
        return workers, computing, frames * self.assumptions.read_ms / 1000, exchange

    def train(self, stage: StageConfig) -> float:
        """Seconds of all training steps of a stage."""
        return stage.epochs * (stage.clips_per_epoch // stage.batch_clips) * sum(self.step(stage)[1:])

    def holdout(self, stage: StageConfig, data: DataSet) -> float:
        """Seconds of scoring the held-out videos after every epoch; the workers share the videos."""
        videos = round(data.holdout * data.train_videos)
        frames = math.ceil(videos / divisor(stage.batch_clips, self.workers)) * data.train_frames / data.train_videos
        cost = self.infer_frame(stage.height * stage.width, data.objects) + self.assumptions.read_ms / 1000
        return stage.epochs * frames * cost

    def video_frame(self, data: DataSet) -> float:
        """Seconds of segmenting one frame of an evaluation video."""
        return self.infer_frame(PIXELS_480P, data.objects) + self.assumptions.read_ms / 1000

    def predict(self, data: DataSet) -> float:
        return schedule([frames * self.video_frame(data) for frames in lengths(data)], self.workers)

    def evaluate(self, data: DataSet) -> float:
        cost = self.costs.score * data.objects * data.pixels / PIXELS_480P
        return schedule([frames * cost for frames in lengths(data)], self.cores) if data.scored else 0.0
