"""Tables IV to VII of the paper in their printed shape, with a run's results next to the published ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from pipelines.params import Layout
from pipelines.reporting.run_results import NOT_RUN, EvaluatedSource, RunResult, evaluated_sources, run_results
from ssvos.config.variants import Params
from ssvos.data.index import IndexedVideo
from ssvos.metrics.tables import OURS, Benchmark, PaperTable, read_benchmark, read_table, verdict_beside

NUMBERS = ("IV", "V", "VI", "VII")
# columns of the comparison with the paper's own row
COMPARISON_COLUMNS = ("evaluated on", "variant", "measure", "paper", "this run", "sd", "seeds", "difference", "verdict")
UNDEFINED = "undefined"  # a measure to which no object of the evaluation videos counts


@dataclass(frozen=True)
class Cell:
    """A cell's text.

    is_slip: whether the print contradicts itself here
    is_ours: whether the cell belongs to a variant of this run
    """

    text: str
    is_slip: bool = False
    is_ours: bool = False


@dataclass(frozen=True)
class CombinedTable:
    """A table of the paper with this run's results.

    rows:        in the printed shape; the first is the head
    comparisons: one row a variant and measure, next to the paper's own row: text by COMPARISON_COLUMNS
    bars:        (method, main score) of all methods that have one
    """

    number: str
    paper: PaperTable
    benchmark: Benchmark
    evaluated: tuple[EvaluatedSource, ...]
    rows: tuple[tuple[Cell, ...], ...]
    comparisons: tuple[dict[str, str], ...]
    bars: tuple[tuple[str, float], ...]


def combined_table(number: str, params: Params, layout: Layout, videos: Sequence[IndexedVideo]) -> CombinedTable:
    """One table with all variants and baselines of this run. videos: the evaluation videos."""
    paper = read_table(number)
    benchmark = read_benchmark(paper)
    evaluated = evaluated_sources(benchmark, params, layout, videos)
    ours = [one for source in evaluated for one in run_results(source, benchmark, paper.columns, params, layout)]
    comparisons = [row for one in ours if one.variant for row in _comparisons(one, paper, benchmark)]
    rows, bars = _rows(paper, ours), _bars(paper, ours)
    return CombinedTable(number, paper, benchmark, tuple(evaluated), rows, tuple(comparisons), bars)


def _rows(paper: PaperTable, ours: Sequence[RunResult]) -> tuple[tuple[Cell, ...], ...]:
    """The cells in the printed shape: a row a method, or a row a measure where the paper prints it so.

    The run's results follow the paper's own.
    """
    has_online = any(row.online is not None for row in paper.rows.values())
    heads = ["method", "supervision", "online learning"]
    head = [Cell(text) for text in (*heads[: 2 + has_online], *paper.columns)]
    published = []
    for label, row in zip(_labels(paper), paper.rows.values(), strict=True):
        texts = [label, row.kind, "yes" if row.online else "no"]
        values = [Cell(_printed(value), is_slip=key in row.slip) for key, value in row.values.items()]
        published.append([*map(Cell, texts[: 2 + has_online]), *values])
    own = []
    for one in ours:
        texts = [_name(one, ours), one.supervision, "no"]
        texts = [*texts[: 2 + has_online], *(_mean_and_sd(one.values(measure)) for measure in paper.columns)]
        own.append([Cell(text, is_ours=bool(one.variant)) for text in texts])
    after = list(paper.rows).index(OURS) + 1
    rows = [head, *published[:after], *own, *published[after:]]
    return tuple(map(tuple, zip(*rows, strict=True) if paper.is_transposed else rows))


def _labels(paper: PaperTable) -> list[str]:
    """The printed names of the rows; those of a method with two rows include the kind of supervision."""
    names = [row.method for row in paper.rows.values()]
    return [
        f"{OURS} (the paper)"
        if row.method == OURS
        else f"{row.method} [{row.reference}]" + (f", {row.kind}" if names.count(row.method) > 1 else "")
        for row in paper.rows.values()
    ]


def _name(one: RunResult, ours: Sequence[RunResult]) -> str:
    name = f"this run: {one.name}" if one.variant else one.name
    return name if len({other.evaluated for other in ours}) == 1 else f"{name}, on {one.evaluated.name}"


def _printed(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _mean_and_sd(values: list[float] | None) -> str:
    if not values:
        return UNDEFINED if values is None else NOT_RUN
    return f"{mean(values):.1f}" if len(values) == 1 else f"{mean(values):.1f} ± {stdev(values):.1f}"


def _comparisons(one: RunResult, paper: PaperTable, benchmark: Benchmark) -> list[dict[str, str]]:
    """A variant next to the paper's own row, one row a measure."""
    rows = []
    for measure, published in paper.rows[OURS].values.items():
        values = one.values(measure)
        row = [one.evaluated.name, one.variant, measure, _printed(published)]
        if values:
            sd = f"{stdev(values):.1f}" if len(values) > 1 else "one seed"
            row += [f"{mean(values):.1f}", sd, str(len(values))]
            row += _difference(published, values, one.evaluated, benchmark)
        else:
            word = UNDEFINED if values is None else NOT_RUN
            verdict = one.missing or "no verdict: no object of the evaluation videos counts towards it"
            row += [word, word, str(len(one.scores)), word, verdict]
        rows.append(dict(zip(COMPARISON_COLUMNS, row, strict=True)))
    return rows


def _difference(
    published: float, values: list[float], evaluated: EvaluatedSource, benchmark: Benchmark
) -> tuple[str, str]:
    """The difference and the verdict; there is neither where the videos are not the paper's."""
    if evaluated.unlike:
        return "other data", f"{NOT_RUN} on {benchmark.title}: {evaluated.unlike}"
    return f"{mean(values) - published:+.1f}", verdict_beside(published, values)


def _bars(paper: PaperTable, ours: Sequence[RunResult]) -> tuple[tuple[str, float], ...]:
    bars = list(zip(_labels(paper), paper.column(paper.main_column).values(), strict=True))
    for one in ours:
        if values := one.values(paper.main_column):
            suffix = " (other videos)" if one.evaluated.unlike else ""
            bars.append((_name(one, ours) + suffix, round(mean(values), 1)))
    return tuple(bars)
