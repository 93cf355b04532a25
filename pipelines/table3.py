"""Stage `table` of studies/table3: Table III's rows over several seeds, beside the paper's values.

Runs in that folder. A row or a seed without a result is said to be not run, so that a table can be made at any time.
"""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from pipelines import tracking
from pipelines.judged import METHODS
from pipelines.params import Layout, read_params, write_json
from pipelines.records import Records
from pipelines.stage import no_arguments, run_stage
from pipelines.study import SCORES, Run, Runs, Study, curves, read_answers, read_runs, read_study
from ssvos.data.index import read_index, videos_of
from ssvos.files import write_text
from ssvos.metrics import statistics
from ssvos.metrics.tables import PaperTable, read_table
from ssvos.variants import Params

STUDY = Path("study.yaml")
PAGE, TABLE, CURVES, METRICS = (Path(name) for name in ("table3.md", "table3.csv", "curves.svg", "table3.json"))
BASELINE, MAIN = "pce", "full"
COLUMNS = ("row", "ideas", "paper_G", "JF_mean", "JF_sd", "J_mean", "J_sd", "F_mean", "F_sd", "JF_by_seed", "steps")
COLUMNS += ("best_epochs", "paper_difference", "difference", "standard_error", "verdict")


def main() -> None:
    no_arguments(__doc__)
    params = read_params()
    layout = Layout(params.base.data.name)
    tracking.connect()
    order = write_table(params, layout)
    metrics, files = tracking.numbers(json.loads(METRICS.read_text())), {"": [PAGE, TABLE, CURVES]}
    records = Records.read(params, layout)
    tracking.write(records.record("table", METRICS, "judged", params.base, metrics=metrics, files=files))
    print(f"{order}\n{PAGE.absolute()}")


def write_table(params: Params, layout: Layout) -> str:
    """Write the page, the CSV, the figure and the metrics; returns the verdict on the order of all rows."""
    paper = read_table("III")
    study = read_study(STUDY, paper)
    runs, answers = read_runs(study, params, layout), read_answers(layout)
    scores = {row: _by_seed(found) for row, found in runs.items()}
    floor = answers["grabcut_flow"]["JF"]
    order = statistics.order_verdict(scores, paper.column("G"), MAIN, floor)
    reason = statistics.below_grabcut_flow(scores[MAIN], MAIN, floor) if MAIN in scores else ""
    rows = [cells(row, paper, study, runs, reason) for row in paper.rows]
    about = {"params": params, "paper": paper, "study": study, "statistics": statistics, "methods": METHODS}
    about |= {"videos": videos_of(read_index(layout.index)), "rows": rows, "order": order, "answers": answers}
    write_text(PAGE, _rendered("table3.md.j2", about))
    write_text(CURVES, _rendered("curves.svg.j2", curves(runs, paper, BASELINE)))
    write_text(TABLE, _csv(rows))
    numbers = {one["row"]: {k: v for k, v in one.items() if isinstance(v, float) or k == "verdict"} for one in rows}
    write_json(METRICS, {"order": order, "rows": numbers, "answers_without_training": answers})
    return order


def cells(row: str, paper: PaperTable, study: Study, runs: Runs, no_verdict: str) -> dict[str, object]:
    """A line of the table by COLUMNS, scores in percent; words where there is no number. no_verdict: why the table bears
    none, if it does not."""
    published, found = paper.column("G"), runs.get(row, {})
    line = {"row": row, "ideas": " + ".join(paper.rows[row].ideas), "paper_G": published[row]}
    line["paper_difference"] = "baseline" if row == BASELINE else round(published[row] - published[BASELINE], 1)
    if not found:
        reason = study.not_run.get(row, "no result yet; `dvc repro` makes it")
        return dict.fromkeys(COLUMNS, "not run") | line | {"verdict": f"not run ({reason})"}
    for key in SCORES:
        mean, sd = statistics.mean_and_sd([run.scores[key] for run in found.values()])
        line |= {f"{key}_mean": mean, f"{key}_sd": _or("one seed", sd)}
    line["JF_by_seed"] = _each(study, {seed: f"{run.scores['JF']:.1f}" for seed, run in found.items()})
    line["steps"] = _each(study, {seed: str(run.steps) for seed, run in found.items()})
    line["best_epochs"] = _each(study, {seed: "{}+{}".format(*run.best_epochs) for seed, run in found.items()})
    if row == BASELINE:
        return line | dict.fromkeys(("difference", "standard_error", "verdict"), "baseline")
    against = statistics.paired_difference(_by_seed(found), _by_seed(runs.get(BASELINE, {})))
    line["difference"] = _or(f"no {BASELINE} of these seeds", against.mean)
    line["standard_error"] = _or("fewer than two seeds", against.standard_error)
    if no_verdict:
        return line | {"verdict": f"no verdict: {no_verdict}"}
    return line | {"verdict": statistics.verdict(against, published[row] - published[BASELINE])}


def _by_seed(found: Mapping[int, Run]) -> dict[int, float]:
    return {seed: run.scores["JF"] for seed, run in found.items()}


def _each(study: Study, texts: Mapping[int, str]) -> str:
    """A text for every seed in order, or one for all where they are the same."""
    shown = [texts.get(seed, "not run") for seed in study.seeds]
    return shown[0] if len(set(shown)) == 1 else " / ".join(shown)


def _or(word: str, number: float | None) -> float | str:
    return word if number is None else number


def _rendered(template: str, values: Mapping[str, object]) -> str:
    """A template of this study, or one of those that all studies share, in the folder above."""
    pages = Environment(
        loader=FileSystemLoader([".", ".."]),
        autoescape=select_autoescape(["svg.j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return pages.get_template(template).render(values)


def _csv(rows: list[dict[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


if __name__ == "__main__":
    run_stage(main)
