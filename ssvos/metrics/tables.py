"""The paper's tables as data (paper_tables.yaml): what a study's own numbers stand beside."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from ssvos.config import FrozenConfig, parse, read_yaml

_FILE = Path(__file__).with_name("paper_tables.yaml")


class PaperRow(FrozenConfig):
    """A row: the ideas that it combines, in the table's own short names, and its values by column, percent."""

    ideas: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    values: dict[str, float]


class PaperTable(FrozenConfig):
    """One table as printed. data: what it was measured on; slips: where print or text contradicts itself."""

    title: str
    data: str
    columns: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    rows: Annotated[dict[str, PaperRow], Field(min_length=1)]
    slips: Annotated[tuple[str, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _check(self) -> "PaperTable":
        for name, row in self.rows.items():
            if tuple(row.values) != self.columns:
                raise ValueError(f"row {name} has values for {', '.join(row.values)}; give {', '.join(self.columns)}")
        return self

    def column(self, name: str) -> dict[str, float]:
        """Every row's value of one column."""
        return {row: one.values[name] for row, one in self.rows.items()}


class _PaperTables(FrozenConfig):
    tables: dict[str, PaperTable]


def read_table(number: str, path: Path = _FILE) -> PaperTable:
    """A table by its Roman number. ValueError for one that the file does not have, or a file that is not whole."""
    tables = parse(_PaperTables, read_yaml(path), path).tables
    if number not in tables:
        raise ValueError(f"{path}: no table {number}; choose one of {', '.join(tables)}")
    return tables[number]
