"""How often the comparison of two variants is wrong, and how often it finds something. Writes studies/calibration.json.

    python studies/calibration.py            all cells, under a minute
    python studies/calibration.py --quick    few draws, to see that it runs

Draws differences of two variants' scores on seeds x videos whose mean is 0, and counts how often a 5 % test says that
it is not: the test of `ssvos.metrics.comparison`, one that was not taken, and three t-tests that leave out a source of
chance. Then the same with a mean of 1, 2 and 4 points. docs/statistics.md holds the tables that are printed.
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
BOUND = 0.07  # of the upper end of a false-positive rate's 95 % interval
FAMILY = 7  # rows that are compared with one baseline


class Size(NamedTuple):
    seeds: int
    videos: int

    def __str__(self) -> str:
        return f"{self.seeds} x {self.videos}"


class Cell(NamedTuple):
    """scores: of KINDS. The others: standard deviations of the effects, in points for normal scores."""

    scores: str
    seed: float
    video: float
    residual: float


class Kind(NamedTuple):
    """Scores after Beta(power, 1) between 0 and 100, whose density rises towards 100; they are made of normal effects,
    which the cell gives. steady: the baseline does not depend on the seed, so that the skew does not cancel."""

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
# the chance is nearly all one variant's seeds, and these are skewed: three seeds cannot show that
EXTREME_CELLS = Cell(STEADY, 2.0, 0.2, 0.5), Cell(EXTREME, 2.0, 0.2, 0.5)
FAMILY_CELLS = tuple(Cell(NORMAL, seed, 1.0, 1.0) for seed in RATIOS)
POWER_SIZES = (*SIZES, Size(5, 30), Size(10, 30))
POWER_CELLS = Cell(NORMAL, 0.5, 1.0, 2.0), Cell(NORMAL, 1.0, 2.0, 4.0), Cell(NORMAL, 1.5, 2.0, 9.0)
POINTS = 1.0, 2.0, 4.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{FEW_DRAWS} draws a cell in place of {DRAWS}")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    found = calibrate(FEW_DRAWS if args.quick else DRAWS)
    write_text(args.out, _as_json(found))
    print("\n".join((*tables(found), str(args.out))))


def calibrate(draws: int) -> dict:
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
    """The share of draws without a difference in which each test finds one."""
    counts = dict.fromkeys(TESTS, 0)
    for rng, num in _batches(cell, size, draws):
        found = two_way(differences(cell, size, num, rng))
        for name, reach in TESTS.items():
            counts[name] += int((np.abs(found.mean) > reach(found)).sum())
    return _named(cell, size) | {"rates": {name: _rate(count, draws) for name, count in counts.items()}}


def wrong_families(cell: Cell, size: Size, draws: int) -> dict:
    """The share of tables without any difference, of FAMILY rows beside one baseline, in which Holm's correction lets a
    row pass: its first step asks whether the smallest p is below ALPHA / FAMILY."""
    count = 0
    own = Cell(NORMAL, *(np.array(cell[1:]) / 2**0.5))  # of each row and the baseline; a difference has two of them
    for rng, num in _batches(cell, size, draws):
        baseline = effects(own, size, num, rng)
        wrong = np.zeros(num, bool)
        for _ in range(FAMILY):
            found = two_way(effects(own, size, num, rng) - baseline)
            wrong |= np.abs(found.mean) > half_width(found, ALPHA / FAMILY)
        count += int(wrong.sum())
    return _named(cell, size) | {"rate": _rate(count, draws)}


def detections(cell: Cell, size: Size, draws: int) -> dict:
    """The share of draws in which a difference of so many points is found, alone and as a family's smallest p."""
    counts = {points: [0, 0] for points in POINTS}
    for rng, num in _batches(cell, size, draws):
        found = two_way(effects(cell, size, num, rng))
        for points, place in product(POINTS, (0, 1)):
            reach = half_width(found, (ALPHA, ALPHA / FAMILY)[place])
            # the right sign alone counts
            counts[points][place] += int((found.mean + points > reach).sum())
    shares = {f"{points:g}": [count / draws for count in both] for points, both in counts.items()}
    return _named(cell, size) | {"points": shares}


def differences(cell: Cell, size: Size, num: int, rng: Generator) -> NDArray:
    """Differences of two variants with equal means, (num, S, V) points."""
    kind = KINDS[cell.scores]
    if kind is None:
        return effects(cell, size, num, rng)
    hardness = rng.standard_normal((num, 1, size.videos))  # of a video, for both variants
    baseline = cell._replace(seed=0.0, residual=0.0) if kind.steady else cell
    scores, others = (_bounded(one, hardness + effects(one, size, num, rng), kind) for one in (cell, baseline))
    return scores - others


def effects(cell: Cell, size: Size, num: int, rng: Generator) -> NDArray:
    """(num, S, V)"""
    seeds = rng.standard_normal((num, size.seeds, 1))
    videos = rng.standard_normal((num, 1, size.videos))
    return cell.seed * seeds + cell.video * videos + cell.residual * rng.standard_normal((num, *size))


def _bounded(cell: Cell, normal: NDArray, kind: Kind) -> NDArray:
    """Normal effects made scores: each is Beta(power, 1) whatever the cell, so all variants have the same mean."""
    total = (1 + sum(sd**2 for sd in cell[1:])) ** 0.5
    return 100 * ndtr(normal / total) ** (1 / kind.power)


def _satterthwaite(found: TwoWay) -> NDArray:
    """The quasi-F ratio as it is commonly tested: the same standard error, Satterthwaite's degrees of freedom."""
    seeds, videos, residual = found.seeds, found.videos, found.residual
    total = np.maximum.reduce([seeds + videos - residual, seeds, videos])
    few, many = found.num_seeds - 1, found.num_videos - 1
    freedom = total**2 / (seeds**2 / few + videos**2 / many + residual**2 / (few * many))
    return _t_reach(found, total, np.maximum(freedom, 1))


def _all_cells(found: TwoWay) -> NDArray:
    few, many = found.num_seeds - 1, found.num_videos - 1
    freedom = found.num_seeds * found.num_videos - 1
    return _t_reach(found, (few * found.seeds + many * found.videos + few * many * found.residual) / freedom, freedom)


def _t_reach(found: TwoWay, mean_square: NDArray, freedom: NDArray | int) -> NDArray:
    return -stdtrit(freedom, ALPHA / 2) * np.sqrt(mean_square / (found.num_seeds * found.num_videos))


TESTS: dict[str, Callable[[TwoWay], NDArray]] = {
    "comparison": half_width,
    "Satterthwaite": _satterthwaite,
    "t over seeds": lambda found: _t_reach(found, found.seeds, found.num_seeds - 1),
    "t over videos": lambda found: _t_reach(found, found.videos, found.num_videos - 1),
    "t over all scores": _all_cells,
}


def _batches(cell: Cell, size: Size, draws: int) -> Iterator[tuple[Generator, int]]:
    """A cell draws the same numbers wherever it stands and whatever else is drawn."""
    key = (list(KINDS).index(cell.scores), *size, *(round(1000 * sd) for sd in cell[1:]))
    rng = np.random.default_rng(key)
    for start in range(0, draws, BATCH):
        yield rng, min(BATCH, draws - start)


def _named(cell: Cell, size: Size) -> dict:
    return {"size": str(size), **cell._asdict()}


def _rate(count: int, draws: int) -> list[float]:
    """The share, and the ends of its 95 % interval after Clopper and Pearson."""
    interval = binomtest(count, draws).proportion_ci(0.95, method="exact")
    return [count / draws, round(float(interval.low), 5), round(float(interval.high), 5)]


def _as_json(found: dict) -> str:
    """A line for each cell."""
    parts = []
    for key, value in found.items():
        lines = ",\n  ".join(map(json.dumps, value)) if isinstance(value, list) else ""
        parts.append(f'"{key}": ' + (f"[\n  {lines}\n]" if lines else json.dumps(value)))
    return "{\n" + ",\n".join(parts) + "\n}\n"


def tables(found: dict) -> Iterator[str]:
    """Lines in Markdown, percent: false positives, those of whole families, power."""
    others = list(TESTS)[1:]
    yield from _head(*map(str, SIZES), *(f"{name}, {SIZES[0]}" for name in others))
    for one in _by_cell(found["false_positives"] + found["extreme"]):
        rates = [_bounded_above(one[str(size)]["rates"]["comparison"]) for size in SIZES]
        yield _line(one, *rates, *(f"{100 * one[str(SIZES[0])]['rates'][name][0]:.1f}" for name in others))
    yield ""
    yield from _head(*map(str, SIZES))
    for one in _by_cell(found["families"]):
        yield _line(one, *(_bounded_above(one[str(size)]["rate"]) for size in SIZES))
    yield ""
    yield from _head("points", *map(str, POWER_SIZES))
    for one, points in product(_by_cell(found["power"]), POINTS):
        pairs = [one[str(size)]["points"][f"{points:g}"] for size in POWER_SIZES]
        yield _line(one, f"{points:g}", *(f"{100 * alone:.0f} ({100 * in_family:.0f})" for alone, in_family in pairs))


def _by_cell(records: list[dict]) -> list[dict]:
    """The records of each cell as one, in which they stand under their sizes."""
    cells: dict[tuple, dict] = {}
    for record in records:
        cell = {key: record[key] for key in Cell._fields}
        cells.setdefault(tuple(cell.values()), cell)[record["size"]] = record
    return list(cells.values())


def _bounded_above(rate: list[float]) -> str:
    return f"{100 * rate[0]:.1f} (≤ {100 * rate[2]:.1f})"


def _head(*columns: str) -> Iterator[str]:
    yield f"| {' | '.join((*Cell._fields, *columns))} |"
    yield f"| --- |{' ---: |' * (len(Cell._fields) - 1 + len(columns))}"


def _line(one: dict, *columns: str) -> str:
    return f"| {' | '.join((one['scores'], *(f'{one[key]:g}' for key in Cell._fields[1:]), *columns))} |"


if __name__ == "__main__":
    main()
