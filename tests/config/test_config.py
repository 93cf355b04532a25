"""Parameters: strict, frozen, and explained in one line when they are wrong."""

import pytest
from pydantic import ValidationError

from ssvos.config import Config, FrozenConfig, LossConfig, StageConfig, parse, read_yaml

DATA = {"data": {"name": "a", "sources": [{"name": "made", "layout": "embedded"}]}}


def one_line(values: dict, model=Config) -> str:
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
    message = one_line(DATA | values)
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
def test_a_key_of_an_earlier_version_is_refused_with_its_present_name(values, key, present):
    assert one_line(DATA | values).endswith(f"{key}: renamed to {present}; use the new name")


def test_every_present_name_exists_and_no_old_one_does():
    for model in FrozenConfig.__subclasses__():
        assert set(model.renamed.values()) <= set(model.model_fields), model
        assert not set(model.renamed) & set(model.model_fields), model


def test_an_unknown_key_of_a_source_is_named_with_the_nearest_known_one():
    source = {"name": "made", "layout": "embedded", "wieght": 2.0}
    message = one_line({"data": {"name": "a", "sources": [source]}})
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
    assert f"{key}: " in one_line(DATA | values)


def test_a_missing_key_is_named_and_several_faults_share_the_line():
    assert "data: missing" in one_line({})
    message = one_line(DATA | {"loss": {"beta": "x", "bta": 1}})
    assert "loss.beta" in message and "loss.bta" in message


def test_whole_numbers_will_do_for_fractions():
    config = parse(LossConfig, {"weight": 1, "sigma_xy": 40}, "p.yaml")
    assert config.weight == 1.0 and isinstance(config.sigma_xy, float)


@pytest.mark.parametrize("text", ["1e-07", "1.0e-7", "1E-7", "0.0000001"])
def test_every_way_of_writing_a_small_number_is_a_number(tmp_path, text):
    (tmp_path / "p.yaml").write_text(f"learning_rate: {text}\n")
    values = read_yaml(tmp_path / "p.yaml")
    assert values == {"learning_rate": 1e-7}
    assert parse(StageConfig, values, "p.yaml").learning_rate == 1e-7


def test_yaml_words_of_old_are_text(tmp_path):
    (tmp_path / "p.yaml").write_text("name: no\nflag: true\n")
    assert read_yaml(tmp_path / "p.yaml") == {"name": "no", "flag": True}


@pytest.mark.parametrize("text", ["a: [1\n", "- 1\n- 2\n", "a: 1\na: 2\n", "a: *b\n"])
def test_yaml_that_is_no_table_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"p\.yaml: ") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused_and_a_missing_file_is_named(tmp_path):
    (tmp_path / "p.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ValueError, match=r"p\.yaml: "):
        read_yaml(tmp_path / "p.yaml")
    with pytest.raises(FileNotFoundError, match=r"q\.yaml"):
        read_yaml(tmp_path / "q.yaml")


def test_an_empty_file_is_an_empty_table(tmp_path):
    (tmp_path / "p.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "p.yaml") == {}


def test_parameters_do_not_change_after_reading_and_come_back_from_json():
    config = parse(Config, DATA, "p.yaml")
    with pytest.raises(ValidationError):
        config.loss.weight = 2.0
    assert Config.model_validate(config.model_dump(mode="json")) == config
