"""Tables IV to VII of the paper in their own shape, a run's answers beside the published ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from pipelines.params import Layout
from pipelines.reporting.run_results import NOT_RUN, Answer, Place, answers, places
from ssvos.config.variants import Params
from ssvos.data.index import IndexedVideo
from ssvos.metrics.tables import OURS, Benchmark, PaperTable, read_benchmark, read_table, verdict_beside

NUMBERS = ("IV", "V", "VI", "VII")
BESIDE = ("judged on", "variant", "measure", "paper", "this run", "sd", "seeds", "difference", "verdict")
UNDEFINED = "undefined"  # a measure towards which no judged object counts


@dataclass(frozen=True)
class Cell:
    """is_slip: the print contradicts itself here; is_ours: of a variant of this run."""

    text: str
    is_slip: bool = False
    is_ours: bool = False


@dataclass(frozen=True)
class ShownTable:
    """A table with this run in it. lines: the first is the head; beside: each variant and measure beside the paper's
    own row, text by BESIDE; bars: (answer, main score) of all that have one."""

    number: str
    paper: PaperTable
    benchmark: Benchmark
    places: tuple[Place, ...]
    answers: tuple[Answer, ...]
    lines: tuple[tuple[Cell, ...], ...]
    beside: tuple[dict[str, str], ...]
    bars: tuple[tuple[str, float], ...]


def shown_table(number: str, params: Params, layout: Layout, videos: Sequence[IndexedVideo]) -> ShownTable:
    """One table with the rows of every variant and of every answer without training. videos: the judged ones."""
    paper = read_table(number)
    benchmark = read_benchmark(paper)
    found = places(benchmark, params, layout, videos)
    ours = [one for place in found for one in answers(place, benchmark, paper.columns, params, layout)]
    beside = [line for one in ours if one.variant for line in _beside(one, paper, benchmark)]
    lines, bars = _lines(paper, ours), _bars(paper, ours)
    return ShownTable(number, paper, benchmark, tuple(found), tuple(ours), lines, tuple(beside), bars)


def _lines(paper: PaperTable, ours: Sequence[Answer]) -> tuple[tuple[Cell, ...], ...]:
    """The cells in the printed shape, a line a method, or a line a measure where the paper has it so. The run's answers
    follow the paper's own."""
    has_online = any(row.online is not None for row in paper.rows.values())
    heads = ["method", "supervision", "online learning"]
    head = [Cell(text) for text in (*heads[: 2 + has_online], *paper.columns)]
    lines = []
    for label, row in zip(_labels(paper), paper.rows.values(), strict=True):
        about = [label, row.kind, "yes" if row.online else "no"]
        values = [Cell(_printed(value), is_slip=key in row.slip) for key, value in row.values.items()]
        lines.append([*map(Cell, about[: 2 + has_online]), *values])
    beside = []
    for one in ours:
        about = [_name(one, ours), one.supervision, "no"]
        texts = [*about[: 2 + has_online], *(_value(one.of(measure)) for measure in paper.columns)]
        beside.append([Cell(text, is_ours=bool(one.variant)) for text in texts])
    after = list(paper.rows).index(OURS) + 1
    lines = [head, *lines[:after], *beside, *lines[after:]]
    return tuple(map(tuple, zip(*lines, strict=True) if paper.is_transposed else lines))


def _labels(paper: PaperTable) -> list[str]:
    """The rows' names as printed; the kind is added to those of a method that has two rows."""
    names = [row.method for row in paper.rows.values()]
    return [
        f"{OURS} (the paper)"
        if row.method == OURS
        else f"{row.method} [{row.reference}]" + (f", {row.kind}" if names.count(row.method) > 1 else "")
        for row in paper.rows.values()
    ]


def _name(one: Answer, ours: Sequence[Answer]) -> str:
    name = f"this run: {one.name}" if one.variant else one.name
    return name if len({other.place for other in ours}) == 1 else f"{name}, on {one.place.name}"


def _printed(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _value(values: list[float] | None) -> str:
    if not values:
        return UNDEFINED if values is None else NOT_RUN
    return f"{mean(values):.1f}" if len(values) == 1 else f"{mean(values):.1f} ± {stdev(values):.1f}"


def _beside(one: Answer, paper: PaperTable, benchmark: Benchmark) -> list[dict[str, str]]:
    """A variant beside the paper's own row, a line a measure."""
    lines = []
    for measure, published in paper.rows[OURS].values.items():
        values = one.of(measure)
        line = [one.place.name, one.variant, measure, _printed(published)]
        if values:
            spread = f"{stdev(values):.1f}" if len(values) > 1 else "one seed"
            line += [f"{mean(values):.1f}", spread, str(len(values))]
            line += _difference(published, values, one.place, benchmark)
        else:
            word = UNDEFINED if values is None else NOT_RUN
            verdict = one.missing or "no verdict: no judged object counts towards it"
            line += [word, word, str(len(one.scores)), word, verdict]
        lines.append(dict(zip(BESIDE, line, strict=True)))
    return lines


def _difference(published: float, values: list[float], place: Place, benchmark: Benchmark) -> tuple[str, str]:
    """The difference and the verdict; neither on other videos than the paper's."""
    if place.unlike:
        return "other data", f"{NOT_RUN} on {benchmark.title}: {place.unlike}"
    return f"{mean(values) - published:+.1f}", verdict_beside(published, values)


def _bars(paper: PaperTable, ours: Sequence[Answer]) -> tuple[tuple[str, float], ...]:
    bars = list(zip(_labels(paper), paper.column(paper.main_column).values(), strict=True))
    for one in ours:
        if values := one.of(paper.main_column):
            bars.append((_name(one, ours) + (" (other videos)" if one.place.unlike else ""), round(mean(values), 1)))
    return tuple(bars)
