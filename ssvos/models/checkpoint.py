"""Checkpoints: a file that rebuilds its own network, strictly, and never runs code when it is read."""

import hashlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ssvos.config import LossConfig, ModelConfig
from ssvos.files import write_bytes
from ssvos.models.network import Network

BUNDLED = Path(__file__).parents[1] / "weights" / "rendered.pt"  # docs/model-card.md
_FORMAT = "ssvos-checkpoint-1"


@dataclass(frozen=True)
class CheckpointInfo:
    """Where a checkpoint comes from: variant, stage, data, held-out score, loss, training size; plain values only."""

    model: ModelConfig
    about: dict[str, Any]

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) the network was trained at, None where unknown."""
        height, width = self.about.get("height", 0), self.about.get("width", 0)
        return (height, width) if height and width else None

    @property
    def loss(self) -> LossConfig:
        """What it was trained with; the default where unknown."""
        return LossConfig.model_validate(self.about.get("loss", {}))


def save_checkpoint(path: Path, weights: dict[str, torch.Tensor], model: ModelConfig, about: dict[str, Any]) -> None:
    """Write weights with the parameters that rebuild the network and what is known about them, atomically."""
    weights = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    content = {"format": _FORMAT, "model": model.model_dump(mode="json"), "about": about, "weights": weights}
    buffer = (
        io.BytesIO()
    )  # given a path, torch writes its temporary name into the file; on a full disk it names no fault
    torch.save(content, buffer)
    write_bytes(Path(path), buffer.getvalue())


def load_checkpoint(path: str | Path) -> tuple[Network, CheckpointInfo]:
    """Rebuild the network of a checkpoint on the CPU, in evaluation mode.

    Raises FileNotFoundError, or ValueError for a file that is no checkpoint of this project or does not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint; train one with `make repro` or `ssvos fit`")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a foreign pickle: the error below says all
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several kinds for a file that is no checkpoint
        raise ValueError(
            f"{path}: not a checkpoint that loads safely ({type(error).__name__}); train it again"
        ) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"{path}: not an ssvos checkpoint; give a checkpoint.pt that this project wrote")
    try:
        # pretrained weights are inside the checkpoint; their file need not exist any more
        model = ModelConfig.model_validate(content["model"])
        network = Network(model)
        network.load_state_dict(content["weights"], strict=True)
        info = CheckpointInfo(model, dict(content["about"]))
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        summary = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: its weights do not fit its own parameters; {summary}") from error
    return network.eval(), info


def difference(there: ModelConfig, here: ModelConfig) -> str:
    """The first parameter in which the network of a checkpoint is not the one asked for; they must differ."""

    def leaves(values: dict, prefix: str = "model") -> Iterator[tuple[str, object]]:
        for key, value in values.items():
            yield from leaves(value, f"{prefix}.{key}") if isinstance(value, dict) else [(f"{prefix}.{key}", value)]

    pairs = zip(leaves(there.model_dump()), leaves(here.model_dump()), strict=True)
    key, old, new = next((key, old, new) for (key, old), (_, new) in pairs if old != new)
    return f"its network has {key} {old}, not {new}"


def file_digest(path: str | Path) -> str:
    """First 16 hex digits of a file's SHA-256: how a run and its checkpoint are matched."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; `dvc repro` runs the stage that makes it")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
