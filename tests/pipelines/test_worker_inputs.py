"""The inputs that workers get: a backbone's file of weights travels, weights from a package do not."""

from pathlib import Path

import pytest

from pipelines.cluster import worker_inputs
from pipelines.cluster.worker_inputs import pack, unpack
from pipelines.params import Layout
from ssvos.config import BackboneConfig, Config, DataConfig, ModelConfig, SourceConfig


def config_with(backbone: BackboneConfig) -> Config:
    source = SourceConfig(name="own", layout="folder", root="videos")
    return Config(data=DataConfig(name="own", sources=(source,)), model=ModelConfig(backbone=backbone))


@pytest.fixture
def layout(tmp_path, monkeypatch) -> Layout:
    monkeypatch.chdir(tmp_path)
    layout = Layout("own")
    for path in (layout.index, layout.scribbles / "scribbles.parquet", Path("videos/a.jpg"), Path("w.pth")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())
    return layout


@pytest.mark.parametrize("is_far", [False, True])
def test_weights_of_a_package_are_not_a_file(layout, monkeypatch, is_far):
    """On a cluster that does not see the folder, too: sending a file named `imagenet` would fail."""
    monkeypatch.setattr(worker_inputs, "uses_existing_cluster", lambda: is_far)
    monkeypatch.setattr(worker_inputs, "is_connected", lambda: is_far)
    monkeypatch.setattr(worker_inputs, "_send", lambda name, content: name)
    config = config_with(BackboneConfig(name="efficientnet_lite0", weights="imagenet", last="layer3"))
    packed = pack(config, layout)
    assert "weights" not in packed.files
    if not is_far:
        assert unpack(packed).local_config(config) == config


def test_a_file_of_weights_is_read_under_its_local_path(layout):
    config = config_with(BackboneConfig(name="resnet18", weights="w.pth", sha256="0" * 8))
    local = unpack(pack(config, layout)).local_config(config)
    assert local.model.backbone.weights == str(Path("w.pth").absolute())
