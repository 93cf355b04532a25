"""ResNet with torchvision's parameter names, cut where the network needs it: attention lies after layer3."""

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d

from ssvos.config import BackboneConfig
from ssvos.models import winograd

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_GROUPS = 8


class FrozenBatchNorm(nn.BatchNorm2d):
    """Batch normalisation whose statistics never move: batches of 2-4 clips are too small to estimate them."""

    def __init__(self, channels: int):
        super().__init__(channels)
        self.training = False

    def train(self, mode: bool = True) -> "FrozenBatchNorm":
        return super().train(False)


def normalised(conv: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """norm(conv(x)). Frozen statistics are folded into the weights: one pass over the features in place of two."""
    if not isinstance(norm, FrozenBatchNorm):
        return norm(conv(x))
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    weight = conv.weight * scale[:, None, None, None]
    if conv.stride == (1, 1) and winograd.pays(x, weight, conv.dilation[0]):
        kept = winograd.kept_transformed(conv, weight, conv.weight, norm.weight, norm.running_var)
        return winograd.convolve(x, weight, shift[:, None, None], conv.dilation[0], kept)
    # for 1x1, where dilation changes nothing, PyTorch has its fast kernel on one thread of a CPU only if there is some
    dilation = 2 if conv.kernel_size == (1, 1) and x.device.type == "cpu" else conv.dilation
    return conv2d(x, weight, shift, conv.stride, conv.padding, dilation)


def _norm(kind: str, channels: int) -> nn.Module:
    return FrozenBatchNorm(channels) if kind == "frozen_batch" else nn.GroupNorm(_GROUPS, channels)


class _Geometry(NamedTuple):
    in_channels: int
    channels: int
    stride: int
    dilation: int


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a residual (ResNet-18)."""

    expansion = 1

    def __init__(self, geometry: _Geometry, norm: str):
        super().__init__()
        in_channels, channels, stride, dilation = geometry
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, dilation, dilation, bias=False)
        self.bn1 = _norm(norm, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, dilation, dilation, bias=False)
        self.bn2 = _norm(norm, channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _projection(in_channels, channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(normalised(self.conv1, self.bn1, x))
        out = normalised(self.conv2, self.bn2, out)
        return self.relu(out.add_(_shortcut(self.downsample, x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride), 1x1 and a residual (ResNet-50 and -101)."""

    expansion = 4

    def __init__(self, geometry: _Geometry, norm: str):
        super().__init__()
        in_channels, channels, stride, dilation = geometry
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = _norm(norm, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, dilation, dilation, bias=False)
        self.bn2 = _norm(norm, channels)
        self.conv3 = nn.Conv2d(channels, channels * 4, 1, bias=False)
        self.bn3 = _norm(norm, channels * 4)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _projection(in_channels, channels * 4, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(normalised(self.conv1, self.bn1, x))
        out = self.relu(normalised(self.conv2, self.bn2, out))
        out = normalised(self.conv3, self.bn3, out)
        return self.relu(out.add_(_shortcut(self.downsample, x)))


def _projection(in_channels: int, out_channels: int, stride: int, norm: str) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), _norm(norm, out_channels))


def _shortcut(projection: nn.Sequential | None, x: Tensor) -> Tensor:
    return x if projection is None else normalised(projection[0], projection[1], x)


_DEPTHS = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}


class Trunk(NamedTuple):
    """What the backbone computes once a frame, for all objects: s4 (layer1), s8 (layer2), deep (layer3), at the
    network's own stride, and the frame itself at stride 4."""

    s4: Tensor
    s8: Tensor
    deep: Tensor
    colour: Tensor


class ResNet(nn.Module):
    """ResNet-18, -50 or -101 whose last layers keep stride 16 (layer4 with stride 1, dilation 2) or 8 (layer3, too).

    num_classes: with it the published classifier `fc` is there as well, for comparing names and shapes.
    """

    def __init__(self, config: BackboneConfig, num_classes: int | None = None):
        super().__init__()
        block, depths = _DEPTHS[config.name]
        if config.width % _GROUPS:
            raise ValueError(f"model.backbone.width: {config.width} must be a multiple of {_GROUPS}")
        width = config.width
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = _norm(config.norm, width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.channels = {f"layer{i + 1}": width * 2**i * block.expansion for i in range(4)}
        in_channels = width
        for i, depth in enumerate(depths[: 3 if config.last == "layer3" else 4]):
            layer = []
            for j in range(depth):
                reduces = i == 1 or (i == 2 and config.stride == 16)
                stride = 2 if j == 0 and reduces else 1
                # where a layer gives up its stride, what follows looks as far by dilation; its own first block still
                # has the dilation before it, as the published dilated networks have it
                given_up = sum(k < i or (k == i and j > 0) for k in ((3,) if config.stride == 16 else (2, 3)))
                dilation = 2**given_up
                layer.append(block(_Geometry(in_channels, width * 2**i, stride, dilation), config.norm))
                in_channels = width * 2**i * block.expansion
            self.add_module(f"layer{i + 1}", nn.Sequential(*layer))
        if num_classes is not None:
            self.fc = nn.Linear(in_channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def trunk(self, frames: Tensor) -> Trunk:
        """Normalised frames (N, 3, H, W), H and W multiples of 16 -> features up to layer3."""
        x = self.maxpool(self.relu(normalised(self.conv1, self.bn1, frames)))
        s4 = self.layer1(x)
        s8 = self.layer2(s4)
        return Trunk(s4, s8, self.layer3(s8), avg_pool2d(frames, 4))

    def freeze(self) -> None:
        """Stem to layer3 take no gradient; layer4 still learns."""
        for name, parameter in self.named_parameters():
            if not name.startswith("layer4"):
                parameter.requires_grad_(False)


def load_published(backbone: ResNet, path: str | Path, sha256: str) -> None:
    """Load a published ImageNet checkpoint from a local file, whose digest is checked first; strict but for `fc`.

    sha256: the full digest, or a beginning of it of at least 8 digits, as published file names carry it.
    Raises FileNotFoundError, or ValueError for a wrong digest or other parameters.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such backbone checkpoint; see docs/backbones.md for how to get one")
    if not re.fullmatch(r"[0-9a-f]{8,64}", sha256):
        raise ValueError(f"model.backbone.sha256: {sha256!r} is not 8 to 64 hexadecimal digits; give {path}'s SHA-256")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(sha256):
        raise ValueError(f"{path}: SHA-256 is {digest}, expected {sha256}; fetch the file again")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several kinds for a file that is no checkpoint
        raise ValueError(
            f"{path}: not a checkpoint that loads safely ({type(error).__name__}); see docs/backbones.md"
        ) from error
    if not isinstance(weights, dict):
        raise ValueError(f"{path}: holds a {type(weights).__name__}, not a table of parameters; see docs/backbones.md")
    unused = ("fc.",) if hasattr(backbone, "layer4") else ("fc.", "layer4.")
    weights = {name: value for name, value in weights.items() if not name.startswith(unused)}
    # checkpoints older than PyTorch 0.4.1 lack the batch counters, which frozen statistics never use
    for name, value in backbone.state_dict().items():
        if name.endswith("num_batches_tracked"):
            weights.setdefault(name, value)
    try:
        backbone.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        summary = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: does not fit model.backbone, correct its name or width; {summary}") from error
