"""Stage `tables`: Tables IV to VII of the paper in their printed layout, with this run's results added."""

import csv
import io
from collections.abc import Iterable, Sequence

from pipelines.evaluation_set import evaluation_videos
from pipelines.params import Layout, read_params, write_json
from pipelines.reporting.clip_table import HEADS, ClipTable, clip_tables
from pipelines.reporting.paper_tables import COMPARISON_COLUMNS, NUMBERS, CombinedTable, combined_table
from pipelines.reporting.rendering import render_template
from pipelines.stage import no_arguments, run_stage
from pipelines.tracking import mlflow_client as tracking
from pipelines.tracking.stage_records import Records
from ssvos.config.variants import Params
from ssvos.files import write_text

_DIGITS = {"IV": 4, "V": 5, "VI": 6, "VII": 7}


def main() -> None:
    no_arguments(__doc__)
    params = read_params()
    layout = Layout(params.base.data.name)
    tracking.connect()
    tables = write_tables(params, layout)
    tracking.write(Records.read(params, layout).tables())
    for table in tables:
        print(f"Table {table.number}: {verdicts(table)}")
    print(layout.tables_page.absolute())


def write_tables(params: Params, layout: Layout) -> list[CombinedTable]:
    """Write each table as Markdown and CSV, all tables as one page, and the numbers as JSON."""
    videos = evaluation_videos(layout.index)
    tables = [combined_table(number, params, layout, videos) for number in NUMBERS]
    clips = clip_tables(params, layout, videos)
    for table in tables:
        path = layout.tables / f"table{_DIGITS[table.number]}"
        write_text(path.with_suffix(".md"), _rendered("paper_table.md.j2", table=table, has_slip=_has_slip(table)))
        write_text(path.with_suffix(".csv"), _csv([cell.text for cell in row] for row in table.rows))
        bars = layout.tables / f"bars{_DIGITS[table.number]}.csv"
        write_text(bars, _csv([("method", "score"), *table.bars]))
    comparisons = [[table.number, *row.values()] for table in tables for row in table.comparisons]
    write_text(layout.tables / "beside.csv", _csv([("table", *COMPARISON_COLUMNS), *comparisons]))
    if clips:
        write_text(layout.tables / "clips.csv", _csv(_clip_lines(clips)))
    page = _rendered("paper_tables.html.j2", name=layout.name, tables=tables, clips=clips, verdicts=verdicts)
    write_text(layout.tables_page, page)
    write_json(layout.tables / "numbers.json", _numbers(tables))
    return tables


def verdicts(table: CombinedTable) -> str:
    """Return the variants' verdicts on the table's main score as one line; equal verdicts are given once."""
    main_rows = [row for row in table.comparisons if row["measure"] == table.paper.main_column]
    by_variant = {row["variant"]: row["verdict"] for row in main_rows}
    if len(set(by_variant.values())) == 1:
        return next(iter(by_variant.values()))
    return "; ".join(f"{variant}: {verdict}" for variant, verdict in by_variant.items())


def _has_slip(table: CombinedTable) -> bool:
    return any(cell.is_slip for row in table.rows for cell in row)


def _numbers(tables: Sequence[CombinedTable]) -> dict[str, dict]:
    """Return {table: {variant: {measure: {paper, this_run, sd, difference}}}} of the variants that were run."""
    result: dict[str, dict] = {}
    for table in tables:
        several = {one.name: f" on {one.source}" for one in table.evaluated if len(table.evaluated) > 1}
        for line in table.comparisons:
            numbers = {key.replace(" ", "_"): _number(line[key]) for key in ("paper", "this run", "sd", "difference")}
            if numbers["this_run"] is not None:
                name = line["variant"] + several.get(line["evaluated on"], "")
                measures = result.setdefault(table.number, {}).setdefault(name, {})
                measures[line["measure"]] = {key: value for key, value in numbers.items() if value is not None}
    return result


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _clip_lines(tables: Sequence[ClipTable]) -> list[tuple[str, ...]]:
    """Return a line per method and clip, with a method's mean before its clips."""
    lines = [("source", "method", "given at test time", "clip", "J / F")]
    for table in tables:
        for row in table.rows:
            clips = zip(("mean", *table.clips), row.cells, strict=True)
            lines += [(table.source, row.name, row.test_input, clip, cell) for clip, cell in clips]
    return lines


def _csv(lines: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _rendered(template: str, **values) -> str:
    return render_template(template, {**values, "heads": HEADS, "comparison_columns": COMPARISON_COLUMNS})


if __name__ == "__main__":
    run_stage(main)
