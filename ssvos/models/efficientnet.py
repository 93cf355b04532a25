"""EfficientNet-Lite0 and -Lite2 up to stride 16: small backbones whose ImageNet weights come with a Python package.

Architecture: Tan and Le, EfficientNet, ICML 2019; the Lite variants replace swish by ReLU6 and leave out squeeze and
excitation. As in TensorFlow, a convolution with stride 2 pads one pixel less on the top and on the left.
"""

import math
from typing import ClassVar, NamedTuple

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, pad, relu6

from ssvos.config import BackboneConfig
from ssvos.models.backbone import Backbone, Trunk
from ssvos.models.conv_norm import conv_norm, make_norm

_EPS = 1e-3  # of batch normalisation, as in TensorFlow
_SCALES = {"efficientnet_lite0": (1.0, 1.0), "efficientnet_lite2": (1.1, 1.2)}  # of width and depth
_STEM, _HEAD = 32, 1280  # not scaled


class _Group(NamedTuple):
    """A group of blocks, before scaling: only the first block has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_GROUPS = (
    _Group(1, 3, 1, 1, 16),
    _Group(2, 3, 2, 6, 24),
    _Group(2, 5, 2, 6, 40),
    _Group(3, 3, 2, 6, 80),
    _Group(3, 5, 1, 6, 112),
    _Group(4, 5, 2, 6, 192),
    _Group(1, 3, 1, 6, 320),
)
_LAYERS = {"layer1": 1, "layer2": 2, "layer3": 4}  # the last group of each layer


class _Block(nn.Module):
    """1x1 convolution to more channels, convolution of each channel by itself, 1x1 convolution back; residual if the
    shape stays."""

    def __init__(self, in_channels: int, group: _Group, stride: int, dilation: int, norm: str):
        super().__init__()
        inner, out = in_channels * group.expansion, group.channels
        self.has_residual = group.stride == 1 and in_channels == out
        if group.expansion > 1:
            self.expand = nn.Conv2d(in_channels, inner, 1, bias=False)
            self.expand_norm = make_norm(norm, inner, _EPS)
        padding = 0 if stride == 2 else dilation * (group.kernel // 2)
        self.depthwise = nn.Conv2d(inner, inner, group.kernel, stride, padding, dilation, inner, bias=False)
        self.depthwise_norm = make_norm(norm, inner, _EPS)
        self.project = nn.Conv2d(inner, out, 1, bias=False)
        self.project_norm = make_norm(norm, out, _EPS)

    def forward(self, x: Tensor) -> Tensor:
        y = relu6(conv_norm(self.expand, self.expand_norm, x), inplace=True) if hasattr(self, "expand") else x
        y = relu6(conv_norm(self.depthwise, self.depthwise_norm, _pad_for_stride(y, self.depthwise)), inplace=True)
        y = conv_norm(self.project, self.project_norm, y)
        return y.add_(x) if self.has_residual else y


class EfficientNetLite(Backbone):
    """EfficientNet-Lite0 or -Lite2 whose layer3 has stride 16, or stride 8 with dilation 2.

    num_classes: if given, adds the last two groups and the published classifier, for comparing its answers
    """

    mean: ClassVar = (127 / 255,) * 3
    std: ClassVar = (128 / 255,) * 3

    def __init__(self, config: BackboneConfig, num_classes: int | None = None):
        super().__init__()
        width, depth = _SCALES[config.name]
        last = len(_GROUPS) if num_classes is not None else _LAYERS["layer3"] + 1
        self.stem = nn.Conv2d(3, _STEM, 3, 2, bias=False)
        self.stem_norm = make_norm(config.norm, _STEM, _EPS)
        self.groups = nn.ModuleList()
        in_channels, is_dilated = _STEM, False
        for number, group in enumerate(_GROUPS[:last]):
            is_end = number in (0, len(_GROUPS) - 1)  # the depth of the first and of the last group is not scaled
            repeats = group.repeats if is_end else math.ceil(group.repeats * depth)
            scaled = group._replace(channels=_scaled_channels(group.channels, width))
            blocks = []
            for j in range(repeats):
                is_strided = j == 0 and group.stride == 2
                # dilation replaces the stride of layer3, so that later blocks keep their receptive field
                loses_stride = is_strided and config.stride == 8 and number == 3
                stride = 2 if is_strided and not loses_stride else 1
                block = scaled if j == 0 else scaled._replace(stride=1)
                blocks.append(_Block(in_channels, block, stride, 2 if is_dilated else 1, config.norm))
                is_dilated = is_dilated or loses_stride
                in_channels = scaled.channels
            self.groups.append(nn.Sequential(*blocks))
        self.channels = {name: _scaled_channels(_GROUPS[number].channels, width) for name, number in _LAYERS.items()}
        if num_classes is not None:
            self.head = nn.Conv2d(in_channels, _HEAD, 1, bias=False)
            self.head_norm = make_norm(config.norm, _HEAD, _EPS)
            self.classifier = nn.Linear(_HEAD, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def trunk(self, frames: Tensor) -> Trunk:
        s4 = self.groups[1](self.groups[0](self._stem(frames)))
        s8 = self.groups[2](s4)
        return Trunk(s4, s8, self.groups[4](self.groups[3](s8)), avg_pool2d(frames, 4))

    def classify(self, frames: Tensor) -> Tensor:
        """Class scores (N, num_classes) of normalised frames (N, 3, H, W)."""
        x = self._stem(frames)
        for group in self.groups:
            x = group(x)
        x = relu6(conv_norm(self.head, self.head_norm, x))
        scores: Tensor = self.classifier(adaptive_avg_pool2d(x, 1).flatten(1))
        return scores

    def _stem(self, frames: Tensor) -> Tensor:
        return relu6(conv_norm(self.stem, self.stem_norm, _pad_for_stride(frames, self.stem)), inplace=True)


def _pad_for_stride(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """TensorFlow's padding of even sizes before a convolution with stride 2: one pixel less on the top and left."""
    if conv.stride[0] == 1:
        return x
    before = (conv.kernel_size[0] - 2) // 2
    after = conv.kernel_size[0] - 2 - before
    return pad(x, (before, after, before, after))


def _scaled_channels(channels: int, width: float) -> int:
    """Channels times the width, rounded to a multiple of 8, but never down by more than a tenth."""
    scaled = max(8, int(channels * width + 4) // 8 * 8)
    return scaled + 8 if scaled < 0.9 * channels * width else scaled
