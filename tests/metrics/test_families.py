"""Verdicts of a family: Holm's adjustment, rows below GrabCut + flow, and the order of rows."""

import pytest
from scipy.stats import t as student

from ssvos.metrics.families import below_baseline, compare_to_baseline, order_verdict

VIDEOS = {"bus": -3.0, "cow": 3.0}


def runs(*by_seed: float) -> dict[tuple[int, str], float]:
    """Scores of a row on two videos, with this mean by seed."""
    return {(seed, video): score + more for seed, score in enumerate(by_seed) for video, more in VIDEOS.items()}


PUBLISHED = {"pce": 46.2, "pce_sa": 47.8, "full": 51.1}
LOW, MIDDLE, HIGH = runs(30.0, 31.0, 32.0), runs(40.1, 41.0, 42.0), runs(50.0, 51.1, 52.0)


def test_rows_of_a_family_share_one_error_rate():
    """A mean of 2.8 with a deviation of 1 has t = 2.8 sqrt(3) and p = 0.04; 0.08 in a family of two."""
    p = 2 * student.sf(2.8 * 3**0.5, 2)
    above = runs(31.8, 33.8, 35.8)
    alone = compare_to_baseline("pce", {"pce": LOW, "full": above}, PUBLISHED)
    assert alone["full"].adjusted_p == pytest.approx(p) and 0.035 < p < 0.05
    assert alone["full"].verdict == "agrees"
    both = compare_to_baseline("pce", {"pce": LOW, "full": above, "pce_sa": above}, PUBLISHED)
    assert [both[row].adjusted_p for row in ("full", "pce_sa")] == pytest.approx([2 * p, 2 * p])
    assert {one.verdict for one in both.values()} == {"undecided"}


def test_a_row_without_a_test_does_not_count_in_the_family():
    found = compare_to_baseline(
        "pce", {"pce": LOW, "full": runs(31.8, 33.8, 35.8), "pce_sa": runs(40.0, 41.0)}, PUBLISHED
    )
    assert found["full"].verdict == "agrees" and found["pce_sa"].adjusted_p is None
    assert found["pce_sa"].verdict == "no verdict: fewer than three seeds"


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (45.0, "the full model is below GrabCut + flow (45.00 < 45.50)"),
        (45.5, "the full model is level with GrabCut + flow (45.50 = 45.50)"),
        (45.6, ""),
    ],
)
def test_rows_get_no_verdict_if_the_main_row_is_not_above_a_baseline_without_training(score, words):
    assert below_baseline(score, "full", "GrabCut + flow", 45.5) == words


ORDERS = [
    ({"pce": LOW, "pce_sa": MIDDLE, "full": HIGH}, "agrees: of 3 pairs of rows 3 stand as published, 0 the other way"),
    ({"pce": MIDDLE, "pce_sa": LOW, "full": HIGH}, "differs: of 3 pairs of rows 2 stand as published, 1 the other way"),
    ({"pce": MIDDLE, "pce_sa": LOW, "full": HIGH}, "the other way round (pce and pce_sa), 0 are undecided"),
    ({"pce": LOW, "pce_sa": runs(31.0, 31.0, 31.0), "full": HIGH}, "undecided: of 3 pairs of rows 2 stand as"),
    ({"pce": LOW, "full": HIGH}, "agrees: of 1 pairs of rows 1"),
    ({"pce": LOW, "pce_sa": MIDDLE}, "no verdict: full was not run"),
    ({"full": HIGH}, "no verdict: the other rows were not run"),
    ({"pce": runs(1.0, 2.0), "full": HIGH}, "no verdict: fewer than three seeds"),
]


@pytest.mark.parametrize(("rows", "words"), ORDERS)
def test_the_order_compares_all_pairs_of_rows(rows, words):
    assert words in order_verdict(rows, PUBLISHED, "full", "")


def test_the_order_gets_no_verdict_if_the_rows_get_none():
    assert order_verdict({"pce": LOW, "full": HIGH}, PUBLISHED, "full", "too low") == "no verdict: too low"


def test_all_pairs_of_rows_are_one_family():
    """p = 0.04 is significant for one pair, but not for one of three."""
    above = runs(31.8, 33.8, 35.8)
    assert order_verdict({"pce": LOW, "full": above}, PUBLISHED, "full", "").startswith("agrees")
    found = order_verdict({"pce": LOW, "pce_sa": above, "full": above}, PUBLISHED, "full", "")
    assert found.startswith("undecided: of 3 pairs of rows 0 stand as published")
