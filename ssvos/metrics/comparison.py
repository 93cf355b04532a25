"""Whether two variants differ when each is trained with several seeds and all trainings are judged on the same videos.

A variant's scores are a table of seeds x videos. A seed's training is judged on every video, and a video is hard for
every training, so the cells are not independent, and a claim about new trainings on new videos has two sources of
chance. The differences of two variants are taken as

    difference[s, v] = mean + seed[s] + video[v] + residual[s, v]        all but the mean random

and the mean's squared standard error is that of the quasi-F ratio, (MS_seed + MS_video - MS_residual) / (S V). Its
critical value is Cochran and Cox's: the weighted mean of Student's t with S - 1 and with V - 1 degrees of freedom.
docs/statistics.md says why, and studies/calibration.py how often the test is wrong.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import stdtrit

FEWEST = 3  # seeds, below which there is neither test nor verdict
ALPHA = 0.05  # of tests and intervals
AGREES, DIFFERS, UNDECIDED = "agrees", "differs", "undecided"
_DIGITS = 9  # of a score: what lies below is rounding, and rounding must not look like a steady difference
_SMALLEST_P = 1e-50  # smaller ones are 0: far below it SciPy's inverse of Student's t fails for some degrees of freedom

Scores = Mapping[tuple[int, str], float]  # (seed, video) -> score, percent
Interval = tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """A variant minus its baseline, over the seeds and the videos that both have.

    mean:        of the differences; None without a common seed and video
    interval:    95 %, of the mean over new seeds and new videos; None with fewer than two seeds or videos
    p:           two-sided, of no difference; None with fewer than FEWEST seeds or two videos
    effect_size: the mean in units of the standard deviation of one difference: of one new training of each variant with
                 the same seed, on one new video; None where the interval is, or where all differences are equal
    """

    mean: float | None
    interval: Interval | None
    p: float | None
    effect_size: float | None
    num_seeds: int
    num_videos: int


@dataclass(frozen=True)
class TwoWay:
    """Mean and mean squares of tables (..., S, V) with one value a cell, each (...)."""

    num_seeds: int
    num_videos: int
    mean: NDArray
    seeds: NDArray
    videos: NDArray
    residual: NDArray


def compare(scores: Scores, baseline: Scores) -> Comparison:
    """The mean difference of two variants and its test.

    Seeds are paired by number. The test is right whether equal seeds go together (they draw the same initial weights
    and clips) or are as good as independent.

    Raises ValueError where a common seed lacks a common video.
    """
    seeds = sorted({seed for seed, _ in scores} & {seed for seed, _ in baseline})
    videos = sorted({video for _, video in scores} & {video for _, video in baseline})
    if not seeds or not videos:
        return Comparison(None, None, None, None, len(seeds), len(videos))
    table = _table(scores, seeds, videos, "scores") - _table(baseline, seeds, videos, "baseline")
    table = np.round(table, _DIGITS)
    interval = p = effect_size = None
    if min(table.shape) > 1:
        found = two_way(table)
        interval, p, effect_size = _interval(found), _p_value(found), _effect_size(found)
    if len(seeds) < FEWEST:
        p = None
    return Comparison(float(table.mean()), interval, p, effect_size, *table.shape)


def mean_and_interval(scores: Scores) -> tuple[float, float | None, Interval | None]:
    """A variant's own score: mean, standard deviation over seeds of the mean over videos, 95 % interval of the mean.

    The interval is for new seeds and new videos. With one seed there is neither it nor the deviation, with one video no
    interval. Raises ValueError without a score, and where a seed lacks a video.
    """
    if not scores:
        raise ValueError("no scores to average: give those of one seed and one video at least")
    table = _table(scores, sorted({seed for seed, _ in scores}), sorted({video for _, video in scores}), "scores")
    sd = float(table.mean(axis=1).std(ddof=1)) if len(table) > 1 else None
    return float(table.mean()), sd, _interval(two_way(np.round(table, _DIGITS))) if min(table.shape) > 1 else None


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values adjusted for the size of their family after Holm (1979): all at or below 5 % are claimed together with a
    chance of 5 % at most that one of them is wrong."""
    adjusted, highest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


def verdict(comparison: Comparison, adjusted_p: float | None, published: float) -> str:
    """Whether a difference agrees with the published one, which is not 0: its sign counts, its size does not.

    adjusted_p: of the comparison, after `holm` over all comparisons that its table makes
    """
    if comparison.num_seeds < FEWEST:
        return "no verdict: fewer than three seeds"
    if comparison.num_videos < 2:
        return "no verdict: fewer than two videos"
    assert adjusted_p is not None
    if adjusted_p > ALPHA:
        return UNDECIDED
    return AGREES if comparison.mean * published > 0 else DIFFERS


def two_way(tables: NDArray) -> TwoWay:
    """tables: (..., S, V) with at least two seeds and two videos"""
    num_seeds, num_videos = tables.shape[-2:]
    mean = tables.mean(axis=(-2, -1))
    seeds = tables.mean(axis=-1) - mean[..., None]
    videos = tables.mean(axis=-2) - mean[..., None]
    rest = tables - mean[..., None, None] - seeds[..., :, None] - videos[..., None, :]
    return TwoWay(
        num_seeds,
        num_videos,
        mean,
        seeds=num_videos * (seeds**2).sum(axis=-1) / (num_seeds - 1),
        videos=num_seeds * (videos**2).sum(axis=-1) / (num_videos - 1),
        residual=(rest**2).sum(axis=(-2, -1)) / ((num_seeds - 1) * (num_videos - 1)),
    )


def half_width(found: TwoWay, alpha: float = ALPHA) -> NDArray:
    """How far the interval of level 1 - alpha reaches from the mean, (...)."""
    standard_error, share = _error(found)
    return standard_error * _critical_value(found, share, alpha)


def _error(found: TwoWay) -> tuple[NDArray, NDArray]:
    """Standard error of the mean, and the share in its square of the factor that has fewer units, both (...)."""
    few, many = found.seeds, found.videos
    if found.num_videos < found.num_seeds:
        few, many = many, few
    # both mean squares hold the residual, which counts once; by chance it may exceed one of them, and then the other
    # alone stands for all
    both = np.maximum.reduce([few + many - found.residual, few, many])
    share = np.divide(few, both, out=np.zeros_like(both), where=both > 0)
    return np.sqrt(both / (found.num_seeds * found.num_videos)), share


def _critical_value(found: TwoWay, share: NDArray, alpha: float) -> NDArray:
    few, many = sorted((found.num_seeds, found.num_videos))
    return -share * stdtrit(few - 1, alpha / 2) - (1 - share) * stdtrit(many - 1, alpha / 2)


def _interval(found: TwoWay) -> Interval:
    reach = half_width(found)
    return float(found.mean - reach), float(found.mean + reach)


def _p_value(found: TwoWay) -> float:
    """The level at which the interval's end is 0: the smallest that would reject."""
    standard_error, share = _error(found)
    if standard_error == 0 or found.mean == 0:
        return float(found.mean == 0)
    ratio = abs(found.mean) / standard_error

    def excess(log_p: float) -> float:
        return _critical_value(found, share, np.exp(log_p)) - ratio

    lowest = np.log(_SMALLEST_P)
    return float(np.exp(brentq(excess, lowest, 0.0))) if excess(lowest) > 0 else 0.0


def _effect_size(found: TwoWay) -> float | None:
    seeds = max(0.0, float(found.seeds - found.residual)) / found.num_videos
    videos = max(0.0, float(found.videos - found.residual)) / found.num_seeds
    variance = seeds + videos + float(found.residual)
    return float(found.mean) / variance**0.5 if variance else None


def _table(scores: Scores, seeds: list[int], videos: list[str], name: str) -> NDArray:
    """(S, V) of the scores; `name` says in an error whose they are."""
    for cell in product(seeds, videos):
        if not math.isfinite(scores.get(cell, math.nan)):
            found = f"a score of {scores[cell]}" if cell in scores else "no score"
            raise ValueError(f"{name}: seed {cell[0]} has {found} on video {cell[1]!r}: score it, or leave one out")
    return np.array([[scores[seed, video] for video in videos] for seed in seeds])
