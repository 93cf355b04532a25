"""`ssvos fit`: from one YAML file to a checkpoint, on one device, with PyTorch alone."""

import csv

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from ssvos.cli import app
from ssvos.models.checkpoint import load_checkpoint


def write_file(path, config, fit: dict, **changes) -> None:
    values = config.model_dump(mode="json") | changes
    values["fit"] = fit
    with open(path, "w", encoding="utf-8") as file:
        YAML(typ="safe").dump(values, file)


def call(path):
    return CliRunner().invoke(app, ["fit", str(path), "--device", "cpu"])


@pytest.fixture(scope="module")
def one_epoch(tiny_config):
    stage = tiny_config.train.stage1.model_copy(update={"epochs": 1, "clips_per_epoch": 2})
    return tiny_config.model_copy(update={"train": tiny_config.train.model_copy(update={"stage1": stage})})


@pytest.fixture(scope="module")
def fitted(one_epoch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    variants = {"pce": {"loss": {"regularizer": "none"}}}
    write_file(folder / "fit.yaml", one_epoch, {"stage": "stage1", "out": "run"}, variants=variants)
    result = call(folder / "fit.yaml")
    assert result.exit_code == 0, result.output
    return folder, result


def test_fit_writes_a_checkpoint_and_a_history(fitted, one_epoch):
    folder, result = fitted
    _, info = load_checkpoint(folder / "run" / "checkpoint.pt")
    assert info.model == one_epoch.model and info.size == (48, 64)
    assert info.about["stage"] == "stage1" and info.about["chosen_by"] == "J"
    with open(folder / "run" / "history.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1 and float(rows[0]["loss"]) > 0
    assert float(rows[0]["holdout_score"]) == info.about["holdout_score"]
    assert "epoch 1/1" in result.output and str(folder / "run" / "checkpoint.pt") in result.output


def test_a_second_fit_on_the_first_ones_index_and_scribbles_gives_the_same_bytes(fitted, one_epoch):
    folder, _ = fitted
    inputs = {"index": "run/index.parquet", "scribbles": "run/scribbles.parquet"}
    # the first fit rendered the embedded frames into this folder
    source = {"name": "embedded", "layout": "davis", "root": str(folder / "run" / "embedded")}
    data = one_epoch.data.model_dump(mode="json") | {"sources": [source]}
    write_file(folder / "again.yaml", one_epoch, {"stage": "stage1", "out": "again"} | inputs, data=data)
    result = call(folder / "again.yaml")
    assert result.exit_code == 0, result.output
    assert (folder / "again" / "checkpoint.pt").read_bytes() == (folder / "run" / "checkpoint.pt").read_bytes()


def test_the_second_stage_starts_from_the_first_stages_weights(fitted, one_epoch):
    folder, _ = fitted
    source = {"name": "embedded", "layout": "davis", "root": str(folder / "run" / "embedded")}
    data = one_epoch.data.model_dump(mode="json") | {"sources": [source]}
    frozen = one_epoch.train.stage1.model_copy(update={"learning_rate": 1e-30, "weight_decay": 0.0})
    train = one_epoch.train.model_copy(update={"stage2": frozen}).model_dump(mode="json")
    fit = {"stage": "stage2", "out": "second", "init_checkpoint": "run/checkpoint.pt"}
    write_file(folder / "second.yaml", one_epoch, fit, data=data, train=train)
    result = call(folder / "second.yaml")
    assert result.exit_code == 0, result.output
    first, second = (load_checkpoint(folder / run / "checkpoint.pt")[0].state_dict() for run in ("run", "second"))
    assert all((value - second[key]).abs().max() < 1e-20 for key, value in first.items())


def test_an_unknown_key_is_refused_before_anything_is_written(one_epoch, tmp_path):
    write_file(tmp_path / "fit.yaml", one_epoch, {"stage": "stage1", "out": "run", "strat": "x"})
    result = call(tmp_path / "fit.yaml")
    assert isinstance(result.exception, ValueError)
    assert "fit.strat: unknown key" in str(result.exception) and "fit.yaml" in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["fit.yaml"]


def test_a_missing_file_is_named_in_the_error(tmp_path):
    result = call(tmp_path / "none.yaml")
    assert isinstance(result.exception, FileNotFoundError) and "none.yaml" in str(result.exception)
