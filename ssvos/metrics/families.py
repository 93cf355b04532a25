"""A table's rows beside the published ones: comparisons that are judged together, and the order of all rows.

Scores of a row come as {(seed, video): score}, percent. Comparisons of one family share out one error rate (Holm).
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
class Judged:
    """A comparison, its p-value after Holm within its family (None where it has none), and the verdict in words."""

    comparison: Comparison
    adjusted_p: float | None
    verdict: str


def judge(pairs: Mapping[str, tuple[Scores, Scores, float]]) -> dict[str, Judged]:
    """A family. pairs: by name, a row's scores, those of what it is compared with, and the published difference."""
    found = {name: compare(scores, others) for name, (scores, others, _) in pairs.items()}
    adjusted = holm({name: one.p for name, one in found.items() if one.p is not None})
    return {
        name: Judged(one, adjusted.get(name), verdict(one, adjusted.get(name), pairs[name][2]))
        for name, one in found.items()
    }


def against(baseline: str, rows: Mapping[str, Scores], published: Mapping[str, float]) -> dict[str, Judged]:
    """The family of all rows that ran against one of them, which must be among them."""
    return judge(
        {
            row: (scores, rows[baseline], published[row] - published[baseline])
            for row, scores in rows.items()
            if row != baseline
        }
    )


def below_grabcut_flow(score: float, main: str, grabcut_flow: float) -> str:
    """Why a set of rows bears no verdict at all: its main row is not above an answer that needs no training; or ""."""
    if score > grabcut_flow:
        return ""
    place, sign = ("below", "<") if score < grabcut_flow else ("level with", "=")
    return f"the {main} model is {place} GrabCut + flow ({score:.2f} {sign} {grabcut_flow:.2f})"


def order_verdict(rows: Mapping[str, Scores], published: Mapping[str, float], main: str, no_verdict: str) -> str:
    """Whether the rows that ran stand in the published order, in one line; every two rows are a family of its own.

    no_verdict: what `below_grabcut_flow` says: where the full model is below an answer that needs no training, the
    order of the rows says little about the method.
    """
    if main not in rows or len(rows) < 2:
        return f"no verdict: {f'{main} was' if main not in rows else 'the other rows were'} not run"
    if min(len({seed for seed, _ in scores}) for scores in rows.values()) < FEWEST:
        return "no verdict: fewer than three seeds"
    if no_verdict:
        return f"no verdict: {no_verdict}"
    pairs = list(combinations(rows, 2))
    judged = judge({f"{a} and {b}": (rows[a], rows[b], published[a] - published[b]) for a, b in pairs})
    turned = [pair for pair, one in judged.items() if one.verdict == DIFFERS]
    num_agree = sum(one.verdict == AGREES for one in judged.values())
    word = DIFFERS if turned else AGREES if num_agree == len(judged) else UNDECIDED
    named = f" ({', '.join(turned)})" if turned else ""
    return (
        f"{word}: of {len(judged)} pairs of rows {num_agree} stand as published, {len(turned)} the other way round"
        f"{named}, {len(judged) - num_agree - len(turned)} are undecided"
    )
