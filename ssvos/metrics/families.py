"""Verdicts on the rows of a table: comparisons of one family, which share one error rate (Holm), and the order of rows.

The scores of a row are {(seed, video): score}, in percent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from ssvos.metrics.comparison import (
    AGREES,
    DIFFERS,
    FEWEST,
    UNDECIDED,
    Comparison,
    Scores,
    compare,
    holm,
    verdict,
)


@dataclass(frozen=True)
class FamilyVerdict:
    """The verdict on one comparison of a family.

    adjusted_p: the p-value after Holm's adjustment over the family; None if the comparison has none.
    verdict: in words.
    """

    comparison: Comparison
    adjusted_p: float | None
    verdict: str


def compare_family(pairs: Mapping[str, tuple[Scores, Scores, float]]) -> dict[str, FamilyVerdict]:
    """Compare pairs of rows as one family.

    pairs: name -> scores of a row, scores of the row it is compared with, and the published difference.
    """
    comparisons = {name: compare(scores, others) for name, (scores, others, _) in pairs.items()}
    adjusted = holm({name: comparison.p for name, comparison in comparisons.items() if comparison.p is not None})
    return {
        name: FamilyVerdict(comparison, adjusted.get(name), verdict(comparison, adjusted.get(name), pairs[name][2]))
        for name, comparison in comparisons.items()
    }


def compare_to_baseline(
    baseline: str, rows: Mapping[str, Scores], published: Mapping[str, float]
) -> dict[str, FamilyVerdict]:
    """Compare every row with the row `baseline` as one family. rows: the rows that ran, with the baseline."""
    return compare_family(
        {
            row: (scores, rows[baseline], published[row] - published[baseline])
            for row, scores in rows.items()
            if row != baseline
        }
    )


def below_baseline(score: float, main: str, baseline: str, baseline_score: float) -> str:
    """Why a set of rows gets no verdict: its main row is not above a baseline without training; else "".

    score: of the main row, whose name is `main`
    baseline: name of the baseline
    """
    if score > baseline_score:
        return ""
    relation, sign = ("below", "<") if score < baseline_score else ("level with", "=")
    return f"the {main} model is {relation} {baseline} ({score:.2f} {sign} {baseline_score:.2f})"


def order_verdict(rows: Mapping[str, Scores], published: Mapping[str, float], main: str, no_verdict: str) -> str:
    """Whether the rows that ran are in the published order, in one line. All pairs of rows are one family.

    no_verdict: the reason of `below_baseline`, or "". If the full model is not above a baseline without training,
        the order of the rows says little about the method.
    """
    if main not in rows or len(rows) < 2:
        return f"no verdict: {f'{main} was' if main not in rows else 'the other rows were'} not run"
    if min(len({seed for seed, _ in scores}) for scores in rows.values()) < FEWEST:
        return "no verdict: fewer than three seeds"
    if no_verdict:
        return f"no verdict: {no_verdict}"
    pairs = list(combinations(rows, 2))
    family = compare_family({f"{a} and {b}": (rows[a], rows[b], published[a] - published[b]) for a, b in pairs})
    reversed_pairs = [pair for pair, one in family.items() if one.verdict == DIFFERS]
    num_reversed, num_agree = len(reversed_pairs), sum(one.verdict == AGREES for one in family.values())
    word = DIFFERS if reversed_pairs else AGREES if num_agree == len(family) else UNDECIDED
    names = f" ({', '.join(reversed_pairs)})" if reversed_pairs else ""
    return (
        f"{word}: of {len(family)} pairs of rows {num_agree} stand as published, {num_reversed} the other way round"
        f"{names}, {len(family) - num_agree - num_reversed} are undecided"
    )
