"""ResNet with torchvision's parameter names, split after layer3, where the network inserts attention."""

from typing import ClassVar, NamedTuple

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from ssvos.config import BackboneConfig
from ssvos.models.backbone import Backbone, Trunk
from ssvos.models.conv_norm import GROUPS, conv_norm, make_norm


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
        self.bn1 = make_norm(norm, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, dilation, dilation, bias=False)
        self.bn2 = make_norm(norm, channels)
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
        self.bn1 = make_norm(norm, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, dilation, dilation, bias=False)
        self.bn2 = make_norm(norm, channels)
        self.conv3 = nn.Conv2d(channels, channels * 4, 1, bias=False)
        self.bn3 = make_norm(norm, channels * 4)
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
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), make_norm(norm, out_channels))


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


class ResNet(Backbone):
    """ResNet-18, -50 or -101 whose last layers keep stride 16 (layer4 has stride 1, dilation 2) or 8 (layer3 as well).

    num_classes: if given, adds the published classifier `fc`, for comparing names and shapes
    """

    mean: ClassVar = (0.485, 0.456, 0.406)
    std: ClassVar = (0.229, 0.224, 0.225)
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential

    def __init__(self, config: BackboneConfig, num_classes: int | None = None):
        super().__init__()
        block, depths = _BLOCKS[config.name]
        if config.width % GROUPS:
            raise ValueError(f"model.backbone.width: {config.width} is not a multiple of {GROUPS}; choose a multiple")
        width = config.width
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = make_norm(config.norm, width)
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
        x = self.maxpool(self.relu(conv_norm(self.conv1, self.bn1, frames)))
        s4 = self.layer1(x)
        s8 = self.layer2(s4)
        return Trunk(s4, s8, self.layer3(s8), avg_pool2d(frames, 4))
