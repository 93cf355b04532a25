"""The search space: points of a grid and of a random search, what is rejected, and resources of trials."""

from collections import Counter

import pytest

from pipelines.params import typed
from pipelines.reporting.search_table import read_search
from pipelines.tuning.search_space import clamp_to_ranges, grid_points, random_points, require_space
from pipelines.tuning.search_trial import _trial_config
from pipelines.tuning.trial_resources import _num_shares, _require_room
from ssvos.config import Config, RangeConfig, ResourcesConfig, TuneConfig
from ssvos.config.variants import Params, merge

RATE, WIDTH, LOSS = "train.stage1.learning_rate", "model.fusion_channels", "loss.regularizer"


def with_tune(config: Config, **tune) -> Config:
    return Config.model_validate(merge(config.model_dump(mode="json"), {"tune": {"space": {}}}) | {"tune": tune})


def test_a_grid_has_every_combination_of_its_points(tiny_config):
    space = {
        RATE: {"low": 1e-4, "high": 1e-2, "num": 3},
        WIDTH: {"low": 4, "high": 8, "num": 9, "log": False},
        LOSS: {"choices": ["none", "dense_crf"]},
    }
    points = grid_points(with_tune(tiny_config, searcher="grid", space=space))
    assert len(points) == 3 * 5 * 2, "the nine points of 4..8 are five whole numbers"
    assert sorted({point[RATE] for point in points}) == pytest.approx([1e-4, 1e-3, 1e-2])
    assert [point[WIDTH] for point in points[:10:2]] == [4, 5, 6, 7, 8]
    assert all(type(point[WIDTH]) is int for point in points)
    assert [point[LOSS] for point in points[:2]] == ["none", "dense_crf"]


def test_random_points_begin_with_the_current_values_and_do_not_depend_on_the_budget(tiny_config):
    space = {RATE: {"low": 1e-5, "high": 1e-1}, WIDTH: {"low": 3, "high": 18, "log": False}}
    few, many = (random_points(with_tune(tiny_config, searcher="random", trials=n, space=space)) for n in (5, 400))
    assert many[:5] == few
    assert few[0] == {RATE: 1e-3, WIDTH: 16}
    counts = Counter(point[WIDTH] for point in many[1:])
    assert set(counts) == set(range(3, 19)) and max(counts.values()) < 3 * 399 / 16, (
        "all values, including both ends, equally often"
    )
    below = sum(point[RATE] < 1e-3 for point in many[1:]) / 399
    assert below == pytest.approx(0.5, abs=0.08), "half of the draws are below the middle of the logarithmic range"


def test_an_integer_on_a_logarithmic_range_is_drawn_in_proportion_to_its_interval(tiny_config):
    space = {WIDTH: {"low": 1, "high": 2}}
    points = random_points(with_tune(tiny_config, searcher="random", trials=600, space=space))
    # the intervals 0.5..1.5 and 1.5..2.5 have the lengths log(3) and log(5 / 3)
    assert sum(point[WIDTH] == 1 for point in points) / 600 == pytest.approx(1.0986 / (1.0986 + 0.5108), abs=0.06)


def test_values_that_pbt_multiplies_stay_in_their_range(tiny_config):
    space = {RATE: {"low": 1e-4, "high": 1e-2}, LOSS: {"choices": ["none", "dense_crf"]}}
    config = with_tune(tiny_config, searcher="pbt", space=space)
    assert clamp_to_ranges(config, {RATE: 0.012, LOSS: "none"}) == {RATE: 1e-2, LOSS: "none"}
    assert clamp_to_ranges(config, {RATE: 0.00008, LOSS: "none"})[RATE] == 1e-4
    assert clamp_to_ranges(config, {RATE: 0.005, LOSS: "none"})[RATE] == 0.005


def test_values_from_a_file_get_the_types_of_their_parameters(tiny_config):
    flag = "model.attention.scaled"
    read = typed(tiny_config, {RATE: 1, WIDTH: 8.0, LOSS: "none", flag: "False"})
    assert read == {RATE: 1.0, WIDTH: 8, LOSS: "none", flag: False}
    assert [type(value) for value in read.values()] == [float, int, str, bool]


def test_every_type_of_parameter_can_be_searched(tiny_config):
    space = {
        RATE: {"low": 1e-4, "high": 1e-2},
        WIDTH: {"low": 4, "high": 8},
        LOSS: {"choices": ["none", "dense_crf"]},
        "model.attention.scaled": {"choices": [True, False]},
        "loss.weight": {"choices": [1, 2]},
    }
    for searcher in ("tpe", "random"):
        require_space(with_tune(tiny_config, searcher=searcher, space=space))
    values = random_points(with_tune(tiny_config, searcher="random", space=space))[3]
    assert _trial_config(values, {"config": tiny_config.model_dump(mode="json")}).model.fusion_channels == values[WIDTH]


@pytest.mark.parametrize(
    ("search_range", "message"),
    [
        ({"low": 1.0}, "give low and high, or choices"),
        ({"low": 1.0, "high": 2.0, "choices": [1, 2]}, "give only one of them"),
        ({"choices": [1]}, "fewer than two"),
        ({"low": 0.0, "high": 1.0}, "must be above 0 if log is true"),
    ],
)
def test_an_invalid_search_range_is_rejected(search_range, message):
    with pytest.raises(ValueError, match=message):
        RangeConfig(**search_range)


# CPUs and GPUs of a share, nodes as (CPUs, GPUs), and the hand-counted number of shares that fit
@pytest.mark.parametrize(
    ("cpus", "gpus", "nodes", "count"),
    [
        (1.0, 0.0, [(2, 0)], 2),
        (0.5, 0.0, [(2, 0)], 4),
        (3.0, 0.0, [(2, 0), (2, 0)], 0),  # a share is on one node
        (1.0, 0.5, [(8, 2), (8, 0)], 4),
        (1.0, 0.4, [(8, 2)], 4),  # two on each GPU, none on both
        (1.0, 2.0, [(8, 3), (8, 3)], 2),
        (1.0, 0.1, [(4, 1)], 4),
    ],
)
def test_number_of_shares_that_fit_on_the_nodes(cpus, gpus, nodes, count):
    assert _num_shares(ResourcesConfig(cpus=cpus, gpus=gpus), nodes) == count


def test_a_request_that_does_not_fit_is_rejected_with_the_available_resources():
    with pytest.raises(
        ValueError, match=r"tune\.resources: 4 CPUs and 0\.5 GPUs requested, but there are 2 CPUs and 0"
    ):
        _require_room(TuneConfig(resources=ResourcesConfig(cpus=4.0, gpus=0.5)), [(2, 0)])
    with pytest.raises(ValueError, match=r"tune\.workers: 3 workers of 1 CPUs .* there are 2 CPUs and 0 GPUs on this"):
        _require_room(TuneConfig(workers=3), [(2, 0)])
    _require_room(TuneConfig(workers=4, resources=ResourcesConfig(cpus=1.0, gpus=0.5)), [(8, 1), (8, 1)])
    with pytest.raises(ValueError, match="above 1 and not a whole number"):
        ResourcesConfig(gpus=1.5)


def test_a_choice_is_shown_as_text_without_a_chart(tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tune").mkdir()
    header = f"trial,status,epochs,score,seconds,{RATE},{LOSS}"
    (tmp_path / "tune/trials.csv").write_text(
        f"{header}\n0,finished,2,0.25,1,0.1,none\n1,finished,2,0.5,1,0.2,dense_crf\n"
    )
    about = (
        "search: {data: tiny, variant: ours, metric: J}\nbest: {trial: 1, score: 0.5}\nbefore: {trial: 0, score: 0.25}"
    )
    (tmp_path / "tune/best.yaml").write_text(f"{about}\nparams: {{}}\n")
    loss = tiny_config.loss.model_copy(update={"regularizer": "dense_crf"})
    config = tiny_config.model_copy(update={"loss": loss})
    search = read_search(Params(config, {"ours": config}))
    assert search.changes == ((RATE, 0.1, 0.2, 1e-3), (LOSS, "none", "dense_crf", "dense_crf"))
    assert [chart.title for chart in search.charts] == [f"score against {RATE}"]
    assert not search.is_adopted, "the learning rate differs"
