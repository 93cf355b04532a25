"""Stage `table` of studies/table2: Table II's grid points with several seeds, next to the paper's values.

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
from pipelines.studies.table2_grid import BASE, GridStudy, failure_path, grid_configs, result_path, row_description
from pipelines.tracking import mlflow_client as tracking
from pipelines.tracking.record import numbers
from pipelines.tracking.stage_records import Records
from ssvos.config import Config
from ssvos.config.variants import Params, seeded_name
from ssvos.data.index import read_index, videos_of
from ssvos.files import write_text
from ssvos.metrics.tables import read_table

PAGE, HTML, TABLE, METRICS = (Path(f"table2.{suffix}") for suffix in ("md", "html", "csv", "json"))
SEEDS, CURVES = Path("seeds.csv"), Path("curves.svg")
_ABOUT = ("group", "paper_sets", "ours_sets")


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
    paper = read_table("II")
    study = read_study(STUDY, paper, GridStudy)
    configs = grid_configs(paper, study, params.base)
    runs = read_runs(study, configs.__getitem__, layout, lambda name: result_path(layout, name))
    baselines = read_baselines(layout)
    about = {row: row_description(paper, row, params.base) for row in paper.rows}
    table = study_table(
        paper, study, runs, best_baseline(baselines), BASE, BASE, about, _reasons(study, layout, list(configs))
    )
    write_text(CURVES, render("curves.svg.j2", curve_panels(runs, paper, BASE)))
    page = Page(
        "Table II of the paper, and ours",
        f"Order of all rows: {table.order}.",
        about_runs(params.base, paper, study, videos_of(read_index(layout.index))) + _about_grid(study, configs),
        [score_page_table(table, BASE, _ABOUT), baseline_page_table(baselines)],
        about_statistics(paper, study, BASE, BASE, table.num_compared),
        [(CURVES, "Held-out J by step")],
    )
    write_page(page, PAGE, HTML)
    write_text(TABLE, csv_text(table.rows, list(table.rows[0])))
    write_text(SEEDS, csv_text(seed_rows(runs), SEED_COLUMNS))
    write_json(METRICS, metrics_of(table, baselines))
    return table


def _reasons(study: GridStudy, layout: Layout, names: list[str]) -> dict[str, str]:
    """Why a row has no result: its first run failed or exceeds the budget. names: all runs in their order."""
    runs, reasons = study.budget.runs, {}
    for row in study.rows:
        first = seeded_name(row, study.seeds[0])
        failed = failure_path(layout, first)
        if names.index(first) >= runs:
            reasons[row] = f"beyond the budget of {runs} runs"
        elif failed.is_file():
            reasons[row] = f"failed: {failed.read_text().strip()}"
    return reasons


def _about_grid(study: GridStudy, configs: dict[str, Config]) -> list[str]:
    """Notes on the grid and the budget."""
    budget = study.budget
    return [
        "Every row changes one parameter of our base by the same factor as the paper changes its own (`lambda` is "
        "`loss.weight`, `gamma_d` and `gamma_r` are `loss.sigma_xy` and `loss.sigma_rgb`). Our base has values for our "
        "data and network.",
        f"Budget: {min(budget.runs, len(configs))} of {len(configs)} runs, each with {100 * budget.share:g} % of the "
        "clips given above.",
    ]


if __name__ == "__main__":
    run_stage(main)
