"""The lines of a study's table: our scores by row beside the paper's G, what they differ by, and a verdict for each."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.studies.study import SCORES, Run, Runs, Study, mean_and_sd, scores_of
from ssvos.config.variants import seeded_name
from ssvos.metrics.comparison import mean_and_interval
from ssvos.metrics.families import FamilyVerdict, below_grabcut_flow, compare_to_baseline, order_verdict
from ssvos.metrics.tables import PaperTable

Line = dict[str, object]
SEED_COLUMNS = ("run", "row", "seed", *SCORES)
NOT_RUN, BASELINE, NONE = "not run", "baseline", "none"
_OURS = ("JF_mean", "JF_sd", "J_mean", "J_sd", "F_mean", "F_sd", "videos_mean", "videos_low", "videos_high")
_TRAINING = ("JF_by_seed", "steps", "best_epochs")
_DIFFERENCE = ("difference", "difference_low", "difference_high", "p", "p_holm", "effect_size")


@dataclass(frozen=True)
class StudyTable:
    """Lines in the paper's order, no cell of them blank: words where there is no number. order: the verdict on all
    rows together; num_compared: how many rows were compared with the baseline."""

    lines: list[Line]
    order: str
    num_compared: int


def study_table(
    paper: PaperTable,
    study: Study,
    runs: Runs,
    grabcut_flow: float,
    baseline: str,
    main: str,
    about: Mapping[str, Line],
    not_run: Mapping[str, str],
) -> StudyTable:
    """about: what a row is, by column; not_run: why a row is not, other than study.yaml says.

    Where the main row is not above GrabCut + flow, no row has a verdict.
    """
    scores, published = {row: scores_of(found) for row, found in runs.items()}, paper.column("G")
    reason = ""
    if main in runs:
        JF_mean, _ = mean_and_sd([run.scores["JF"] for run in runs[main].values()])
        reason = below_grabcut_flow(JF_mean, main, grabcut_flow)
    family = compare_to_baseline(baseline, scores, published) if baseline in runs else {}
    lines = []
    for row in paper.rows:
        line = {"row": row} | about[row] | {"paper_G": published[row]}
        line["paper_difference"] = BASELINE if row == baseline else round(published[row] - published[baseline], 1)
        if row not in runs:
            why = study.not_run.get(row) or not_run.get(row, "no result yet; `dvc repro` makes it")
            lines.append(line | dict.fromkeys((*_OURS, *_TRAINING, *_DIFFERENCE), NOT_RUN))
            lines[-1]["verdict"] = f"{NOT_RUN} ({why})"
            continue
        line |= _ours(study, runs[row])
        if row == baseline:
            line |= dict.fromkeys((*_DIFFERENCE, "verdict"), BASELINE)
        elif row in family:
            line |= _difference(family[row], reason, f"no {baseline} of these seeds")
        else:
            line |= dict.fromkeys(_DIFFERENCE, f"no {baseline}")
            line["verdict"] = f"no verdict: {reason or f'{baseline} was not run'}"
        lines.append(line)
    return StudyTable(lines, order_verdict(scores, published, main, reason), len(family))


def _ours(study: Study, found: Mapping[int, Run]) -> Line:
    line: Line = {}
    for key in SCORES:
        mean, sd = mean_and_sd([run.scores[key] for run in found.values()])
        line |= {f"{key}_mean": mean, f"{key}_sd": _or("one seed", sd)}
    mean, _, interval = mean_and_interval(scores_of(found))
    low, high = interval or (NONE, NONE)
    line |= {"videos_mean": mean, "videos_low": low, "videos_high": high}
    line["JF_by_seed"] = _each(study, {seed: f"{run.scores['JF']:.1f}" for seed, run in found.items()})
    line["steps"] = _each(study, {seed: str(run.steps) for seed, run in found.items()})
    line["best_epochs"] = _each(study, {seed: "{}+{}".format(*run.best_epochs) for seed, run in found.items()})
    return line


def _difference(judged: FamilyVerdict, no_verdict: str, no_pair: str) -> Line:
    """no_verdict: why the whole table bears none, if it does not; no_pair: what stands where it has no pair."""
    one = judged.comparison
    low, high = one.interval or (NONE, NONE)
    return {
        "difference": _or(no_pair, one.mean),
        "difference_low": low,
        "difference_high": high,
        "p": _or(NONE, one.p),
        "p_holm": _or(NONE, judged.adjusted_p),
        "effect_size": _or(NONE, one.effect_size),
        "verdict": f"no verdict: {no_verdict}" if no_verdict else judged.verdict,
    }


def _each(study: Study, texts: Mapping[int, str]) -> str:
    """A text for every seed in order, or one for all where they are the same."""
    shown = [texts.get(seed, NOT_RUN) for seed in study.seeds]
    return shown[0] if len(set(shown)) == 1 else " / ".join(shown)


def _or(word: str, number: float | None) -> float | str:
    return word if number is None else number


def seed_lines(runs: Runs) -> list[Line]:
    """A line a row and seed, the numbers alone: what `dvc plots` draws."""
    return [
        {"run": seeded_name(row, seed), "row": row, "seed": seed} | run.scores
        for row, found in runs.items()
        for seed, run in found.items()
    ]


def metrics_of(table: StudyTable, answers: Mapping[str, Mapping[str, float]]) -> dict:
    """What `dvc metrics show` and MLflow read: every number of the table."""
    numbers = {
        line["row"]: {key: value for key, value in line.items() if isinstance(value, float) or key == "verdict"}
        for line in table.lines
    }
    return {"order": table.order, "rows": numbers, "answers_without_training": answers}


def csv_text(lines: Sequence[Line], columns: Sequence[str]) -> str:
    """Lines as CSV, with a head even where there is no line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
