"""The rows of a study's table: our scores next to the paper's G, the differences, and a verdict for each row."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.studies.study import SCORES, Run, Runs, Study, mean_and_sd, scores_by_seed_and_video
from ssvos.config.variants import seeded_name
from ssvos.metrics.comparison import mean_and_interval
from ssvos.metrics.families import FamilyVerdict, below_baseline, compare_to_baseline, order_verdict
from ssvos.metrics.tables import PaperTable

TableRow = dict[str, object]  # by column
SEED_COLUMNS = ("run", "row", "seed", *SCORES)
NOT_RUN, BASELINE, NONE = "not run", "baseline", "none"
_SCORE_COLUMNS = ("JF_mean", "JF_sd", "J_mean", "J_sd", "F_mean", "F_sd", "videos_mean", "videos_low", "videos_high")
_TRAINING_COLUMNS = ("JF_by_seed", "steps", "best_epochs")
_DIFFERENCE_COLUMNS = ("difference", "difference_low", "difference_high", "p", "p_holm", "effect_size")


@dataclass(frozen=True)
class StudyTable:
    """A study's table.

    rows:         in the paper's order; no cell is blank, a cell without a number has words
    order:        the verdict on the order of all rows
    num_compared: number of rows compared with the baseline
    """

    rows: list[TableRow]
    order: str
    num_compared: int


def study_table(
    paper: PaperTable,
    study: Study,
    runs: Runs,
    untrained: tuple[str, float],
    baseline: str,
    main: str,
    about: Mapping[str, TableRow],
    not_run: Mapping[str, str],
) -> StudyTable:
    """Build the table. No row has a verdict unless the main row scores above the best baseline without training.

    untrained:    that baseline and its J&F, percent
    baseline:     the row that all others are compared with
    main:         the row compared with that baseline
    about:        by row, the columns that describe it
    not_run:      by row, why it did not run, in addition to study.yaml
    """
    scores, published = {row: scores_by_seed_and_video(own) for row, own in runs.items()}, paper.column("G")
    reason = ""
    if main in runs:
        JF_mean, _ = mean_and_sd([run.scores["JF"] for run in runs[main].values()])
        reason = below_baseline(JF_mean, main, *untrained)
    family = compare_to_baseline(baseline, scores, published) if baseline in runs else {}
    rows = []
    for name in paper.rows:
        row = {"row": name} | about[name] | {"paper_G": published[name]}
        row["paper_difference"] = BASELINE if name == baseline else round(published[name] - published[baseline], 1)
        if name not in runs:
            why = study.not_run.get(name) or not_run.get(name, "no result yet; `dvc repro` makes it")
            rows.append(row | dict.fromkeys((*_SCORE_COLUMNS, *_TRAINING_COLUMNS, *_DIFFERENCE_COLUMNS), NOT_RUN))
            rows[-1]["verdict"] = f"{NOT_RUN} ({why})"
            continue
        row |= _score_cells(study, runs[name])
        if name == baseline:
            row |= dict.fromkeys((*_DIFFERENCE_COLUMNS, "verdict"), BASELINE)
        elif name in family:
            row |= _difference_cells(family[name], reason, f"no {baseline} of these seeds")
        else:
            row |= dict.fromkeys(_DIFFERENCE_COLUMNS, f"no {baseline}")
            row["verdict"] = f"no verdict: {reason or f'{baseline} was not run'}"
        rows.append(row)
    return StudyTable(rows, order_verdict(scores, published, main, reason), len(family))


def _score_cells(study: Study, runs: Mapping[int, Run]) -> TableRow:
    """Scores and training of a row. runs: by seed."""
    cells: TableRow = {}
    for key in SCORES:
        mean, sd = mean_and_sd([run.scores[key] for run in runs.values()])
        cells |= {f"{key}_mean": mean, f"{key}_sd": _or("one seed", sd)}
    mean, _, interval = mean_and_interval(scores_by_seed_and_video(runs))
    low, high = interval or (NONE, NONE)
    cells |= {"videos_mean": mean, "videos_low": low, "videos_high": high}
    cells["JF_by_seed"] = _by_seed(study, {seed: f"{run.scores['JF']:.1f}" for seed, run in runs.items()})
    cells["steps"] = _by_seed(study, {seed: str(run.steps) for seed, run in runs.items()})
    cells["best_epochs"] = _by_seed(study, {seed: "{}+{}".format(*run.best_epochs) for seed, run in runs.items()})
    return cells


def _difference_cells(family: FamilyVerdict, no_verdict: str, no_pair: str) -> TableRow:
    """A row compared with the baseline.

    no_verdict: why no row of the table has a verdict; "" if rows have one
    no_pair:    the text of a row that has no seed in common with the baseline
    """
    one = family.comparison
    low, high = one.interval or (NONE, NONE)
    return {
        "difference": _or(no_pair, one.mean),
        "difference_low": low,
        "difference_high": high,
        "p": _or(NONE, one.p),
        "p_holm": _or(NONE, family.adjusted_p),
        "effect_size": _or(NONE, one.effect_size),
        "verdict": f"no verdict: {no_verdict}" if no_verdict else family.verdict,
    }


def _by_seed(study: Study, texts: Mapping[int, str]) -> str:
    """The texts of all seeds in order; a single one if they are equal."""
    ordered = [texts.get(seed, NOT_RUN) for seed in study.seeds]
    return ordered[0] if len(set(ordered)) == 1 else " / ".join(ordered)


def _or(word: str, number: float | None) -> float | str:
    return word if number is None else number


def seed_rows(runs: Runs) -> list[TableRow]:
    """The scores of every row and seed, for `dvc plots`."""
    return [
        {"run": seeded_name(row, seed), "row": row, "seed": seed} | run.scores
        for row, own in runs.items()
        for seed, run in own.items()
    ]


def metrics_of(table: StudyTable, baselines: Mapping[str, Mapping[str, float]]) -> dict:
    """All numbers of the table, for `dvc metrics show` and MLflow."""
    numbers = {
        row["row"]: {key: value for key, value in row.items() if isinstance(value, float) or key == "verdict"}
        for row in table.rows
    }
    return {"order": table.order, "rows": numbers, "baselines": baselines}


def csv_text(rows: Sequence[TableRow], columns: Sequence[str]) -> str:
    """Rows as CSV, with a head even if there is no row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
