"""The paper's Tables II to VII as data (paper_tables.yaml), for comparison with a run's or a study's own scores."""

import json
from collections.abc import Collection, Sequence
from functools import cache
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
    """The evaluation videos of a table.

    They are identified by the names of the sequences and the number of objects; or, if there are too many to name, by
    their list (`split`) and their number in each release, the paper's release first.

    layout: the layout of the data set.
    takes_other_videos: whether reports show runs on other videos of the same protocol beside the table, marked as not
        comparable.
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
        """The name of the protocol, as in `ssvos evaluate --protocol`."""
        return "youtube-vos" if self.layout == "youtube-vos" else "davis2017"

    def unlike(self, layout: str, split: str, sequences: Collection[str], num_objects: int) -> str:
        """Why the evaluation videos of a run are not those of this benchmark, in words; empty if they are.

        layout: the layout of the run's data set.
        split: the list of its evaluation videos.
        sequences: the names of these videos.
        num_objects: the number of their objects.
        """
        if layout == "embedded":
            return "this run's data is embedded"
        if layout != self.layout:
            return f"this run's data has the layout {layout}"
        if self.sequences:
            own, others = set(sequences) & set(self.sequences), set(sequences) - set(self.sequences)
            if others or len(own) < len(self.sequences):
                also = f", and {len(others)} more" if own and others else ""
                return f"this run evaluates {len(own) or 'none'} of its {len(self.sequences)} videos{also}"
            if num_objects != self.num_objects:
                return f"this run's masks of its videos have {num_objects} objects, the benchmark's {self.num_objects}"
            return ""
        return self._unlike_release(split, len(set(sequences)))

    def _unlike_release(self, split: str, count: int) -> str:
        (release, expected), *others = self.releases.items()
        if split != self.split:
            return f"this run evaluates the list {split}"
        for other, size in others:
            if count == size:
                return f"these are the {size} videos of its {other} release, the paper's the {expected} of {release}"
        return "" if count == expected else f"a subset: {count} videos, the benchmark has {expected}"


class PaperRow(FrozenConfig):
    """A row of a table. It has exactly one of `ideas` (Table III), `sets` (Table II) and `method` (Tables IV to VII).

    values: column -> value, percent; None if the paper prints a dash.
    ideas: the components that the row combines, in Table III's short names.
    group: of Table II; the rows of one group vary the same parameter.
    sets: parameters of Table II by printed symbol.
    method: the name of a published method.
    reference: its number in the paper's references.
    kind: its supervision at test time.
    online: whether it trains at test time; None: the table does not say.
    slip: columns in which the paper contradicts itself.
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
    """One table as printed.

    data: the data it was measured on.
    benchmark: the name of the benchmark with these videos.
    is_transposed: whether the paper prints a line for each measure.
    slips: where the table or the text contradicts itself.
    """

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
        """The column by which the methods are compared."""
        return "G" if "G" in self.columns else self.columns[0]

    def column(self, name: str) -> dict[str, float | None]:
        """Row -> its value in one column."""
        return {key: row.values[name] for key, row in self.rows.items()}


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
    return _parsed(path, path.stat().st_mtime_ns if path.is_file() else 0)


@cache
def _parsed(path: Path, _modified_ns: int) -> _PaperTables:
    """The file is parsed once per version: a stage asks for it table by table."""
    return parse(_PaperTables, read_yaml(path), path)


def read_table(number: str, path: Path = _FILE) -> PaperTable:
    """Read a table by its Roman number; ValueError for an unknown number or a faulty file."""
    tables = _read(path).tables
    if number not in tables:
        raise ValueError(f"{path}: no table {number}; choose one of {', '.join(tables)}")
    return tables[number]


def read_benchmark(table: PaperTable, path: Path = _FILE) -> Benchmark:
    """Read the benchmark of one of the Tables IV to VII."""
    return _read(path).benchmarks[table.benchmark]


def read_published_clips(path: Path = _CLIPS) -> dict[str, dict[str, tuple[float, float]]]:
    """Scores of published methods, which receive the first mask, on clips of DAVIS-2016: {method: {clip: (J, F)}}, in
    percent."""
    methods = json.loads(path.read_text())["methods"]
    return {name: {clip: (100 * v["J"], 100 * v["F"]) for clip, v in clips.items()} for name, clips in methods.items()}


def verdict_beside(published: float, scores: Sequence[float]) -> str:
    """Whether a value that the paper prints for the same videos could be the score of one more run of ours.

    published: the printed value, percent.
    scores: our scores by seed, percent.
    returns: `agrees` if the printed value is in the 95 % prediction interval of the next run's score, by Student's t on
        the seeds' mean and deviation, widened by the rounding of the print. The videos are the same, so only the
        randomness of training counts.
    """
    if len(scores) < FEWEST:
        return "no verdict: fewer than three seeds"
    center, count = mean(scores), len(scores)
    half = -float(stdtrit(count - 1, ALPHA / 2)) * stdev(scores) * (1 + 1 / count) ** 0.5 + _ROUNDING
    # our own scores have a rounding error in the last bit
    is_inside = abs(center - published) <= half + 1e-9
    return f"{f'{AGREES}: within' if is_inside else f'{DIFFERS}: outside'} {center:.1f} ± {half:.1f}"
