"""The paper's Tables II to VII as data (paper_tables.yaml): what a run's or a study's own numbers stand beside."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Literal

from pydantic import Field, model_validator
from scipy.special import stdtrit

from ssvos.config import FrozenConfig, parse, read_yaml
from ssvos.metrics.comparison import AGREES, ALPHA, DIFFERS, FEWEST

OURS = "Ours"  # the paper's own row in Tables IV to VII
_FILE = Path(__file__).with_name("paper_tables.yaml")
_CLIPS = Path(__file__).with_name("published_davis2016.json")
_ROUNDING = 0.05  # of a printed value, percent

Words = Annotated[tuple[str, ...], Field(strict=False)]


class Benchmark(FrozenConfig):
    """The videos that a table's figures are of, as a data set has them.

    Known by the names of the sequences and the number of their objects, or, where they are too many to name, by their
    list (`split`) and their number in each release, the paper's release first. takes_other_videos: whether a run on
    other videos of the same protocol is shown beside its tables, as one that does not compare.
    """

    title: str
    layout: Literal["davis", "youtube-vos"]
    sequences: Words = ()
    num_objects: int = 0
    split: str = ""
    releases: dict[str, int] = Field(default_factory=dict)
    is_scored_by_server: bool = False
    takes_other_videos: bool = True

    @property
    def protocol(self) -> str:
        return "youtube-vos" if self.layout == "youtube-vos" else "davis2017"

    def unlike(self, layout: str, split: str, sequences: Collection[str], num_objects: int) -> str:
        """Why judged videos are not this benchmark's, in words; empty if they are.

        layout, split: the data set's, and its list; sequences: the judged ones of it; num_objects: theirs together.
        """
        if layout == "embedded":
            return "this run's data is embedded"
        if layout != self.layout:
            return f"this run's data has the layout {layout}"
        if self.sequences:
            found, others = set(sequences) & set(self.sequences), set(sequences) - set(self.sequences)
            if others or len(found) < len(self.sequences):
                also = f", and {len(others)} more" if found and others else ""
                return f"this run judges {len(found) or 'none'} of its {len(self.sequences)} videos{also}"
            if num_objects != self.num_objects:
                return f"this run's masks of its videos have {num_objects} objects, the benchmark's {self.num_objects}"
            return ""
        return self._unlike_release(split, len(set(sequences)))

    def _unlike_release(self, split: str, count: int) -> str:
        (release, expected), *others = self.releases.items()
        if split != self.split:
            return f"this run judges the list {split}"
        for other, size in others:
            if count == size:
                return f"these are the {size} videos of its {other} release, the paper's the {expected} of {release}"
        return "" if count == expected else f"a subset: {count} videos, the benchmark has {expected}"


class PaperRow(FrozenConfig):
    """A row and its values by column, percent; None where the print has a dash.

    What the row is, one of three. ideas: those that it combines, in Table III's short names. sets: Table II's
    parameters by printed symbol, and the `group` of rows that vary the same one. method: a published one's name, its
    `reference` in the paper, the `kind` of its supervision at test time, and whether it learns `online` (None: the
    table does not say). slip: the columns in which the print contradicts itself.
    """

    values: dict[str, float | None]
    ideas: Words = ()
    group: str = ""
    sets: dict[str, float] = Field(default_factory=dict)
    method: str = ""
    reference: int | None = None
    kind: Literal["", "unsupervised", "semi-supervised", "scribble-supervised"] = ""
    online: bool | None = None
    slip: Words = ()

    @model_validator(mode="after")
    def _check(self) -> "PaperRow":
        if sum(map(bool, (self.ideas, self.sets, self.method))) != 1:
            raise ValueError("a row has one of ideas, sets and method; give one")
        if bool(self.method) != bool(self.kind):
            raise ValueError("a row has a method and its kind, or neither; give both")
        return self


class PaperTable(FrozenConfig):
    """One table as printed. data: what it was measured on, and the `benchmark` that has these videos; is_transposed: it
    is printed with a line for each measure; slips: where print or text contradicts itself."""

    title: str
    data: str
    columns: Annotated[Words, Field(min_length=1)]
    rows: Annotated[dict[str, PaperRow], Field(min_length=1)]
    benchmark: str = ""
    is_transposed: bool = False
    slips: Words = ()

    @model_validator(mode="after")
    def _check(self) -> "PaperTable":
        for name, row in self.rows.items():
            if tuple(row.values) != self.columns:
                raise ValueError(f"row {name} has values for {', '.join(row.values)}; give {', '.join(self.columns)}")
            if not set(row.slip) <= set(self.columns):
                raise ValueError(f"row {name} has a slip in {', '.join(row.slip)}; choose of {', '.join(self.columns)}")
        return self

    @property
    def main_column(self) -> str:
        """The one score by which the methods are compared."""
        return "G" if "G" in self.columns else self.columns[0]

    def column(self, name: str) -> dict[str, float | None]:
        """Every row's value of one column."""
        return {row: one.values[name] for row, one in self.rows.items()}


class _PaperTables(FrozenConfig):
    tables: dict[str, PaperTable]
    benchmarks: dict[str, Benchmark] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> "_PaperTables":
        for number, table in self.tables.items():
            if table.benchmark and table.benchmark not in self.benchmarks:
                raise ValueError(f"table {number} is of {table.benchmark}; name it under benchmarks")
        return self


def _read(path: Path) -> _PaperTables:
    return parse(_PaperTables, read_yaml(path), path)


def read_table(number: str, path: Path = _FILE) -> PaperTable:
    """A table by its Roman number. ValueError for one that the file does not have, or a file that is not whole."""
    tables = _read(path).tables
    if number not in tables:
        raise ValueError(f"{path}: no table {number}; choose one of {', '.join(tables)}")
    return tables[number]


def read_benchmark(table: PaperTable, path: Path = _FILE) -> Benchmark:
    """The benchmark of one of the Tables IV to VII."""
    return _read(path).benchmarks[table.benchmark]


def read_published_clips(path: Path = _CLIPS) -> dict[str, dict[str, tuple[float, float]]]:
    """{method: {clip: (J, F)}}, percent: published methods on clips of DAVIS-2016, from one true mask."""
    methods = json.loads(path.read_text())["methods"]
    return {name: {clip: (100 * v["J"], 100 * v["F"]) for clip, v in clips.items()} for name, clips in methods.items()}


def verdict_beside(published: float, scores: Sequence[float]) -> str:
    """Whether a value that was printed for the same videos could be one more run of ours.

    scores: ours by seed, percent. `agrees` if the printed one lies in the interval that holds the next run's score at
    95 percent, after Student's t on the seeds' mean and deviation, wider by the print's rounding. The videos are the
    same, so that only what a training leaves to chance is counted.
    """
    if len(scores) < FEWEST:
        return "no verdict: fewer than three seeds"
    centre, count = mean(scores), len(scores)
    half = -float(stdtrit(count - 1, ALPHA / 2)) * stdev(scores) * (1 + 1 / count) ** 0.5 + _ROUNDING
    # a seed's score has rounding of its own in its last bit
    is_inside = abs(centre - published) <= half + 1e-9
    return f"{f'{AGREES}: within' if is_inside else f'{DIFFERS}: outside'} {centre:.1f} ± {half:.1f}"
