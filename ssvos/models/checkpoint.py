"""Checkpoints: files that contain the configuration of their network, load strictly, and never run code."""

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
    """Metadata of a checkpoint.

    model: the parameters of its network
    about: its origin as plain values: variant, stage, data, held-out score, loss, training size
    """

    model: ModelConfig
    about: dict[str, Any]

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of the training frames, or None if unknown."""
        height, width = self.about.get("height", 0), self.about.get("width", 0)
        return (height, width) if height and width else None

    @property
    def loss(self) -> LossConfig:
        """The loss that the network was trained with; the default if unknown."""
        return LossConfig.model_validate(self.about.get("loss", {}))


def save_checkpoint(path: Path, weights: dict[str, torch.Tensor], model: ModelConfig, about: dict[str, Any]) -> None:
    """Write weights, the parameters that rebuild the network, and metadata, atomically."""
    weights = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    content = {"format": _FORMAT, "model": model.model_dump(mode="json"), "about": about, "weights": weights}
    # given a path, torch writes its temporary name into the file, and on a full disk its error names no cause
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(Path(path), buffer.getvalue())


def load_checkpoint(path: str | Path) -> tuple[Network, CheckpointInfo]:
    """Rebuild the network of a checkpoint on the CPU, in evaluation mode.

    Raises FileNotFoundError if the file is missing, ValueError if it is not a checkpoint of this project or if its
    weights do not match its parameters.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint; train one with `make repro` or `ssvos fit`")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about other pickles: the error below is enough
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types of error for other files
        raise ValueError(
            f"{path}: not a checkpoint that loads safely ({type(error).__name__}); train it again"
        ) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"{path}: not an ssvos checkpoint; give a checkpoint.pt that this project wrote")
    try:
        # the checkpoint contains all weights: the file of pretrained backbone weights is not needed
        model = ModelConfig.model_validate(_without_learnt_memory(content["model"]))
        network = Network(model)
        network.load_state_dict(content["weights"], strict=True)
        info = CheckpointInfo(model, dict(content["about"]))
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        summary = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: its weights do not match its own parameters; train it again ({summary})") from error
    return network.eval(), info


def _without_learnt_memory(model: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a network in their present form: earlier versions had a memory with learnt keys, off by
    default."""
    memory = model.get("memory") if isinstance(model, dict) else None
    if not isinstance(memory, dict) or "channels" not in memory:
        return model
    if memory["channels"]:
        raise ValueError("model.memory.channels: a memory with learnt keys no longer exists")
    return {key: value for key, value in model.items() if key != "memory"}


def difference(saved: ModelConfig, requested: ModelConfig) -> str:
    """Message that names the first parameter in which a checkpoint's network differs from the requested one.

    The two configurations must differ.
    """

    def leaves(values: dict[str, Any], prefix: str = "model") -> Iterator[tuple[str, object]]:
        for key, value in values.items():
            yield from leaves(value, f"{prefix}.{key}") if isinstance(value, dict) else [(f"{prefix}.{key}", value)]

    pairs = zip(leaves(saved.model_dump()), leaves(requested.model_dump()), strict=True)
    key, old, new = next((key, old, new) for (key, old), (_, new) in pairs if old != new)
    return f"its network has {key} {old}, not {new}"


def file_digest(path: str | Path) -> str:
    """First 16 hex digits of a file's SHA-256, by which a run and its checkpoint are matched."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; `dvc repro` runs the stage that writes it")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
