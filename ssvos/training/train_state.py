"""The state of a training stage: all that it carries from step to step, and its two latest copies on disk."""

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
# parameters that may differ between a saved state and the run that resumes from it
_NOT_IN_WEIGHTS = dict.fromkeys(("predict", "tune", "tuned_from"), True) | {
    "train": {"stage1": {"save_every"}, "stage2": {"save_every"}}
}


@dataclass
class TrainState:
    """All that a stage carries from step to step: plain values and tensors, which `torch.load` reads with weights_only.

    epoch: number of finished epochs.
    step: number of finished steps of the current epoch. The clips are a function of (seed, epoch), so (epoch, step) is
        the position in the data.
    sums: the current epoch's sums of the loss terms, followed by the number of batches in them.
    skipped: number of skipped batches of the stage.
    chosen_by: the held-out measure that chooses the checkpoint, `J` or `loss`.
    best_score, best_epoch, best_weights: of the epoch with the best held-out score.
    history: one row an epoch.
    weights, optimizer, average, scaler: state dicts of the network, Adam, the running average and the loss scaler.
    random: states of PyTorch's random generators, by device type.
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

    def position(self) -> str:
        """The position in the training, in words."""
        return f"epoch {self.epoch + 1}, after {self.step} steps" if self.step else f"the end of epoch {self.epoch}"


@dataclass(frozen=True)
class EpochReport:
    """The result of one epoch.

    row: the epoch's row of the history.
    speed: figures that differ from run to run, so the history leaves them out: `clips_per_second`, `data_wait_share`
        (the share of the steps' time spent waiting for clips) and `peak_memory_gb`.
    train_state: the state from which a run can resume.
    """

    row: dict[str, float]
    speed: dict[str, float]
    train_state: TrainState

    def line(self, label: str, epochs: int) -> str:
        """The log line of the epoch."""
        row = self.row
        name = "J" if self.train_state.chosen_by == "J" else "score"
        best = "  best" if self.train_state.best_epoch == row["epoch"] else ""
        return (
            f"{label}  epoch {row['epoch']}/{epochs}  loss {row['loss']:.3f}  "
            f"held-out {name} {row['holdout_score']:.3f}  {self.speed['clips_per_second']:.1f} clips/s{best}"
        )


def run_digest(config: Config, stage: str, files: Sequence[Path]) -> str:
    """12 hex digits over everything that determines a stage's weights.

    files: the index, the scribbles and, if there is one, the checkpoint that the stage starts from.
    """
    values = config.model_dump(mode="json", exclude=_NOT_IN_WEIGHTS)
    content = [json.dumps(values, sort_keys=True), stage, *map(file_digest, files)]
    return hashlib.sha256(" ".join(content).encode()).hexdigest()[:12]


def to_bytes(train_state: TrainState, digest: str) -> bytes:
    """Serialize a state with the digest of its run."""
    buffer = io.BytesIO()
    torch.save({"digest": digest, "progress": vars(train_state)}, buffer)
    return buffer.getvalue()


def from_bytes(state: bytes) -> tuple[TrainState, str]:
    """Read what `to_bytes` wrote: the state and the digest of its run. No code in the bytes is run.

    Raises ValueError for bytes that are not a complete state.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(state)) as archive:
            broken = archive.testzip()  # torch.load checks no checksum
        if broken:
            raise ValueError(f"{broken} is broken")
        content = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
        return TrainState(**content["progress"]), content["digest"]
    except Exception as error:  # zipfile and torch raise many types for truncated files and those of other programs
        raise ValueError(type(error).__name__) from error


@dataclass(frozen=True)
class SavedState:
    """The two latest states of one run on disk.

    path: the file of the latest state; the previous one is next to it.
    digest: `run_digest` of the run.
    """

    path: Path
    digest: str

    @property
    def previous(self) -> Path:
        """The file of the previous state."""
        return self.path.with_name(f"{self.path.stem}-before{self.path.suffix}")

    def write(self, state: bytes) -> None:
        """Save a state. At least one complete state is on disk at every moment."""
        if self.path.is_file():
            os.replace(self.path, self.previous)
        write_bytes(self.path, state)

    def read(self) -> TrainState | None:
        """The latest complete state, or None. A broken file is logged and removed.

        Raises ValueError for a state of another run.
        """
        for path in (self.path, self.previous):
            if not path.is_file():
                continue
            try:
                train_state, digest = from_bytes(path.read_bytes())
            except ValueError as error:
                log.warning(
                    "%s: not a complete state (%s), removed; the previous one is used if it exists", path, error
                )
                path.unlink()
                continue
            if digest != self.digest:
                raise ValueError(f"{path}: the state of a run with other parameters or data; move it away")
            return train_state
        return None

    def remove(self) -> None:
        """Delete both states, and the partly written file of a killed process."""
        for path in (self.path, self.previous, *self.path.parent.glob(f".{self.path.stem}-*.tmp{self.path.suffix}")):
            path.unlink(missing_ok=True)
