"""Packing training data in one folder, to train on another machine."""

import shutil

import cv2
import numpy as np
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from ssvos.cli import app
from ssvos.data.index import read_index, videos_of
from ssvos.labels import read_labels
from ssvos.models.checkpoint import load_checkpoint
from ssvos.scribbles.store import read_store


@pytest.fixture(scope="module")
def packed(tiny_data, tmp_path_factory):
    """The tiny data set as a DAVIS folder, packed at half its height; the folder itself is then removed."""
    folder = tmp_path_factory.mktemp("pack")
    (root,) = tiny_data.roots.values()
    shutil.copytree(root, folder / "clips")
    values = tiny_data.config.model_dump(mode="json")
    (source,) = values["data"]["sources"]
    source |= {"layout": "davis", "root": "clips"}
    values["train"]["stage1"] |= {"epochs": 1, "clips_per_epoch": 2}
    values["fit"] = {"stage": "stage1", "out": "run"}
    with open(folder / "fit.yaml", "w", encoding="utf-8") as file:
        YAML(typ="safe").dump(values, file)
    result = CliRunner().invoke(app, ["pack", str(folder / "fit.yaml"), str(folder / "packed"), "--height", "24"])
    assert result.exit_code == 0, result.output
    shutil.rmtree(folder / "clips")
    return shutil.copytree(folder / "packed", tmp_path_factory.mktemp("elsewhere") / "packed")


def test_frames_and_masks_are_resized_and_scribbles_have_full_size(packed, tiny_data):
    originals = {v.sequence: v for v in videos_of(read_index(tiny_data.index)) if v.split != "val"}
    (root,) = tiny_data.roots.values()
    store, full = read_store(packed / "scribbles.parquet"), read_store(tiny_data.scribbles)
    videos = videos_of(read_index(packed / "index.parquet"))
    assert {v.sequence for v in videos} == set(originals)
    for video in videos:
        for frame, original in zip(video.frames, originals[video.sequence].frames, strict=True):
            image = cv2.imread(str(packed / video.dataset / frame.image_path))
            small = cv2.resize(cv2.imread(str(root / original.image_path)), (32, 24), interpolation=cv2.INTER_AREA)
            assert image.shape == (frame.height, frame.width, 3) == (24, 32, 3)
            assert np.abs(image.astype(float) - small).mean() < 12
            mask = read_labels(packed / video.dataset / frame.mask_path)
            assert np.array_equal(mask, read_labels(root / original.mask_path)[1::2, 1::2])
            key = (video.dataset, video.sequence, frame.name)
            assert np.array_equal(store[key], full[key]) and store[key].shape == (48, 64)


def test_a_pack_trains_without_the_original_videos(packed):
    result = CliRunner().invoke(app, ["fit", str(packed / "fit.yaml"), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert load_checkpoint(packed / "run" / "checkpoint.pt")[1].about["chosen_by"] == "J"


def test_an_existing_folder_is_unchanged(packed):
    before = sorted(packed.rglob("*"))
    result = CliRunner().invoke(app, ["pack", str(packed / "fit.yaml"), str(packed)])
    assert isinstance(result.exception, FileExistsError) and "already exists" in str(result.exception)
    assert sorted(packed.rglob("*")) == before


def test_a_fault_in_the_data_writes_no_pack(tiny_data, tmp_path):
    (root,) = tiny_data.roots.values()
    shutil.copytree(root, tmp_path / "clips")
    next((tmp_path / "clips/JPEGImages").rglob("*.jpg")).write_bytes(b"not an image")
    values = tiny_data.config.model_dump(mode="json")
    values["data"]["sources"][0] |= {"layout": "davis", "root": "clips"}
    values["fit"] = {"stage": "stage1", "out": "run"}
    with open(tmp_path / "fit.yaml", "w", encoding="utf-8") as file:
        YAML(typ="safe").dump(values, file)
    result = CliRunner().invoke(app, ["pack", str(tmp_path / "fit.yaml"), str(tmp_path / "packed")])
    assert result.exit_code and "not a readable image" in str(result.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "fit.yaml"]


def test_a_pack_of_an_unlimited_source_trains(unlimited_file):
    folder = unlimited_file.parent
    result = CliRunner().invoke(app, ["pack", str(unlimited_file), str(folder / "packed"), "--height", "24"])
    assert result.exit_code == 0, result.output
    assert {path.name for path in (folder / "packed").iterdir()} == {
        "embedded",
        "fit.yaml",
        "index.parquet",
        "scribbles.parquet",
    }
    result = CliRunner().invoke(app, ["fit", str(folder / "packed/fit.yaml"), "--device", "cpu"])
    assert result.exit_code == 0, result.output


@pytest.fixture
def unlimited_file(tiny_data, tmp_path):
    """A fit file with the tiny data set as an unlimited source."""
    values = tiny_data.config.model_dump(mode="json")
    values["data"]["sources"][0] |= {"unlimited": True}
    values["train"]["stage1"] |= {"epochs": 1, "clips_per_epoch": 2}
    values["fit"] = {"stage": "stage1", "out": "run"}
    with open(tmp_path / "fit.yaml", "w", encoding="utf-8") as file:
        YAML(typ="safe").dump(values, file)
    return tmp_path / "fit.yaml"
