"""ResNets: published names and shapes, strides, frozen statistics."""

import pytest
import torch

from ssvos.config import BackboneConfig
from ssvos.models.resnet import ResNet


def norm_entries(name: str, channels: int) -> dict[str, tuple]:
    kinds = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{kind}": (channels,) for kind in kinds} | {f"{name}.num_batches_tracked": ()}


def published_entries(depths: tuple[int, ...], has_bottleneck: bool) -> dict[str, tuple]:
    """Names and shapes of torchvision's state_dict, from the construction rule of ResNets."""
    entries = {"conv1.weight": (64, 3, 7, 7)} | norm_entries("bn1", 64)
    in_channels = 64
    for i, depth in enumerate(depths):
        c = 64 * 2**i
        out_channels = 4 * c if has_bottleneck else c
        for j in range(depth):
            block = f"layer{i + 1}.{j}"
            convolutions = (
                [(c, in_channels, 1, 1), (c, c, 3, 3), (out_channels, c, 1, 1)]
                if has_bottleneck
                else [(c, in_channels, 3, 3), (c, c, 3, 3)]
            )
            for k, shape in enumerate(convolutions, start=1):
                entries |= {f"{block}.conv{k}.weight": shape} | norm_entries(f"{block}.bn{k}", shape[0])
            if in_channels != out_channels:
                entries |= {f"{block}.downsample.0.weight": (out_channels, in_channels, 1, 1)}
                entries |= norm_entries(f"{block}.downsample.1", out_channels)
            in_channels = out_channels
    return entries | {"fc.weight": (1000, in_channels), "fc.bias": (1000,)}


@pytest.mark.parametrize(
    ("name", "depths", "has_bottleneck", "num_entries", "num_parameters"),
    [
        ("resnet18", (2, 2, 2, 2), False, 122, 11_689_512),
        ("resnet50", (3, 4, 6, 3), True, 320, 25_557_032),
        ("resnet101", (3, 4, 23, 3), True, 626, 44_549_160),
    ],
)
def test_names_shapes_and_counts_are_those_of_the_published_networks(
    name, depths, has_bottleneck, num_entries, num_parameters
):
    with torch.device("meta"):
        backbone = ResNet(BackboneConfig(name=name), num_classes=1000)
    shapes = {key: tuple(value.shape) for key, value in backbone.state_dict().items()}
    assert shapes == published_entries(depths, has_bottleneck)
    assert len(shapes) == num_entries
    assert sum(p.numel() for p in backbone.parameters()) == num_parameters


@pytest.mark.parametrize(("name", "expansion"), [("resnet18", 1), ("resnet50", 4)])
def test_features_have_strides_4_8_16_and_layer4_keeps_16(name, expansion):
    backbone = ResNet(BackboneConfig(name=name, width=8, norm="group"))
    trunk = backbone.trunk(torch.rand(1, 3, 64, 96))
    widths = [8 * expansion * 2**i for i in range(4)]
    assert {name: tuple(features.shape[1:]) for name, features in trunk._asdict().items()} == {
        "s4": (widths[0], 16, 24),
        "s8": (widths[1], 8, 12),
        "deep": (widths[2], 4, 6),
        "color": (3, 16, 24),
    }
    assert backbone.layer4(trunk.deep).shape == (1, widths[3], 4, 6)
    assert list(backbone.channels.values()) == widths


def test_dilated_layer4_equals_the_strided_layer4_at_their_common_positions():
    torch.manual_seed(0)
    layer4 = ResNet(BackboneConfig(name="resnet50", width=8)).layer4.double().eval()
    x = torch.randn(1, 128, 6, 8, dtype=torch.float64)
    dilated = layer4(x)
    layer4[0].conv2.stride = layer4[0].downsample[0].stride = (2, 2)
    for block in layer4[1:]:
        block.conv2.dilation = block.conv2.padding = (1, 1)
    torch.testing.assert_close(dilated[..., ::2, ::2], layer4(x))


@pytest.mark.parametrize("prepare", [lambda b: b, lambda b: b.train(), lambda b: b.eval()])
def test_frozen_statistics_never_change(prepare):
    backbone = prepare(ResNet(BackboneConfig(name="resnet18", width=8, norm="frozen_batch")))
    before = {k: v.clone() for k, v in backbone.state_dict().items() if "running" in k or "num_batches" in k}
    frames = 3 + 2 * torch.randn(2, 3, 32, 32)
    trained = backbone.trunk(frames)
    after = backbone.state_dict()
    assert before and all(torch.equal(value, after[key]) for key, value in before.items())
    torch.testing.assert_close(trained.deep, backbone.eval().trunk(frames).deep)


def test_freezing_leaves_only_layer4_trainable():
    backbone = ResNet(BackboneConfig(name="resnet18", width=8, norm="group"))
    backbone.freeze()
    trainable = {name.split(".")[0] for name, p in backbone.named_parameters() if p.requires_grad}
    assert trainable == {"layer4"}


def test_a_width_that_is_not_a_multiple_of_the_normalisation_groups_is_rejected():
    with pytest.raises(ValueError, match=r"width: 12 .*8"):
        ResNet(BackboneConfig(name="resnet18", width=12, norm="group"))
