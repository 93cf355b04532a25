"""Parameter models: strict, frozen, documented, and with one-line errors."""

import re
from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from ssvos.config import Config, FrozenConfig, LossConfig, StageConfig, parse, read_yaml

DATA = {"data": {"name": "a", "sources": [{"name": "rendered", "layout": "embedded"}]}}


def error_message(values: dict, model=Config) -> str:
    with pytest.raises(ValueError, match=r"^p\.yaml: ") as caught:
        parse(model, values, "p.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "key", "near"),
    [
        ({"loss": {"sigma_rbg": 1.0}}, "loss.sigma_rbg", "sigma_rgb"),
        ({"model": {"attention": {"scald": True}}}, "model.attention.scald", "scaled"),
        ({"train": {"stage1": {"learning_rat": 1e-3}}}, "train.stage1.learning_rat", "learning_rate"),
        ({"los": {}}, "los", "loss"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(values, key, near):
    message = error_message(DATA | values)
    assert f"{key}: unknown key" in message and f"did you mean {near}?" in message


@pytest.mark.parametrize(
    ("values", "key", "present"),
    [
        ({"adopted": ""}, "adopted", "tuned_from"),
        ({"train": {"stage2": {"average": 0.9}}}, "train.stage2.average", "ema_decay"),
        ({"train": {"augment": {"colour": 0.1}}}, "train.augment.colour", "color"),
        ({"predict": {"online": {"steps": 3}}}, "predict.online", "test_time_training"),
        ({"tune": {"algorithm": "tpe"}}, "tune.algorithm", "searcher"),
    ],
)
def test_a_key_of_an_earlier_version_is_rejected_with_its_present_name(values, key, present):
    assert error_message(DATA | values).endswith(f"{key}: renamed to {present}; use the new name")


def models(base: type[FrozenConfig] = FrozenConfig) -> Iterator[type[FrozenConfig]]:
    for model in base.__subclasses__():
        yield model
        yield from models(model)


def test_every_present_name_exists_and_no_old_one_does():
    for model in models():
        assert set(model.renamed.values()) <= set(model.model_fields), model
        assert not set(model.renamed) & set(model.model_fields), model


@pytest.mark.parametrize("model", list(models()), ids=lambda model: model.__name__)
def test_the_docstring_lists_every_field_of_the_model_itself(model):
    listed = re.findall(r"^ {4}(\w+): \S", model.__doc__, re.M)
    assert listed == [name for name in model.model_fields if name in model.__annotations__]


def test_an_unknown_key_of_a_source_is_named_with_the_nearest_known_one():
    source = {"name": "rendered", "layout": "embedded", "wieght": 2.0}
    message = error_message({"data": {"name": "a", "sources": [source]}})
    assert "data.sources.0.wieght: unknown key" in message and "weight" in message.split("unknown key")[1]


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"loss": {"weight": "0.9"}}, "loss.weight"),
        ({"loss": {"weight": -1.0}}, "loss.weight"),
        ({"train": {"stage1": {"epochs": 1.5}}}, "train.stage1.epochs"),
        ({"train": {"stage1": {"epochs": 0}}}, "train.stage1.epochs"),
        ({"model": {"attention": {"scaled": 1}}}, "model.attention.scaled"),
        ({"loss": {"normalization": "rows"}}, "loss.normalization"),
        ({"model": None}, "model"),
        ({"data": {"name": "a/b", "sources": DATA["data"]["sources"]}}, "data.name"),
        ({"data": {"name": "a", "sources": []}}, "data.sources"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(values, key):
    assert f"{key}: " in error_message(DATA | values)


def test_a_missing_key_is_named_and_several_errors_share_one_line():
    assert "data: missing" in error_message({})
    message = error_message(DATA | {"loss": {"beta": "x", "bta": 1}})
    assert "loss.beta" in message and "loss.bta" in message


def test_a_whole_number_is_accepted_for_a_float():
    config = parse(LossConfig, {"weight": 1, "sigma_xy": 40}, "p.yaml")
    assert config.weight == 1.0 and isinstance(config.sigma_xy, float)


@pytest.mark.parametrize("text", ["1e-07", "1.0e-7", "1E-7", "0.0000001"])
def test_every_notation_of_a_small_number_is_read_as_a_number(tmp_path, text):
    (tmp_path / "p.yaml").write_text(f"learning_rate: {text}\n")
    values = read_yaml(tmp_path / "p.yaml")
    assert values == {"learning_rate": 1e-7}
    assert parse(StageConfig, values, "p.yaml").learning_rate == 1e-7


def test_a_boolean_word_of_yaml_1_1_is_text(tmp_path):
    (tmp_path / "p.yaml").write_text("name: no\nflag: true\n")
    assert read_yaml(tmp_path / "p.yaml") == {"name": "no", "flag": True}


@pytest.mark.parametrize("text", ["a: [1\n", "- 1\n- 2\n", "a: 1\na: 2\n", "a: *b\n"])
def test_yaml_that_is_not_a_mapping_is_rejected_in_one_line(tmp_path, text):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"p\.yaml: ") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_not_text_are_rejected_and_a_missing_file_is_named(tmp_path):
    (tmp_path / "p.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ValueError, match=r"p\.yaml: "):
        read_yaml(tmp_path / "p.yaml")
    with pytest.raises(FileNotFoundError, match=r"q\.yaml"):
        read_yaml(tmp_path / "q.yaml")


def test_an_empty_file_is_an_empty_mapping(tmp_path):
    (tmp_path / "p.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "p.yaml") == {}


def test_parameters_are_frozen_and_survive_a_json_round_trip():
    config = parse(Config, DATA, "p.yaml")
    with pytest.raises(ValidationError):
        config.loss.weight = 2.0
    assert Config.model_validate(config.model_dump(mode="json")) == config
