"""What several seeds say: means, paired differences, and a verdict on each beside a published one.

Scores of a row come as {key: score}; rows are compared over the keys that both have. The keys are seeds here, and
could be any units that are scored once for each row.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

FEWEST = 3  # pairs, below which there is no verdict
BAR = 2.0  # standard errors that a difference must exceed
AGREES, DIFFERS, UNDECIDED = "agrees", "differs", "undecided"
_TOO_FEW = "no verdict: fewer than three seeds"

Scores = Mapping[Hashable, float]


@dataclass(frozen=True)
class Difference:
    """Mean difference of two rows over pairs. mean: None without a pair; standard_error: None with fewer than two."""

    mean: float | None
    standard_error: float | None
    num_pairs: int


def mean_and_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1) of at least one value; a single one has no deviation."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def paired_difference(scores: Scores, baseline: Scores) -> Difference:
    """`scores` minus `baseline`, key by key; the standard error is that of the mean of these differences."""
    differences = [scores[key] - baseline[key] for key in scores if key in baseline]
    if not differences:
        return Difference(None, None, 0)
    mean, sd = mean_and_sd(differences)
    return Difference(mean, None if sd is None else sd / len(differences) ** 0.5, len(differences))


def verdict(difference: Difference, published: float) -> str:
    """Whether a difference agrees with the published one, which is not 0: its sign counts, its size does not."""
    if difference.num_pairs < FEWEST:
        return _TOO_FEW
    if abs(difference.mean) <= BAR * difference.standard_error:
        return UNDECIDED
    return AGREES if difference.mean * published > 0 else DIFFERS


def chance_of_a_verdict(num_pairs: int) -> float:
    """How likely a difference of normal noise alone exceeds the bar, in either direction; num_pairs: at least 2."""
    from scipy.stats import t

    return float(2 * t.sf(BAR, num_pairs - 1))


def below_grabcut_flow(scores: Scores, main: str, grabcut_flow: float) -> str:
    """Why a set of rows bears no verdict at all: its main row is not above an answer that needs no training; or ""."""
    score = mean_and_sd(list(scores.values()))[0]
    if score > grabcut_flow:
        return ""
    place, sign = ("below", "<") if score < grabcut_flow else ("level with", "=")
    return f"the {main} model is {place} GrabCut + flow ({score:.2f} {sign} {grabcut_flow:.2f})"


def order_verdict(rows: Mapping[str, Scores], published: Mapping[str, float], main: str, grabcut_flow: float) -> str:
    """Whether the rows that ran stand in the published order, in one line.

    There is no verdict unless the main row's mean is above GrabCut + flow's score: where the full model is below an
    answer that needs no training, the order of the rows says little about the method.
    """
    if main not in rows or len(rows) < 2:
        return f"no verdict: {f'{main} was' if main not in rows else 'the other rows were'} not run"
    if min(len(scores) for scores in rows.values()) < FEWEST:
        return _TOO_FEW
    if reason := below_grabcut_flow(rows[main], main, grabcut_flow):
        return f"no verdict: {reason}"
    pairs = {pair: _pair_verdict(rows, published, *pair) for pair in combinations(rows, 2)}
    turned = [pair for pair, word in pairs.items() if word == DIFFERS]
    num_agree = sum(word == AGREES for word in pairs.values())
    word = DIFFERS if turned else AGREES if num_agree == len(pairs) else UNDECIDED
    named = f" ({', '.join(' and '.join(pair) for pair in turned)})" if turned else ""
    return (
        f"{word}: of {len(pairs)} pairs of rows {num_agree} stand as published, {len(turned)} the other way round"
        f"{named}, {len(pairs) - num_agree - len(turned)} are undecided"
    )


def _pair_verdict(rows: Mapping[str, Scores], published: Mapping[str, float], first: str, second: str) -> str:
    return verdict(paired_difference(rows[first], rows[second]), published[first] - published[second])


def band(curves: Sequence[Sequence[float]]) -> list[tuple[float, float, float]]:
    """(mean, lowest, highest) over curves at each of their points, as far as the shortest goes."""
    return [(float(np.mean(values)), min(values), max(values)) for values in zip(*curves, strict=False)]
