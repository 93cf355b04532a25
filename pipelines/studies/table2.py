"""Stage `table` of studies/table2: Table II's settings over several seeds, beside the paper's values.

Runs in that folder. A row or a seed without a result is said to be not run, so that a table can be made at any time.
"""

import json
from pathlib import Path

from pipelines.params import Layout, read_params, write_json
from pipelines.stage import no_arguments, run_stage
from pipelines.studies.study import STUDY, curves, read_answers, read_runs, read_study
from pipelines.studies.study_page import (
    Page,
    about_runs,
    about_statistics,
    answer_grid,
    rendered,
    score_grid,
    write_page,
)
from pipelines.studies.study_table import SEED_COLUMNS, StudyTable, csv_text, metrics_of, seed_lines, study_table
from pipelines.studies.table2_grid import BASE, SettingsStudy, described, failure_path, result_path, settings
from pipelines.tracking import mlflow_client as tracking
from pipelines.tracking.record import numbers
from pipelines.tracking.stage_records import Records
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
    records, tables = Records.read(params, layout), {"rows.json": table.lines}
    tracking.write(records.record("table", METRICS, "judged", params.base, metrics=metrics, tables=tables, files=files))
    print(f"{table.order}\n{PAGE.absolute()}")


def write_table(params: Params, layout: Layout) -> StudyTable:
    """Write the page in all its formats, the curves and the metrics."""
    paper = read_table("II")
    study = read_study(STUDY, paper, SettingsStudy)
    configs = settings(paper, study, params.base)
    runs = read_runs(study, configs.__getitem__, layout, lambda name: result_path(layout, name))
    answers = read_answers(layout)
    about = {row: described(paper, row, params.base) for row in paper.rows}
    table = study_table(
        paper, study, runs, answers["grabcut_flow"]["JF"], BASE, BASE, about, _reasons(study, layout, list(configs))
    )
    write_text(CURVES, rendered("curves.svg.j2", curves(runs, paper, BASE)))
    page = Page(
        "Table II of the paper, and ours",
        f"Order of all rows: {table.order}.",
        about_runs(params.base, paper, study, videos_of(read_index(layout.index))) + _about_settings(study, configs),
        [score_grid(table, BASE, _ABOUT), answer_grid(answers)],
        about_statistics(paper, study, BASE, BASE, table.num_compared),
        [(CURVES, "Held-out J by step")],
    )
    write_page(page, PAGE, HTML)
    write_text(TABLE, csv_text(table.lines, list(table.lines[0])))
    write_text(SEEDS, csv_text(seed_lines(runs), SEED_COLUMNS))
    write_json(METRICS, metrics_of(table, answers))
    return table


def _reasons(study: SettingsStudy, layout: Layout, names: list[str]) -> dict[str, str]:
    """Why a row has no result, where its runs failed or were beyond the budget."""
    runs, reasons = study.budget.runs, {}
    for row in study.rows:
        first = seeded_name(row, study.seeds[0])
        failed = failure_path(layout, first)
        if names.index(first) >= runs:
            reasons[row] = f"beyond the budget of {runs} runs"
        elif failed.is_file():
            reasons[row] = f"failed: {failed.read_text().strip()}"
    return reasons


def _about_settings(study: SettingsStudy, configs: dict) -> list[str]:
    budget = study.budget
    return [
        "Every row changes one parameter of the base by the factor by which the paper changes its own (`lambda` is "
        "`loss.weight`, `gamma_d` and `gamma_r` are `loss.sigma_xy` and `loss.sigma_rgb`). Our base suits our sizes.",
        f"Budget: {min(budget.runs, len(configs))} of {len(configs)} runs, each with {100 * budget.share:g} % of the "
        "clips named above.",
    ]


if __name__ == "__main__":
    run_stage(main)
