"""Stage `table` of studies/table3: Table III's rows with several seeds, next to the paper's values.

It runs in that folder. Rows and seeds without a result are `not run`, so the table can be written at any time.
"""

import json
from pathlib import Path

from pipelines.params import Layout, read_params, write_json
from pipelines.stage import no_arguments, run_stage
from pipelines.studies.study import STUDY, best_baseline, curve_panels, read_baselines, read_runs, read_study
from pipelines.studies.study_page import (
    Page,
    about_runs,
    about_statistics,
    baseline_page_table,
    render,
    score_page_table,
    write_page,
)
from pipelines.studies.study_table import SEED_COLUMNS, StudyTable, csv_text, metrics_of, seed_rows, study_table
from pipelines.tracking import mlflow_client as tracking
from pipelines.tracking.record import numbers
from pipelines.tracking.stage_records import Records
from ssvos.config.variants import Params
from ssvos.data.index import read_index, videos_of
from ssvos.files import write_text
from ssvos.metrics.tables import read_table

PAGE, HTML, TABLE, METRICS = (Path(f"table3.{suffix}") for suffix in ("md", "html", "csv", "json"))
SEEDS, CURVES, FIGURE = Path("seeds.csv"), Path("curves.svg"), Path("figure6.jpg")
BASELINE, MAIN = "pce", "full"


def main() -> None:
    no_arguments(__doc__)
    params = read_params()
    layout = Layout(params.base.data.name)
    tracking.connect()
    table = write_table(params, layout)
    metrics, files = numbers(json.loads(METRICS.read_text())), {"": [PAGE, HTML, TABLE, CURVES]}
    records, tables = Records.read(params, layout), {"rows.json": table.rows}
    tracking.write(
        records.record("table", METRICS, "evaluation", params.base, metrics=metrics, tables=tables, files=files)
    )
    print(f"{table.order}\n{PAGE.absolute()}")


def write_table(params: Params, layout: Layout) -> StudyTable:
    """Write the page as Markdown and HTML, the table and the scores by seed as CSV, the curves and the metrics."""
    paper = read_table("III")
    study = read_study(STUDY, paper)
    runs, baselines = read_runs(study, params.variant, layout, layout.results), read_baselines(layout)
    ideas = {row: {"ideas": " + ".join(one.ideas)} for row, one in paper.rows.items()}
    table = study_table(paper, study, runs, best_baseline(baselines), BASELINE, MAIN, ideas, not_run={})
    write_text(CURVES, render("curves.svg.j2", curve_panels(runs, paper, BASELINE)))
    page = Page(
        "Table III of the paper, and ours",
        f"Order of all rows: {table.order}.",
        about_runs(params.base, paper, study, videos_of(read_index(layout.index))),
        [score_page_table(table, BASELINE, ["ideas"]), baseline_page_table(baselines)],
        about_statistics(paper, study, BASELINE, MAIN, table.num_compared),
        [(CURVES, "Held-out J by step"), (FIGURE, "Figure 6's grid: the same frames under six rows")],
    )
    write_page(page, PAGE, HTML)
    write_text(TABLE, csv_text(table.rows, list(table.rows[0])))
    write_text(SEEDS, csv_text(seed_rows(runs), SEED_COLUMNS))
    write_json(METRICS, metrics_of(table, baselines))
    return table


if __name__ == "__main__":
    run_stage(main)
