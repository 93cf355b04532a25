"""The comparison of two variants: hand-computed cases, slow loops, limits, and error rates."""

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

# 2 + seed (-1, 0, 1) + video (-3, -1, 1, 3) + residual: 1, -1 | -1, 1 in a corner
BY_HAND = [[-1, -1, 2, 4], [-2, 2, 3, 5], [0, 2, 4, 6]]
SEEDS, VIDEOS, RESIDUAL = 4 * 2 / 2, 3 * 20 / 3, 4 / 6  # mean squares
T2, T3 = 4.302653, 3.182446  # from printed tables: Student's t, 97.5 %, 2 and 3 degrees of freedom


def scores(table) -> dict[tuple[int, str], float]:
    return {(s, f"v{v}"): float(score) for s, row in enumerate(table) for v, score in enumerate(row)}


def against_zero(table) -> Comparison:
    return compare(scores(table), scores(np.zeros_like(np.array(table, float))))


def random_table(seed: int = 0, num_seeds: int = 3, num_videos: int = 5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    effects = rng.normal(1.0, 2.0, (num_seeds, 1)) + rng.normal(0, 3, (1, num_videos))
    return effects + rng.normal(0, 1, (num_seeds, num_videos))


def test_a_table_computed_by_hand():
    found = against_zero(BY_HAND)
    total = SEEDS + VIDEOS - RESIDUAL
    critical = SEEDS / total * T2 + (1 - SEEDS / total) * T3
    half = critical * math.sqrt(total / 12)
    assert (found.mean, found.num_seeds, found.num_videos) == (2.0, 3, 4)
    assert half == pytest.approx(4.7055, abs=1e-4)
    assert found.interval == pytest.approx((2 - half, 2 + half), rel=1e-6)
    components = (SEEDS - RESIDUAL) / 4 + (VIDEOS - RESIDUAL) / 3 + RESIDUAL
    assert found.effect_size == pytest.approx(2 / math.sqrt(components))


def test_p_is_the_level_at_which_the_interval_ends_at_zero():
    found = against_zero(BY_HAND)
    assert half_width(two_way(np.array(BY_HAND, float)), found.p) == pytest.approx(2.0)
    # p is between those of Student's t with 2 and with 3 degrees of freedom, which have closed forms
    ratio = 2 / math.sqrt((SEEDS + VIDEOS - RESIDUAL) / 12)
    two = 1 - ratio / math.sqrt(2 + ratio**2)
    three = 1 - 2 / math.pi * (math.atan(ratio / math.sqrt(3)) + math.sqrt(3) * ratio / (3 + ratio**2))
    assert three < found.p < two


@pytest.mark.parametrize("seed", range(20))
def test_p_is_below_5_percent_if_the_interval_excludes_zero(seed):
    found = against_zero(random_table(seed) + seed)
    assert (found.p < 0.05) == (found.interval[0] > 0 or found.interval[1] < 0)


@pytest.mark.parametrize("seed", range(5))
def test_mean_squares_are_those_of_a_slow_loop(seed):
    table = random_table(seed, num_seeds=4)
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


def test_a_batch_of_tables_equals_single_tables():
    tables = np.stack([random_table(seed) for seed in range(6)]).reshape(2, 3, 3, 5)
    batch = half_width(two_way(tables))
    assert batch.shape == (2, 3)
    assert batch[1, 2] == pytest.approx(half_width(two_way(tables[1, 2])))


@pytest.mark.parametrize("values", [[1.0, 2.5, 3.0], [0.2, -0.1, 0.3], [4.0, 4.5, 4.2]])
def test_with_equal_videos_it_is_the_t_test_over_seeds(values):
    found = against_zero([[value] * 6 for value in values])
    expected = stats.ttest_1samp(values, 0.0)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval()))


def test_with_equal_seeds_it_is_the_t_test_over_videos():
    values = [1.0, 2.5, 3.0, -0.5, 2.0, 1.5, 0.1]
    found, expected = against_zero([values] * 3), stats.ttest_1samp(values, 0.0)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval()))


@pytest.mark.parametrize("seed", range(8))
def test_the_interval_is_not_narrower_than_that_of_either_t_test(seed):
    table = random_table(seed, num_videos=14)
    over_videos = stats.ttest_1samp(table.mean(axis=0), 0.0)
    low, high = against_zero(table).interval
    assert high - low >= np.ptp(over_videos.confidence_interval())
    standard_error = stats.sem(table.mean(axis=1))
    assert (high - low) / 2 >= standard_error * stats.t.isf(0.025, 13)


def test_exchanging_seeds_and_videos_changes_nothing():
    table = random_table(num_seeds=3, num_videos=7)
    one, other = against_zero(table), against_zero(table.T)
    assert (other.mean, other.p, *other.interval) == pytest.approx((one.mean, one.p, *one.interval))


def test_a_constant_added_to_both_variants_changes_nothing():
    one, other = random_table(0), random_table(1)
    plain, raised = compare(scores(one), scores(other)), compare(scores(one + 40), scores(other + 40))
    assert dataclasses.astuple(raised)[0::2] == pytest.approx(dataclasses.astuple(plain)[0::2])
    assert raised.interval == pytest.approx(plain.interval)


def test_swapping_the_variants_changes_the_sign_only():
    one, other = scores(random_table(0)), scores(random_table(1))
    forward, backward = compare(one, other), compare(other, one)
    assert (backward.mean, backward.effect_size, backward.p) == (-forward.mean, -forward.effect_size, forward.p)
    assert backward.interval == (-forward.interval[1], -forward.interval[0])


def test_names_and_order_of_seeds_and_videos_do_not_matter():
    one, other = random_table(0), random_table(1)
    order = np.ix_([2, 0, 1], [4, 1, 3, 0, 2])
    plain, permuted = compare(scores(one), scores(other)), compare(scores(one[order]), scores(other[order]))
    assert (permuted.mean, permuted.p, permuted.effect_size) == pytest.approx((plain.mean, plain.p, plain.effect_size))
    assert permuted.interval == pytest.approx(plain.interval)


def test_another_unit_scales_mean_and_interval_but_not_p():
    plain, percent = against_zero(random_table()), against_zero(100 * random_table())
    assert (percent.p, percent.effect_size) == pytest.approx((plain.p, plain.effect_size))
    assert (percent.mean, *percent.interval) == pytest.approx([100 * value for value in (plain.mean, *plain.interval)])


def test_seeds_and_videos_of_one_variant_only_are_ignored():
    one, other = scores(random_table(0)), scores(random_table(1))
    plain = compare(one, other)
    more = one | {(7, f"v{v}"): 99.0 for v in range(5)} | {(s, "other"): 99.0 for s in range(3)}
    assert compare(more, other) == plain


def test_the_error_of_a_missing_score_names_seed_and_video():
    one, other = scores(random_table(0)), scores(random_table(1))
    del other[1, "v3"]
    with pytest.raises(ValueError, match=r"^baseline: seed 1 has no score on video 'v3'"):
        compare(one, other)
    with pytest.raises(ValueError, match=r"^scores: seed 1 has no score on video 'v3'"):
        mean_and_interval(other)
    with pytest.raises(ValueError, match=r"^scores: seed 2 has a score of nan on video 'v0'"):
        compare(one | {(2, "v0"): math.nan}, scores(random_table(1)))


def test_equal_scores_have_no_difference():
    one = scores(random_table())
    assert compare(one, one) == Comparison(0.0, (0.0, 0.0), 1.0, None, 3, 5)


def test_a_constant_difference_has_p_0_and_no_effect_size():
    one = random_table()
    found = compare(scores(one + 2), scores(one))
    assert found == Comparison(2.0, (2.0, 2.0), 0.0, None, 3, 5)


def test_rounding_errors_are_not_a_difference():
    one = random_table()
    other = one * (1 + 1e-15)
    assert (other != one).any()
    found = compare(scores(one), scores(other))
    assert (found.mean, found.p) == (0.0, 1.0)


def test_a_mean_difference_of_0_has_p_1():
    found = against_zero([[1.0, -1.0], [-1.0, 1.0], [2.0, -2.0]])
    assert found.mean == 0 and found.p == 1


def test_a_very_large_ratio_has_a_small_p():
    table = np.full((3, 14), 1e9)
    table[0, 0] += 1e-6
    assert 0 <= against_zero(table).p < 1e-20


@pytest.mark.parametrize(("num_seeds", "num_videos"), [(1, 5), (3, 1), (1, 1)])
def test_one_seed_or_one_video_has_only_a_mean(num_seeds, num_videos):
    found = against_zero(np.full((num_seeds, num_videos), 2.0))
    assert found == Comparison(2.0, None, None, None, num_seeds, num_videos)


def test_two_seeds_have_an_interval_but_no_test():
    found = against_zero(random_table(num_seeds=2))
    assert found.p is None and found.interval[0] < found.mean < found.interval[1]


def test_without_a_common_seed_and_video_there_is_no_comparison():
    one = scores(random_table())
    assert compare(one, {}) == Comparison(None, None, None, None, 0, 0)
    found = compare(one, {(seed, "another"): 1.0 for seed, _ in one})
    assert (found.mean, found.p, found.num_videos) == (None, None, 0)


# Holm (1979), by hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, and the last one is at least as large as the one before
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
def test_a_significant_difference_is_compared_with_the_published_sign(mean, p, published, word):
    assert verdict(Comparison(mean, (mean - 1, mean + 1), 0.001, 1.0, 3, 14), p, published) == word


@pytest.mark.parametrize(
    ("num_seeds", "num_videos", "reason"), [(2, 14, "seeds"), (0, 0, "seeds"), (3, 1, "videos"), (1, 1, "seeds")]
)
def test_too_few_seeds_or_videos_give_no_verdict(num_seeds, num_videos, reason):
    found = verdict(against_zero(np.ones((num_seeds, num_videos))), None, 1.6)
    assert found == f"no verdict: fewer than {'three' if reason == 'seeds' else 'two'} {reason}"


def test_mean_and_interval_computed_by_hand():
    mean, sd, interval = mean_and_interval(scores(np.array(BY_HAND) + 50))
    assert (mean, sd) == (52.0, 1.0)
    assert interval == pytest.approx([50 + end for end in against_zero(BY_HAND).interval])


def test_mean_and_interval_of_one_seed_or_one_video():
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


def test_the_committed_error_rates_are_bounded_in_every_cell(committed):
    assert committed["alpha"] == 0.05 and committed["draws"] >= 10_000
    for record in committed["false_positives"]:
        rate, _, high = record["rates"]["comparison"]
        # Clopper-Pearson bound: with a true rate of `high`, so few false positives have a probability of 2.5 %
        count = round(rate * committed["draws"])
        assert stats.binom.cdf(count, committed["draws"], high) == pytest.approx(0.025, rel=0.05)
        assert high <= committed["bound"] <= 0.07, record
    for record in committed["families"]:
        assert record["rate"][2] <= committed["bound"], record


def test_the_committed_cells_include_the_sizes_of_the_studies(committed):
    cells = {
        (one["size"], one["seed"] / one["video"], one["residual"] / one["video"])
        for one in committed["false_positives"]
        if one["scores"] == "normal" and one["video"]
    }
    assert cells >= set(product(("3 x 14", "3 x 24", "5 x 14"), (0.5, 1, 2), (0.5, 1, 2)))
    assert any(one["scores"].startswith("Beta") and one["size"] == "3 x 14" for one in committed["false_positives"])


def test_tests_that_ignore_a_source_of_randomness_have_large_error_rates(committed):
    for name in ("t over videos", "t over all scores"):
        assert max(one["rates"][name][0] for one in committed["false_positives"]) > 0.3
    assert max(one["rates"]["t over seeds"][0] for one in committed["false_positives"]) > 0.1


def test_this_code_reproduces_the_committed_error_rates(calibration, committed):
    for record in (committed["false_positives"][3], committed["false_positives"][20]):
        cell = calibration.Cell(*(record[key] for key in calibration.Cell._fields))
        (size,) = (size for size in calibration.SIZES if str(size) == record["size"])
        again = calibration.false_positives(cell, size, committed["draws"])["rates"]
        for name, rate in record["rates"].items():
            assert again[name][0] == pytest.approx(rate[0], abs=0.001)


def test_simulated_scores_have_the_variances_and_the_mean_of_their_cell(calibration):
    rng = np.random.default_rng(0)
    size = calibration.Size(6, 8)
    found = two_way(calibration.differences(calibration.Cell("normal", 2.0, 1.0, 0.5), size, 4000, rng))
    components = ((found.seeds - found.residual) / 8, (found.videos - found.residual) / 6, found.residual)
    assert [float(component.mean()) for component in components] == pytest.approx([4.0, 1.0, 0.25], rel=0.05)
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
    # with a true rate of 5 %, 500 draws exceed 10 % with a probability of one in a million
    assert all(one["rates"]["comparison"][0] < 0.1 for one in found["false_positives"])


def test_docs_statistics_has_the_committed_tables(calibration, committed):
    page = (PROJECT / "docs" / "statistics.md").read_text(encoding="utf-8")
    for table in "\n".join(calibration.tables(committed)).split("\n\n"):
        assert table in page
