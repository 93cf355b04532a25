"""ResNet with torchvision's parameter names, split after layer3, where the network inserts attention."""

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
    """Batch normalisation with constant statistics: batches of 2-4 clips are too small to estimate them."""

    def __init__(self, channels: int):
        super().__init__(channels)
        self.training = False

    def train(self, mode: bool = True) -> "FrozenBatchNorm":
        return super().train(False)


def conv_norm(conv: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """norm(conv(x)). Frozen statistics are folded into the weights: one pass over the features instead of two."""
    if not isinstance(norm, FrozenBatchNorm):
        y: Tensor = norm(conv(x))
        return y
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    weight = conv.weight * scale[:, None, None, None]
    if conv.stride == (1, 1) and winograd.is_faster(x, weight, conv.dilation[0]):
        filters = winograd.cached_filters(conv, weight, conv.weight, norm.weight, norm.running_var)
        return winograd.convolve(x, weight, shift[:, None, None], conv.dilation[0], filters)
    # dilation has no effect on 1x1, but on one CPU thread PyTorch selects its fast kernel only for dilation above 1
    dilation = 2 if conv.kernel_size == (1, 1) and x.device.type == "cpu" else conv.dilation
    return conv2d(x, weight, shift, conv.stride, conv.padding, dilation)


def _norm(kind: str, channels: int) -> nn.Module:
    return FrozenBatchNorm(channels) if kind == "frozen_batch" else nn.GroupNorm(_GROUPS, channels)


class _Geometry(NamedTuple):
    """Channels, stride and dilation of one residual block."""

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
        out: Tensor = self.relu(conv_norm(self.conv1, self.bn1, x))
        out = conv_norm(self.conv2, self.bn2, out)
        out = self.relu(out.add_(_shortcut(self.downsample, x)))
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 convolutions and a residual (ResNet-50 and -101)."""

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
        out: Tensor = self.relu(conv_norm(self.conv1, self.bn1, x))
        out = self.relu(conv_norm(self.conv2, self.bn2, out))
        out = conv_norm(self.conv3, self.bn3, out)
        out = self.relu(out.add_(_shortcut(self.downsample, x)))
        return out


def _projection(in_channels: int, out_channels: int, stride: int, norm: str) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), _norm(norm, out_channels))


def _shortcut(projection: nn.Sequential | None, x: Tensor) -> Tensor:
    if projection is None:
        return x
    conv, norm = projection
    assert isinstance(conv, nn.Conv2d)
    return conv_norm(conv, norm, x)


_BLOCKS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}


class Trunk(NamedTuple):
    """Features that the backbone computes once per frame, for all objects.

    s4: layer1, at stride 4
    s8: layer2, at stride 8
    deep: layer3, at the network's stride
    color: the normalised frame at stride 4
    """

    s4: Tensor
    s8: Tensor
    deep: Tensor
    color: Tensor


class ResNet(nn.Module):
    """ResNet-18, -50 or -101 whose last layers keep stride 16 (layer4 has stride 1, dilation 2) or 8 (layer3 as well).

    num_classes: if given, adds the published classifier `fc`, for comparing names and shapes
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential  # absent if config.last is layer3

    def __init__(self, config: BackboneConfig, num_classes: int | None = None):
        super().__init__()
        block, depths = _BLOCKS[config.name]
        if config.width % _GROUPS:
            raise ValueError(f"model.backbone.width: {config.width} is not a multiple of {_GROUPS}; choose a multiple")
        width = config.width
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = _norm(config.norm, width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.channels = {f"layer{i + 1}": width * 2**i * block.expansion for i in range(4)}
        in_channels = width
        for i, depth in enumerate(depths[: 3 if config.last == "layer3" else 4]):
            blocks = []
            for j in range(depth):
                is_strided = i == 1 or (i == 2 and config.stride == 16)
                stride = 2 if j == 0 and is_strided else 1
                # dilation replaces the stride of the layers that lose it, so that later blocks keep their receptive
                # field; the first block of such a layer has the dilation of the layer before, as published
                num_lost = sum(k < i or (k == i and j > 0) for k in ((3,) if config.stride == 16 else (2, 3)))
                dilation = 2**num_lost
                blocks.append(block(_Geometry(in_channels, width * 2**i, stride, dilation), config.norm))
                in_channels = width * 2**i * block.expansion
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        if num_classes is not None:
            self.fc = nn.Linear(in_channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def trunk(self, frames: Tensor) -> Trunk:
        """Features up to layer3 of normalised frames (N, 3, H, W), H and W multiples of 16."""
        x = self.maxpool(self.relu(conv_norm(self.conv1, self.bn1, frames)))
        s4 = self.layer1(x)
        s8 = self.layer2(s4)
        return Trunk(s4, s8, self.layer3(s8), avg_pool2d(frames, 4))

    def freeze(self) -> None:
        """Turn off the gradients of the stem to layer3; layer4 stays trainable."""
        for name, parameter in self.named_parameters():
            if not name.startswith("layer4"):
                parameter.requires_grad_(False)


def load_published(backbone: ResNet, path: str | Path, sha256: str) -> None:
    """Load a published ImageNet checkpoint from a local file after checking its digest; strict except for `fc`.

    path: the checkpoint
    sha256: its full digest, or at least the first 8 digits, as in published file names

    Raises FileNotFoundError if the file is missing, ValueError if its digest or its parameters do not match.
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
    except Exception as error:  # torch raises many types of error for other files
        raise ValueError(
            f"{path}: not a checkpoint that loads safely ({type(error).__name__}); see docs/backbones.md"
        ) from error
    if not isinstance(weights, dict):
        raise ValueError(f"{path}: holds a {type(weights).__name__}, not a dict of parameters; see docs/backbones.md")
    unused = ("fc.",) if hasattr(backbone, "layer4") else ("fc.", "layer4.")
    weights = {name: value for name, value in weights.items() if not name.startswith(unused)}
    # checkpoints from before PyTorch 0.4.1 lack the batch counters, which frozen statistics do not use
    for name, value in backbone.state_dict().items():
        if name.endswith("num_batches_tracked"):
            weights.setdefault(name, value)
    try:
        backbone.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        summary = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: does not match model.backbone; correct its name or width ({summary})") from error
