"""A model of the pipeline's stages on more or fewer GPUs: measured costs, sizes of data, and how work is shared out."""

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
    """gpu_tflops: reached, not peak; 20 % of the 156 of an A100's TF32. link_gb: gigabytes a second between nodes, here
    of 100-gigabit Ethernet. read_ms: a frame from the file system to a tensor, on the worker's own core."""

    gpu_tflops: float = 31.0
    link_gb: float = 12.5
    cores_per_gpu: int = 8
    read_ms: float = 5.0


@dataclass(frozen=True)
class DataSet:
    """Videos and labelled frames. objects: of a judged video, on average. longest: frames of a judged video. pixels: of
    a mask on disk. scored: whether the judged videos' masks are public. holdout: share of the training videos."""

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
        """Frames that get a scribble: of judged videos whose masks are not public, the first alone."""
        return self.train_frames + (self.val_frames if self.scored else self.val_videos)


# frames and objects of YouTube-VOS's judged videos, and all `longest`: approximately
DAVIS = DataSet("DAVIS-2017", 60, 4209, 30, 1999, 61 / 30, 104, PIXELS_480P, True, 0.15)
YOUTUBE = DataSet("YouTube-VOS", 3471, 94_000, 507, 13_700, 1065 / 507, 36, 720 * 1280, False, 0.03)


@dataclass(frozen=True)
class Costs:
    """Measured. Training and inference in seconds a frame of 480x854 on the two cores, and in plain forwards; scribbles
    and scores in seconds of one core."""

    train_seconds: float
    train_forwards: float
    infer_seconds: tuple[float, float]  # of 1 and of 3 objects
    infer_forwards: tuple[float, float]
    scribble: float
    score: float  # of an object in a frame

    @classmethod
    def read(cls, folder: Path) -> "Costs":
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
    """Floating-point operations of a plain forward of one frame of 480x854, counted."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        plain_forward(torch.empty(1, 3, 480, 854))()
    return counter.get_total_flops()


@cache
def paper() -> Config:
    values = compose(CONF, "paper")
    values["model"]["backbone"]["weights"] = ""
    return Config.model_validate({key: values[key] for key in Config.model_fields if key in values})


@cache
def gradient_bytes() -> int:
    """What the workers of a step exchange: the gradients of the parameters that learn, in single precision."""
    with torch.device("meta"):
        network = Network.create(paper().model)
    return 4 * sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def divisor(batch_clips: int, gpus: int) -> int:
    """Workers of a stage: as many GPUs as share its batch evenly (`pipelines/cluster/ray_cluster.py`)."""
    return max(count for count in range(1, min(gpus, batch_clips) + 1) if batch_clips % count == 0)


def lengths(data: DataSet) -> list[int]:
    """Frames of each judged video: assumed evenly spread around the mean, up to the longest, in no order."""
    mean = data.val_frames / data.val_videos
    steps = [2 * k / (data.val_videos - 1) - 1 for k in range(data.val_videos)]
    found = [round(mean + (data.longest - mean) * step) for step in steps]
    random.Random(0).shuffle(found)
    return found


def schedule(tasks: Sequence[float], workers: int) -> float:
    """When the last task ends, if each goes to the worker that is free first."""
    free = [0.0] * min(workers, len(tasks))
    for task in tasks:
        heapq.heapreplace(free, free[0] + task)
    return max(free)


@dataclass(frozen=True)
class Simulation:
    """A cluster of so many GPUs; with 0 the two cores that the costs were measured on: only read_ms is assumed then."""

    costs: Costs
    given: Assumptions
    gpus: int

    @property
    def workers(self) -> int:
        return self.gpus or 1  # both cores work at one step

    @property
    def cores(self) -> int:
        return self.gpus * self.given.cores_per_gpu or 2

    def _seconds(self, measured: float, forwards: float, pixels: int) -> float:
        share = pixels / PIXELS_480P
        return share * (forwards * forward_flop() / (self.given.gpu_tflops * 1e12) if self.gpus else measured)

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
        """Workers of a training step, and its seconds: computing, reading frames, exchanging gradients."""
        workers = divisor(stage.batch_clips, self.workers)
        frames = stage.batch_clips // workers * stage.clip_frames
        exchange = 2 * (workers - 1) / workers * gradient_bytes() / (self.given.link_gb * 1e9)
        computing = frames * self.train_frame(stage.height * stage.width)
        return workers, computing, frames * self.given.read_ms / 1000, exchange

    def train(self, stage: StageConfig) -> float:
        return stage.epochs * (stage.clips_per_epoch // stage.batch_clips) * sum(self.step(stage)[1:])

    def holdout(self, stage: StageConfig, data: DataSet) -> float:
        """Scoring the held-out videos after every epoch; they are shared out by worker."""
        videos = round(data.holdout * data.train_videos)
        frames = math.ceil(videos / divisor(stage.batch_clips, self.workers)) * data.train_frames / data.train_videos
        cost = self.infer_frame(stage.height * stage.width, data.objects) + self.given.read_ms / 1000
        return stage.epochs * frames * cost

    def video_frame(self, data: DataSet) -> float:
        return self.infer_frame(PIXELS_480P, data.objects) + self.given.read_ms / 1000

    def predict(self, data: DataSet) -> float:
        return schedule([frames * self.video_frame(data) for frames in lengths(data)], self.workers)

    def evaluate(self, data: DataSet) -> float:
        cost = self.costs.score * data.objects * data.pixels / PIXELS_480P
        return schedule([frames * cost for frames in lengths(data)], self.cores) if data.scored else 0.0
