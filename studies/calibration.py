"""False-positive rate and power of the comparison of two variants. Writes studies/calibration.json.

    python studies/calibration.py            all cells, under a minute
    python studies/calibration.py --quick    few draws, to check that it runs

It draws differences of two variants' scores on seeds x videos with mean 0, and counts how often a 5 % test rejects that
mean: the test of `ssvos.metrics.comparison`, an alternative with Satterthwaite's degrees of freedom, and three t-tests
that ignore a source of variance. Then it draws differences with means of 1, 2 and 4 points. docs/statistics.md contains
the printed tables.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit
from scipy.stats import binomtest

from ssvos.files import write_text
from ssvos.metrics.comparison import ALPHA, TwoWay, half_width, two_way

OUT = Path(__file__).with_suffix(".json")
DRAWS, FEW_DRAWS, BATCH = 20_000, 500, 2_000
BOUND = 0.07  # for the upper end of the 95 % interval of a false-positive rate
FAMILY = 7  # number of rows compared with one baseline


class Size(NamedTuple):
    seeds: int
    videos: int

    def __str__(self) -> str:
        return f"{self.seeds} x {self.videos}"


class Cell(NamedTuple):
    """A simulated setting.

    scores: a key of KINDS
    seed, video, residual: standard deviations of the effects, in points for normal scores
    """

    scores: str
    seed: float
    video: float
    residual: float


class Kind(NamedTuple):
    """Scores between 0 and 100 with distribution Beta(power, 1), whose density rises towards 100.

    They are transformed from the cell's normal effects.

    steady: the baseline does not depend on the seed, so the skew does not cancel in the difference
    """

    power: float
    steady: bool


KINDS = {
    "normal": None,
    "Beta(3, 1)": Kind(3.0, steady=False),
    "Beta(3, 1), steady baseline": Kind(3.0, steady=True),
    "Beta(8, 1), steady baseline": Kind(8.0, steady=True),  # half of the scores above 91, a few failures
}
NORMAL, SKEWED, STEADY, EXTREME = KINDS
RATIOS = 0.5, 1.0, 2.0
SIZES = Size(3, 14), Size(3, 24), Size(5, 14)
CELLS = (
    *(Cell(NORMAL, seed, 1.0, residual) for seed, residual in product(RATIOS, RATIOS)),
    *(Cell(NORMAL, seed, video, 1.0) for video, seed in product((0.0, 0.2), (0.1, 0.25, 0.5, 1.0))),
    *(Cell(kind, seed, 1.0, 1.0) for kind, seed in product((SKEWED, STEADY), RATIOS)),
    *(Cell(kind, 1.0, 0.2, 1.0) for kind in (SKEWED, STEADY)),
)
# nearly all variance comes from the seeds of one variant, and these are skewed: three seeds cannot show the skew
EXTREME_CELLS = Cell(STEADY, 2.0, 0.2, 0.5), Cell(EXTREME, 2.0, 0.2, 0.5)
FAMILY_CELLS = tuple(Cell(NORMAL, seed, 1.0, 1.0) for seed in RATIOS)
POWER_SIZES = (*SIZES, Size(5, 30), Size(10, 30))
POWER_CELLS = Cell(NORMAL, 0.5, 1.0, 2.0), Cell(NORMAL, 1.0, 2.0, 4.0), Cell(NORMAL, 1.5, 2.0, 9.0)
POINTS = 1.0, 2.0, 4.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{FEW_DRAWS} draws a cell instead of {DRAWS}")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    results = calibrate(FEW_DRAWS if args.quick else DRAWS)
    write_text(args.out, _as_json(results))
    print("\n".join((*tables(results), str(args.out))))


def calibrate(draws: int) -> dict:
    """Run all simulations -> the content of calibration.json."""
    return {
        "alpha": ALPHA,
        "bound": BOUND,
        "draws": draws,
        "family": FAMILY,
        "false_positives": [false_positives(cell, size, draws) for size, cell in product(SIZES, CELLS)],
        "extreme": [false_positives(cell, size, draws) for size, cell in product(SIZES, EXTREME_CELLS)],
        "families": [wrong_families(cell, size, draws) for size, cell in product(SIZES, FAMILY_CELLS)],
        "power": [detections(cell, size, draws) for cell, size in product(POWER_CELLS, POWER_SIZES)],
    }


def false_positives(cell: Cell, size: Size, draws: int) -> dict:
    """The fraction of draws with mean 0 in which each test rejects."""
    counts = dict.fromkeys(TESTS, 0)
    for rng, num in _batches(cell, size, draws):
        result = two_way(differences(cell, size, num, rng))
        for name, half_width_of in TESTS.items():
            counts[name] += int((np.abs(result.mean) > half_width_of(result)).sum())
    return _named(cell, size) | {"rates": {name: _rate(count, draws) for name, count in counts.items()}}


def wrong_families(cell: Cell, size: Size, draws: int) -> dict:
    """The fraction of tables of FAMILY rows without any difference in which Holm's correction rejects for a row.

    Holm's first step rejects if the smallest p is below ALPHA / FAMILY.
    """
    count = 0
    own = Cell(NORMAL, *(np.array(cell[1:]) / 2**0.5))  # of each row and the baseline: a difference sums two variances
    for rng, num in _batches(cell, size, draws):
        baseline = effects(own, size, num, rng)
        wrong = np.zeros(num, bool)
        for _ in range(FAMILY):
            result = two_way(effects(own, size, num, rng) - baseline)
            wrong |= np.abs(result.mean) > half_width(result, ALPHA / FAMILY)
        count += int(wrong.sum())
    return _named(cell, size) | {"rate": _rate(count, draws)}


def detections(cell: Cell, size: Size, draws: int) -> dict:
    """By true difference in points, the fraction of draws in which the test finds it, alone and in a family."""
    counts = {points: [0, 0] for points in POINTS}
    for rng, num in _batches(cell, size, draws):
        result = two_way(effects(cell, size, num, rng))
        for points, (k, alpha) in product(POINTS, enumerate((ALPHA, ALPHA / FAMILY))):
            # only the right sign counts
            counts[points][k] += int((result.mean + points > half_width(result, alpha)).sum())
    shares = {f"{points:g}": [count / draws for count in both] for points, both in counts.items()}
    return _named(cell, size) | {"points": shares}


def differences(cell: Cell, size: Size, num: int, rng: Generator) -> NDArray:
    """Differences of two variants with equal means, in points, (num, S, V)."""
    kind = KINDS[cell.scores]
    if kind is None:
        return effects(cell, size, num, rng)
    difficulty = rng.standard_normal((num, 1, size.videos))  # of a video, for both variants
    baseline = cell._replace(seed=0.0, residual=0.0) if kind.steady else cell
    scores, others = (_bounded(one, difficulty + effects(one, size, num, rng), kind) for one in (cell, baseline))
    return scores - others


def effects(cell: Cell, size: Size, num: int, rng: Generator) -> NDArray:
    """Sums of the effects of seeds, videos and residual, (num, S, V)."""
    seeds = rng.standard_normal((num, size.seeds, 1))
    videos = rng.standard_normal((num, 1, size.videos))
    return cell.seed * seeds + cell.video * videos + cell.residual * rng.standard_normal((num, *size))


def _bounded(cell: Cell, normal: NDArray, kind: Kind) -> NDArray:
    """Normal effects transformed to scores with distribution Beta(power, 1), so all variants have the same mean."""
    total = (1 + sum(sd**2 for sd in cell[1:])) ** 0.5
    return 100 * ndtr(normal / total) ** (1 / kind.power)


def _satterthwaite(table: TwoWay) -> NDArray:
    """Half-width of the common test of the quasi-F ratio: same standard error, Satterthwaite's degrees of freedom."""
    seeds, videos, residual = table.seeds, table.videos, table.residual
    total = np.maximum.reduce([seeds + videos - residual, seeds, videos])
    seed_freedom, video_freedom = table.num_seeds - 1, table.num_videos - 1
    freedom = total**2 / (
        seeds**2 / seed_freedom + videos**2 / video_freedom + residual**2 / (seed_freedom * video_freedom)
    )
    return _t_half_width(table, total, np.maximum(freedom, 1))


def _all_cells(table: TwoWay) -> NDArray:
    """Half-width of a t-test that treats all scores as independent."""
    seed_freedom, video_freedom = table.num_seeds - 1, table.num_videos - 1
    freedom = table.num_seeds * table.num_videos - 1
    squares = seed_freedom * table.seeds + video_freedom * table.videos + seed_freedom * video_freedom * table.residual
    return _t_half_width(table, squares / freedom, freedom)


def _t_half_width(table: TwoWay, mean_square: NDArray, freedom: NDArray | int) -> NDArray:
    return -stdtrit(freedom, ALPHA / 2) * np.sqrt(mean_square / (table.num_seeds * table.num_videos))


# each test rejects if the mean exceeds its half-width
TESTS: dict[str, Callable[[TwoWay], NDArray]] = {
    "comparison": half_width,
    "Satterthwaite": _satterthwaite,
    "t over seeds": lambda table: _t_half_width(table, table.seeds, table.num_seeds - 1),
    "t over videos": lambda table: _t_half_width(table, table.videos, table.num_videos - 1),
    "t over all scores": _all_cells,
}


def _batches(cell: Cell, size: Size, draws: int) -> Iterator[tuple[Generator, int]]:
    """(generator, number of draws) of each batch. A cell's draws depend only on the cell and the size."""
    key = (list(KINDS).index(cell.scores), *size, *(round(1000 * sd) for sd in cell[1:]))
    rng = np.random.default_rng(key)
    for start in range(0, draws, BATCH):
        yield rng, min(BATCH, draws - start)


def _named(cell: Cell, size: Size) -> dict:
    return {"size": str(size), **cell._asdict()}


def _rate(count: int, draws: int) -> list[float]:
    """The fraction and the ends of its 95 % interval (Clopper and Pearson)."""
    interval = binomtest(count, draws).proportion_ci(0.95, method="exact")
    return [count / draws, round(float(interval.low), 5), round(float(interval.high), 5)]


def _as_json(results: dict) -> str:
    """JSON with one line for each cell."""
    parts = []
    for key, value in results.items():
        lines = ",\n  ".join(map(json.dumps, value)) if isinstance(value, list) else ""
        parts.append(f'"{key}": ' + (f"[\n  {lines}\n]" if lines else json.dumps(value)))
    return "{\n" + ",\n".join(parts) + "\n}\n"


def tables(results: dict) -> Iterator[str]:
    """The lines of three Markdown tables, in percent: false positives, false positives of families, power."""
    others = list(TESTS)[1:]
    yield from _head(*map(str, SIZES), *(f"{name}, {SIZES[0]}" for name in others))
    for one in _by_cell(results["false_positives"] + results["extreme"]):
        rates = [_rate_and_bound(one[str(size)]["rates"]["comparison"]) for size in SIZES]
        yield _line(one, *rates, *(f"{100 * one[str(SIZES[0])]['rates'][name][0]:.1f}" for name in others))
    yield ""
    yield from _head(*map(str, SIZES))
    for one in _by_cell(results["families"]):
        yield _line(one, *(_rate_and_bound(one[str(size)]["rate"]) for size in SIZES))
    yield ""
    yield from _head("points", *map(str, POWER_SIZES))
    for one, points in product(_by_cell(results["power"]), POINTS):
        pairs = [one[str(size)]["points"][f"{points:g}"] for size in POWER_SIZES]
        yield _line(one, f"{points:g}", *(f"{100 * alone:.0f} ({100 * in_family:.0f})" for alone, in_family in pairs))


def _by_cell(records: list[dict]) -> list[dict]:
    """Merge the records of each cell into one, with a record for each size as key."""
    cells: dict[tuple, dict] = {}
    for record in records:
        cell = {key: record[key] for key in Cell._fields}
        cells.setdefault(tuple(cell.values()), cell)[record["size"]] = record
    return list(cells.values())


def _rate_and_bound(rate: list[float]) -> str:
    return f"{100 * rate[0]:.1f} (≤ {100 * rate[2]:.1f})"


def _head(*columns: str) -> Iterator[str]:
    yield f"| {' | '.join((*Cell._fields, *columns))} |"
    yield f"| --- |{' ---: |' * (len(Cell._fields) - 1 + len(columns))}"


def _line(one: dict, *columns: str) -> str:
    return f"| {' | '.join((one['scores'], *(f'{one[key]:g}' for key in Cell._fields[1:]), *columns))} |"


if __name__ == "__main__":
    main()
