"""How far a training stage has come: what it carries from step to step, and its two latest states on disk."""

import hashlib
import io
import json
import logging
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssvos.config import Config
from ssvos.files import write_bytes
from ssvos.models.checkpoint import file_digest

log = logging.getLogger(__name__)
# what may change between a state and the run that goes on from it
_NOT_IN_WEIGHTS = dict.fromkeys(("predict", "tune", "tuned_from"), True) | {
    "train": {"stage1": {"save_every"}, "stage2": {"save_every"}}
}


@dataclass
class TrainState:
    """What a stage carries from step to step; plain values and tensors, so that it saves and loads safely.

    epoch, step: epochs done, and steps done of the one begun; the clips are a function of (seed, epoch), so that this
    is the position. sums: of that epoch's loss terms, and their number of batches. skipped: batches left out.
    random: states of PyTorch's generators.
    """

    epoch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=list)
    skipped: int = 0
    chosen_by: str = ""
    best_score: float = float("-inf")
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    random: dict[str, Tensor] = field(default_factory=dict)

    def place(self) -> str:
        """Where it stands, for a person."""
        return f"epoch {self.epoch + 1}, after {self.step} steps" if self.step else f"the end of epoch {self.epoch}"


@dataclass(frozen=True)
class EpochReport:
    """One epoch's row of the history, and the progress from which the run can go on.

    speed: what differs from run to run and is in no history: clips_per_second, data_wait_share (of the time that steps
    take, spent waiting for clips), peak_memory_gb.
    """

    row: dict[str, float]
    speed: dict[str, float]
    progress: TrainState

    def line(self, label: str, epochs: int) -> str:
        """What a person reads while it runs."""
        row = self.row
        name = "J" if self.progress.chosen_by == "J" else "score"
        best = "  best" if self.progress.best_epoch == row["epoch"] else ""
        return (
            f"{label}  epoch {row['epoch']}/{epochs}  loss {row['loss']:.3f}  "
            f"held-out {name} {row['holdout_score']:.3f}  {self.speed['clips_per_second']:.1f} clips/s{best}"
        )


def run_digest(config: Config, stage: str, files: Sequence[Path]) -> str:
    """12 hex digits over all that decides a stage's weights. files: index, scribbles, the checkpoint to begin with."""
    values = config.model_dump(mode="json", exclude=_NOT_IN_WEIGHTS)
    content = [json.dumps(values, sort_keys=True), stage, *map(file_digest, files)]
    return hashlib.sha256(" ".join(content).encode()).hexdigest()[:12]


def to_bytes(progress: TrainState, digest: str) -> bytes:
    buffer = io.BytesIO()
    torch.save({"digest": digest, "progress": vars(progress)}, buffer)
    return buffer.getvalue()


def from_bytes(state: bytes) -> tuple[TrainState, str]:
    """The progress and its run's digest; ValueError for bytes that are no whole state. Nothing in them is run."""
    try:
        with zipfile.ZipFile(io.BytesIO(state)) as archive:
            broken = archive.testzip()  # torch.load itself looks at no checksum
        if broken:
            raise ValueError(f"{broken} is broken")
        content = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
        return TrainState(**content["progress"]), content["digest"]
    except Exception as error:  # zipfile and torch raise many kinds for what is cut off, or another program's
        raise ValueError(type(error).__name__) from error


@dataclass(frozen=True)
class Kept:
    """The two latest states of one run: at `path`, and the one before it beside it."""

    path: Path
    digest: str

    @property
    def before(self) -> Path:
        return self.path.with_name(f"{self.path.stem}-before{self.path.suffix}")

    def write(self, state: bytes) -> None:
        """At every moment at least one whole state lies on disk."""
        if self.path.is_file():
            os.replace(self.path, self.before)
        write_bytes(self.path, state)

    def read(self) -> TrainState | None:
        """The latest whole state; a broken one is told, and removed. ValueError for that of another run."""
        for path in (self.path, self.before):
            if not path.is_file():
                continue
            try:
                progress, digest = from_bytes(path.read_bytes())
            except ValueError as error:
                log.warning("%s: no whole state (%s), removed; the one before it is taken if there is one", path, error)
                path.unlink()
                continue
            if digest != self.digest:
                raise ValueError(f"{path}: the state of a run with other parameters or data; move it away")
            return progress
        return None

    def remove(self) -> None:
        """Both, and what a killed process left of one that it was writing."""
        for path in (self.path, self.before, *self.path.parent.glob(f".{self.path.stem}-*.tmp{self.path.suffix}")):
            path.unlink(missing_ok=True)
