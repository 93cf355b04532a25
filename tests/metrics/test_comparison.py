"""Two variants compared over seeds and videos: by hand, by a slow loop, at its limits, and its rate of errors."""

import dataclasses
import importlib.util
import json
import math
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ssvos.metrics.comparison import Comparison, compare, half_width, holm, mean_and_interval, two_way, verdict

PROJECT = Path(__file__).parents[2]
SCRIPT = PROJECT / "studies" / "calibration.py"

# 2 + seed (-1, 0, 1) + video (-3, -1, 1, 3) + what neither explains: 1, -1 | -1, 1 in a corner
BY_HAND = [[-1, -1, 2, 4], [-2, 2, 3, 5], [0, 2, 4, 6]]
SEEDS, VIDEOS, RESIDUAL = 4 * 2 / 2, 3 * 20 / 3, 4 / 6  # mean squares
T2, T3 = 4.302653, 3.182446  # of printed tables: Student's t, 97.5 %, 2 and 3 degrees of freedom


def scores(table) -> dict[tuple[int, str], float]:
    return {(s, f"v{v}"): float(score) for s, row in enumerate(table) for v, score in enumerate(row)}


def against_zero(table) -> Comparison:
    return compare(scores(table), scores(np.zeros_like(np.array(table, float))))


def drawn(seed: int = 0, num_seeds: int = 3, num_videos: int = 5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    effects = rng.normal(1.0, 2.0, (num_seeds, 1)) + rng.normal(0, 3, (1, num_videos))
    return effects + rng.normal(0, 1, (num_seeds, num_videos))


def test_a_table_worked_by_hand():
    found = against_zero(BY_HAND)
    both = SEEDS + VIDEOS - RESIDUAL
    critical = SEEDS / both * T2 + (1 - SEEDS / both) * T3
    reach = critical * math.sqrt(both / 12)
    assert (found.mean, found.num_seeds, found.num_videos) == (2.0, 3, 4)
    assert reach == pytest.approx(4.7055, abs=1e-4)
    assert found.interval == pytest.approx((2 - reach, 2 + reach), rel=1e-6)
    components = (SEEDS - RESIDUAL) / 4 + (VIDEOS - RESIDUAL) / 3 + RESIDUAL
    assert found.effect_size == pytest.approx(2 / math.sqrt(components))


def test_p_is_the_level_at_which_the_interval_ends_at_zero():
    found = against_zero(BY_HAND)
    reach = half_width(two_way(np.array(BY_HAND, float)), found.p)
    assert reach == pytest.approx(2.0)
    # between those of Student's t, in closed form for 2 and for 3 degrees of freedom
    ratio = 2 / math.sqrt((SEEDS + VIDEOS - RESIDUAL) / 12)
    two = 1 - ratio / math.sqrt(2 + ratio**2)
    three = 1 - 2 / math.pi * (math.atan(ratio / math.sqrt(3)) + math.sqrt(3) * ratio / (3 + ratio**2))
    assert three < found.p < two


@pytest.mark.parametrize("seed", range(20))
def test_p_is_below_five_percent_where_the_interval_leaves_out_zero(seed):
    found = against_zero(drawn(seed) + seed)
    assert (found.p < 0.05) == (found.interval[0] > 0 or found.interval[1] < 0)


@pytest.mark.parametrize("seed", range(5))
def test_mean_squares_are_those_of_a_slow_loop(seed):
    table = drawn(seed, num_seeds=4)
    total = seeds = videos = residual = 0.0
    for s, v in product(range(4), range(5)):
        total += table[s, v] / 20
    for s, v in product(range(4), range(5)):
        of_seed = sum(table[s, w] for w in range(5)) / 5
        of_video = sum(table[r, v] for r in range(4)) / 4
        seeds += (of_seed - total) ** 2 / 3
        videos += (of_video - total) ** 2 / 4
        residual += (table[s, v] - of_seed - of_video + total) ** 2 / 12
    found = two_way(table)
    assert (found.mean, found.seeds, found.videos, found.residual) == pytest.approx((total, seeds, videos, residual))


def test_tables_in_a_batch_are_taken_one_by_one():
    tables = np.stack([drawn(seed) for seed in range(6)]).reshape(2, 3, 3, 5)
    together = half_width(two_way(tables))
    assert together.shape == (2, 3)
    assert together[1, 2] == pytest.approx(half_width(two_way(tables[1, 2])))


@pytest.mark.parametrize("values", [[1.0, 2.5, 3.0], [0.2, -0.1, 0.3], [4.0, 4.5, 4.2]])
def test_where_videos_do_not_differ_it_is_the_t_test_over_seeds(values):
    found = against_zero([[value] * 6 for value in values])
    expected = stats.ttest_1samp(values, 0.0)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval()))


def test_where_seeds_do_not_differ_it_is_the_t_test_over_videos():
    values = [1.0, 2.5, 3.0, -0.5, 2.0, 1.5, 0.1]
    found, expected = against_zero([values] * 3), stats.ttest_1samp(values, 0.0)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval()))


@pytest.mark.parametrize("seed", range(8))
def test_it_is_never_surer_than_either_t_test_whose_chance_it_includes(seed):
    table = drawn(seed, num_videos=14)
    over_videos = stats.ttest_1samp(table.mean(axis=0), 0.0)
    low, high = against_zero(table).interval
    assert high - low >= np.ptp(over_videos.confidence_interval())
    standard_error = stats.sem(table.mean(axis=1))
    assert (high - low) / 2 >= standard_error * stats.t.isf(0.025, 13)


def test_more_seeds_than_videos_are_the_same_the_other_way_round():
    table = drawn(num_seeds=3, num_videos=7)
    one, other = against_zero(table), against_zero(table.T)
    assert (other.mean, other.p, *other.interval) == pytest.approx((one.mean, one.p, *one.interval))


def test_a_constant_added_to_both_changes_nothing():
    one, other = drawn(0), drawn(1)
    plain, raised = compare(scores(one), scores(other)), compare(scores(one + 40), scores(other + 40))
    assert dataclasses.astuple(raised)[0::2] == pytest.approx(dataclasses.astuple(plain)[0::2])
    assert raised.interval == pytest.approx(plain.interval)


def test_swapping_the_two_turns_the_sign_alone():
    one, other = scores(drawn(0)), scores(drawn(1))
    there, back = compare(one, other), compare(other, one)
    assert (back.mean, back.effect_size, back.p) == (-there.mean, -there.effect_size, there.p)
    assert back.interval == (-there.interval[1], -there.interval[0])


def test_names_and_order_of_seeds_and_videos_do_not_matter():
    one, other = drawn(0), drawn(1)
    turned = np.ix_([2, 0, 1], [4, 1, 3, 0, 2])
    plain, permuted = compare(scores(one), scores(other)), compare(scores(one[turned]), scores(other[turned]))
    assert (permuted.mean, permuted.p, permuted.effect_size) == pytest.approx((plain.mean, plain.p, plain.effect_size))
    assert permuted.interval == pytest.approx(plain.interval)


def test_another_unit_scales_mean_and_interval_and_leaves_p():
    plain, percent = against_zero(drawn()), against_zero(100 * drawn())
    assert (percent.p, percent.effect_size) == pytest.approx((plain.p, plain.effect_size))
    assert (percent.mean, *percent.interval) == pytest.approx([100 * one for one in (plain.mean, *plain.interval)])


def test_seeds_and_videos_of_one_alone_are_left_out():
    one, other = scores(drawn(0)), scores(drawn(1))
    plain = compare(one, other)
    more = one | {(7, f"v{v}"): 99.0 for v in range(5)} | {(s, "other"): 99.0 for s in range(3)}
    assert compare(more, other) == plain


def test_a_missing_score_is_named():
    one, other = scores(drawn(0)), scores(drawn(1))
    del other[1, "v3"]
    with pytest.raises(ValueError, match=r"^baseline: seed 1 has no score on video 'v3'"):
        compare(one, other)
    with pytest.raises(ValueError, match=r"^scores: seed 1 has no score on video 'v3'"):
        mean_and_interval(other)
    with pytest.raises(ValueError, match=r"^scores: seed 2 has a score of nan on video 'v0'"):
        compare(one | {(2, "v0"): math.nan}, scores(drawn(1)))


def test_equal_scores_are_no_difference():
    one = scores(drawn())
    assert compare(one, one) == Comparison(0.0, (0.0, 0.0), 1.0, None, 3, 5)


def test_a_difference_without_any_scatter_is_certain_and_has_no_effect_size():
    one = drawn()
    found = compare(scores(one + 2), scores(one))
    assert found == Comparison(2.0, (2.0, 2.0), 0.0, None, 3, 5)


def test_rounding_is_no_difference():
    one = drawn()
    other = one * (1 + 1e-15)
    assert (other != one).any()
    found = compare(scores(one), scores(other))
    assert (found.mean, found.p) == (0.0, 1.0)


def test_no_mean_difference_has_p_one():
    found = against_zero([[1.0, -1.0], [-1.0, 1.0], [2.0, -2.0]])
    assert found.mean == 0 and found.p == 1


def test_a_huge_ratio_has_a_small_p_and_no_error():
    table = np.full((3, 14), 1e9)
    table[0, 0] += 1e-6
    assert 0 <= against_zero(table).p < 1e-20


@pytest.mark.parametrize(("num_seeds", "num_videos"), [(1, 5), (3, 1), (1, 1)])
def test_one_seed_or_one_video_has_a_mean_alone(num_seeds, num_videos):
    found = against_zero(np.full((num_seeds, num_videos), 2.0))
    assert found == Comparison(2.0, None, None, None, num_seeds, num_videos)


def test_two_seeds_have_an_interval_and_no_test():
    found = against_zero(drawn(num_seeds=2))
    assert found.p is None and found.interval[0] < found.mean < found.interval[1]


def test_without_a_pair_there_is_nothing():
    one = scores(drawn())
    assert compare(one, {}) == Comparison(None, None, None, None, 0, 0)
    found = compare(one, {(seed, "another"): 1.0 for seed, _ in one})
    assert (found.mean, found.p, found.num_videos) == (None, None, 0)


# Holm (1979), by hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, and the last may not fall below the one before it
HOLM = [
    ({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}, {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}),
    ({"a": 0.03, "b": 0.03}, {"a": 0.06, "b": 0.06}),
    ({"a": 0.6, "b": 0.9}, {"a": 1.0, "b": 1.0}),
    ({"a": 0.04}, {"a": 0.04}),
    ({}, {}),
]


@pytest.mark.parametrize(("p_values", "adjusted"), HOLM)
def test_holm_by_hand(p_values, adjusted):
    found = holm(p_values)
    assert found == pytest.approx(adjusted) and list(found) == list(p_values)


VERDICTS = [
    (2.0, 0.05, 1.6, "agrees"),
    (2.0, 0.05, -1.6, "differs"),
    (-2.0, 0.01, 1.6, "differs"),
    (-2.0, 0.01, -1.6, "agrees"),
    (2.0, 0.0501, 1.6, "undecided"),
    (0.0, 1.0, 1.6, "undecided"),
]


@pytest.mark.parametrize(("mean", "p", "published", "word"), VERDICTS)
def test_a_verdict_takes_the_published_sign_where_the_adjusted_p_allows(mean, p, published, word):
    assert verdict(Comparison(mean, (mean - 1, mean + 1), 0.001, 1.0, 3, 14), p, published) == word


@pytest.mark.parametrize(
    ("num_seeds", "num_videos", "reason"), [(2, 14, "seeds"), (0, 0, "seeds"), (3, 1, "videos"), (1, 1, "seeds")]
)
def test_too_few_seeds_or_videos_have_no_verdict(num_seeds, num_videos, reason):
    found = verdict(against_zero(np.ones((num_seeds, num_videos))), None, 1.6)
    assert found == f"no verdict: fewer than {'three' if reason == 'seeds' else 'two'} {reason}"


def test_a_variants_own_score_by_hand():
    mean, sd, interval = mean_and_interval(scores(np.array(BY_HAND) + 50))
    assert (mean, sd) == (52.0, 1.0)
    assert interval == pytest.approx([50 + end for end in against_zero(BY_HAND).interval])


def test_a_variants_own_score_with_little_data():
    assert mean_and_interval({(0, "a"): 3.0, (0, "b"): 5.0}) == (4.0, None, None)
    assert mean_and_interval({(0, "a"): 3.0, (1, "a"): 5.0}) == (4.0, pytest.approx(math.sqrt(2)), None)
    with pytest.raises(ValueError, match="no scores"):
        mean_and_interval({})


@pytest.fixture(scope="module")
def calibration():
    spec = importlib.util.spec_from_file_location("calibration", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["calibration"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def committed() -> dict:
    return json.loads(SCRIPT.with_suffix(".json").read_text(encoding="utf-8"))


def test_the_committed_rates_are_bounded_in_every_cell(committed):
    assert committed["alpha"] == 0.05 and committed["draws"] >= 10_000
    for record in committed["false_positives"]:
        rate, _, high = record["rates"]["comparison"]
        # Clopper and Pearson's upper end: so few false positives had a chance of 2.5 % if the true rate were `high`
        count = round(rate * committed["draws"])
        assert stats.binom.cdf(count, committed["draws"], high) == pytest.approx(0.025, rel=0.05)
        assert high <= committed["bound"] <= 0.07, record
    for record in committed["families"]:
        assert record["rate"][2] <= committed["bound"], record


def test_the_committed_cells_include_the_seeds_that_matter(committed):
    cells = {
        (one["size"], one["seed"] / one["video"], one["residual"] / one["video"])
        for one in committed["false_positives"]
        if one["scores"] == "normal" and one["video"]
    }
    assert cells >= set(product(("3 x 14", "3 x 24", "5 x 14"), (0.5, 1, 2), (0.5, 1, 2)))
    assert any(one["scores"].startswith("Beta") and one["size"] == "3 x 14" for one in committed["false_positives"])


def test_the_simulation_sees_what_is_wrong_with_tests_that_leave_out_a_source_of_chance(committed):
    for name in ("t over videos", "t over all scores"):
        assert max(one["rates"][name][0] for one in committed["false_positives"]) > 0.3
    assert max(one["rates"]["t over seeds"][0] for one in committed["false_positives"]) > 0.1


def test_the_committed_rates_are_of_this_code(calibration, committed):
    for record in (committed["false_positives"][3], committed["false_positives"][20]):
        cell = calibration.Cell(*(record[key] for key in calibration.Cell._fields))
        (size,) = (size for size in calibration.SIZES if str(size) == record["size"])
        again = calibration.false_positives(cell, size, committed["draws"])["rates"]
        for name, rate in record["rates"].items():
            assert again[name][0] == pytest.approx(rate[0], abs=0.001)


def test_made_scores_have_the_spread_and_the_null_that_their_cell_says(calibration):
    rng = np.random.default_rng(0)
    size = calibration.Size(6, 8)
    found = two_way(calibration.differences(calibration.Cell("normal", 2.0, 1.0, 0.5), size, 4000, rng))
    components = ((found.seeds - found.residual) / 8, (found.videos - found.residual) / 6, found.residual)
    assert [float(one.mean()) for one in components] == pytest.approx([4.0, 1.0, 0.25], rel=0.05)
    skewed = calibration.differences(calibration.Cell("Beta(3, 1), steady baseline", 2.0, 0.2, 0.5), size, 4000, rng)
    assert abs(skewed.mean()) < 4 * skewed.mean(axis=(1, 2)).std() / 4000**0.5
    assert np.abs(skewed).max() <= 100 and stats.skew(skewed.mean(axis=2).ravel()) < -0.3


def test_the_script_runs_and_prints_its_tables(calibration, tmp_path):
    out = tmp_path / "rates.json"
    command = [sys.executable, SCRIPT, "--quick", "--out", out]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["draws"] == calibration.FEW_DRAWS
    assert "\n".join(calibration.tables(found)) in printed
    # 500 draws of a true rate of 5 % go beyond 10 % once in a million times
    assert all(one["rates"]["comparison"][0] < 0.1 for one in found["false_positives"])


def test_the_page_has_the_committed_tables(calibration, committed):
    page = (PROJECT / "docs" / "statistics.md").read_text(encoding="utf-8")
    for table in "\n".join(calibration.tables(committed)).split("\n\n"):
        assert table in page
