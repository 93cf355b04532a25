"""Test whether two variants differ, each trained with several seeds and evaluated on the same videos.

The scores of a variant are a table of seeds x videos. Every training is evaluated on every video, and a hard video is
hard for every training, so the cells are not independent. A claim about new trainings on new videos has two sources of
randomness. The differences of two variants are modelled as

    difference[s, v] = mean + seed[s] + video[v] + residual[s, v]        all but the mean random

The squared standard error of the mean is that of the quasi-F ratio, (MS_seed + MS_video - MS_residual) / (S V). Its
critical value is Cochran and Cox's: the weighted mean of Student's t with S - 1 and with V - 1 degrees of freedom.
docs/statistics.md gives the reasons, and studies/calibration.py measures the error rates of the test.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import stdtrit

FEWEST = 3  # seeds that a test and a verdict need
ALPHA = 0.05  # of tests and intervals
AGREES, DIFFERS, UNDECIDED = "agrees", "differs", "undecided"
_DIGITS = 9  # of a score; smaller differences are rounding errors, which would look like consistent differences
_SMALLEST_P = 1e-50  # smaller ones become 0: SciPy's inverse of Student's t fails for some far smaller values

Scores = Mapping[tuple[int, str], float]  # (seed, video) -> score, percent
Interval = tuple[float, float]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """A variant minus its baseline, over the seeds and the videos that both have.

    mean: mean difference; None without a common seed and video.
    interval: 95 % confidence interval of the mean over new seeds and new videos; None with fewer than two seeds or
        videos.
    p: two-sided p-value of no difference; None with fewer than FEWEST seeds or two videos.
    effect_size: the mean divided by the standard deviation of one difference, that of one new training of each variant
        with the same seed on one new video; None without an interval, or if all differences are equal.
    num_seeds, num_videos: numbers of common seeds and videos.
    """

    mean: float | None
    interval: Interval | None
    p: float | None
    effect_size: float | None
    num_seeds: int
    num_videos: int


@dataclass(frozen=True)
class TwoWay:
    """Two-way analysis of variance of tables (..., S, V) with one value per cell.

    mean: (...).
    seeds, videos, residual: mean squares, each (...).
    """

    num_seeds: int
    num_videos: int
    mean: Array
    seeds: Array
    videos: Array
    residual: Array


def compare(scores: Scores, baseline: Scores) -> Comparison:
    """The mean difference of two variants and its test.

    Seeds are paired by number. The test is valid whether trainings with the same seed are correlated (they draw the
    same initial weights and clips) or independent.

    Raises ValueError if a common seed lacks the score of a common video.
    """
    seeds = sorted({seed for seed, _ in scores} & {seed for seed, _ in baseline})
    videos = sorted({video for _, video in scores} & {video for _, video in baseline})
    if not seeds or not videos:
        return Comparison(None, None, None, None, len(seeds), len(videos))
    table = _table(scores, seeds, videos, "scores") - _table(baseline, seeds, videos, "baseline")
    table = np.round(table, _DIGITS)
    interval = p = effect_size = None
    if min(table.shape) > 1:
        anova = two_way(table)
        interval, p, effect_size = _interval(anova), _p_value(anova), _effect_size(anova)
    if len(seeds) < FEWEST:
        p = None
    return Comparison(float(table.mean()), interval, p, effect_size, len(seeds), len(videos))


def mean_and_interval(scores: Scores) -> tuple[float, float | None, Interval | None]:
    """The score of one variant: mean, standard deviation and 95 % confidence interval.

    The deviation is that of the seeds' means over the videos; None with one seed. The interval is for new seeds and new
    videos; None with one seed or one video.

    Raises ValueError without scores, and if a seed lacks the score of a video.
    """
    if not scores:
        raise ValueError("no scores to average; give those of at least one seed and one video")
    table = _table(scores, sorted({seed for seed, _ in scores}), sorted({video for _, video in scores}), "scores")
    sd = float(table.mean(axis=1).std(ddof=1)) if len(table) > 1 else None
    return float(table.mean()), sd, _interval(two_way(np.round(table, _DIGITS))) if min(table.shape) > 1 else None


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values adjusted for multiple comparisons (Holm 1979): the probability that any of the differences with an
    adjusted p-value of at most 5 % is false is at most 5 %."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


def verdict(comparison: Comparison, adjusted_p: float | None, published: float) -> str:
    """Whether a difference agrees in sign with the published one; the size does not matter.

    adjusted_p: of the comparison, after `holm` over all comparisons of its table.
    published: the published difference, not 0.
    """
    if comparison.num_seeds < FEWEST:
        return "no verdict: fewer than three seeds"
    if comparison.num_videos < 2:
        return "no verdict: fewer than two videos"
    assert adjusted_p is not None and comparison.mean is not None
    if adjusted_p > ALPHA:
        return UNDECIDED
    return AGREES if comparison.mean * published > 0 else DIFFERS


def two_way(tables: Array) -> TwoWay:
    """Two-way analysis of variance. tables: (..., S, V) with at least two seeds and two videos."""
    num_seeds, num_videos = tables.shape[-2:]
    mean = tables.mean(axis=(-2, -1))
    seeds = tables.mean(axis=-1) - mean[..., None]
    videos = tables.mean(axis=-2) - mean[..., None]
    residual = tables - mean[..., None, None] - seeds[..., :, None] - videos[..., None, :]
    return TwoWay(
        num_seeds,
        num_videos,
        mean,
        seeds=num_videos * (seeds**2).sum(axis=-1) / (num_seeds - 1),
        videos=num_seeds * (videos**2).sum(axis=-1) / (num_videos - 1),
        residual=(residual**2).sum(axis=(-2, -1)) / ((num_seeds - 1) * (num_videos - 1)),
    )


def half_width(anova: TwoWay, alpha: float = ALPHA) -> Array:
    """Half the width of the confidence interval of level 1 - alpha, (...)."""
    standard_error, share = _standard_error(anova)
    return standard_error * _critical_value(anova, share, alpha)


def _standard_error(anova: TwoWay) -> tuple[Array, Array]:
    """Standard error of the mean, and the share of the factor with fewer units in its square, both (...)."""
    few, many = anova.seeds, anova.videos
    if anova.num_videos < anova.num_seeds:
        few, many = many, few
    # both mean squares contain the residual, which counts once; if by chance it exceeds one of them, the other one is
    # the total
    total: Array = np.maximum.reduce([few + many - anova.residual, few, many])
    share = np.divide(few, total, out=np.zeros_like(total), where=total > 0)
    return np.sqrt(total / (anova.num_seeds * anova.num_videos)), share


def _critical_value(anova: TwoWay, share: Array, alpha: float) -> Array:
    few, many = sorted((anova.num_seeds, anova.num_videos))
    value: Array = -share * stdtrit(few - 1, alpha / 2) - (1 - share) * stdtrit(many - 1, alpha / 2)
    return value


def _interval(anova: TwoWay) -> Interval:
    half = half_width(anova)
    return float(anova.mean - half), float(anova.mean + half)


def _p_value(anova: TwoWay) -> float:
    """The level at which the interval ends at 0: the smallest that rejects no difference."""
    standard_error, share = _standard_error(anova)
    if standard_error == 0 or anova.mean == 0:
        return float(anova.mean == 0)
    ratio = abs(anova.mean) / standard_error

    def excess(log_p: float) -> float:
        return float(_critical_value(anova, share, np.exp(log_p)) - ratio)

    lowest = np.log(_SMALLEST_P)
    return float(np.exp(brentq(excess, lowest, 0.0))) if excess(lowest) > 0 else 0.0


def _effect_size(anova: TwoWay) -> float | None:
    seeds = max(0.0, float(anova.seeds - anova.residual)) / anova.num_videos
    videos = max(0.0, float(anova.videos - anova.residual)) / anova.num_seeds
    variance = seeds + videos + float(anova.residual)
    return float(anova.mean) / variance**0.5 if variance else None


def _table(scores: Scores, seeds: list[int], videos: list[str], name: str) -> Array:
    """The scores as a table, (S, V). name: whose scores they are, for errors."""
    for cell in product(seeds, videos):
        if not math.isfinite(scores.get(cell, math.nan)):
            fault = f"a score of {scores[cell]}" if cell in scores else "no score"
            raise ValueError(
                f"{name}: seed {cell[0]} has {fault} on video {cell[1]!r}; score it, or remove one of them"
            )
    return np.array([[scores[seed, video] for video in videos] for seed in seeds])
