"""The results of a study's runs, by row and seed, for the stages that write its table and figures."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from pydantic import Field

from pipelines.evaluation_set import METHODS
from pipelines.params import Layout
from pipelines.reporting.chart_elements import linear_axis
from ssvos.config import Config, FrozenConfig, parse, read_yaml
from ssvos.config.variants import seeded_name
from ssvos.metrics.comparison import Scores
from ssvos.metrics.tables import PaperTable

STUDY = Path("study.yaml")
SCORES = {"JF": "J&F-Mean", "J": "J-Mean", "F": "F-Mean"}


class Study(FrozenConfig):
    """study.yaml.

    seeds:   every row runs with each of them
    rows:    the rows of the paper's table that run
    not_run: the other rows, each with the reason
    """

    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]
    rows: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    not_run: dict[str, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One seed of a row.

    scores: benchmark scores by the keys of SCORES, percent
    videos: J&F of each evaluation video, percent
    stages: of each stage, (step, held-out J in percent) by epoch
    """

    scores: Mapping[str, float]
    videos: Mapping[str, float]
    stages: tuple[list[tuple[int, float]], ...]

    @property
    def steps(self) -> int:
        """Training steps of both stages together."""
        return self.stages[-1][-1][0]

    @property
    def best_epochs(self) -> tuple[int, ...]:
        """The saved epoch of each stage, counted from 1: the first of equally good ones."""
        return tuple(1 + max(range(len(points)), key=lambda k: points[k][1]) for points in self.stages)


StudyType = TypeVar("StudyType", bound=Study)
Runs = Mapping[str, Mapping[int, Run]]  # by row and seed; runs without a result are absent


def read_study(path: Path, paper: PaperTable, study_type: type[StudyType] = Study) -> StudyType:
    """Read a study.yaml. Raises ValueError unless it lists every row of the paper's table exactly once."""
    study = parse(study_type, read_yaml(path), path)
    named = [*study.rows, *study.not_run]
    for row in dict.fromkeys((*paper.rows, *named)):
        if row not in paper.rows:
            raise ValueError(f"{path}: {row}: not a row of the table; choose one of {', '.join(paper.rows)}")
        if named.count(row) != 1:
            raise ValueError(
                f"{path}: {row}: missing or listed twice; list it once, in rows or, with a reason, in not_run"
            )
    return study


def read_runs(
    study: Study, config_of: Callable[[str], Config], layout: Layout, result_path: Callable[[str], Path]
) -> Runs:
    """Read all runs that have a result.

    config_of:   parameters of a run by its name
    result_path: path of a run's val.json; its objects.csv is in the same folder

    Raises FileNotFoundError or ValueError for a run whose result is incomplete.
    """
    runs: dict[str, dict[int, Run]] = {}
    for row in study.rows:
        for seed in study.seeds:
            name = seeded_name(row, seed)
            path = result_path(name)
            if path.is_file():
                scores = percent_scores(_read(path).get("scores"), path)
                videos = video_scores(path.with_name("objects.csv"))
                runs.setdefault(row, {})[seed] = Run(scores, videos, _held_out(config_of(name), layout, name))
    return runs


def scores_by_seed_and_video(runs: Mapping[int, Run]) -> Scores:
    """The scores by which rows are compared: J&F of every evaluation video with every seed. runs: of one row."""
    return {(seed, video): score for seed, run in runs.items() for video, score in run.videos.items()}


def read_baselines(layout: Layout) -> dict[str, dict[str, float]]:
    """Read the scores of the baselines without training, percent, by the keys of SCORES."""
    baselines = _read(layout.baselines)
    return {name: percent_scores(scores, layout.baselines) for name, scores in baselines.items()}


def best_baseline(baselines: Mapping[str, Mapping[str, float]]) -> tuple[str, float]:
    """Title and J&F of the best baseline that segments without training."""
    titles = {name: method.title for name, method in METHODS.items() if method.is_competitor}
    best = max((name for name in baselines if name in titles), key=lambda name: baselines[name]["JF"])
    title = "GrabCut + flow" if best == "grabcut_flow" else titles[best]
    return title, baselines[best]["JF"]


def percent_scores(scores: Mapping[str, dict], path: Path) -> dict[str, float]:
    """The DAVIS-2017 scores of a study's single source, percent.

    scores: by source
    path:   their file, for the error message

    Raises ValueError for several sources or scores of another benchmark.
    """
    try:
        (one,) = scores.values()
        return {key: 100 * one["global"][name] for key, name in SCORES.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected DAVIS-2017 scores of one source; correct data.sources and run `dvc repro`"
        ) from error


def video_scores(path: Path) -> dict[str, float]:
    """J&F of each evaluation video in percent, from an objects.csv: the mean of (J + F) / 2 over its objects."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `dvc repro` makes it")
    by_video: dict[str, list[float]] = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            try:
                score = 50 * (float(row["J.mean"]) + float(row["F.mean"]))
                by_video.setdefault(row["object"].rpartition("_")[0], []).append(score)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{path}: a row has no number in J.mean or F.mean; delete the file and run `dvc repro`"
                ) from error
    return {video: float(np.mean(values)) for video, values in by_video.items()}


def mean_and_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1) of at least one value. The deviation of a single value is None."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def _read(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `dvc repro` makes it")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); `dvc repro` makes it again") from error


def _held_out(config: Config, layout: Layout, name: str) -> tuple[list[tuple[int, float]], ...]:
    """(step, held-out J in percent) by epoch, of each stage of a run."""
    train, step, stages = config.train, 0, []
    for stage, stage_config in (("stage1", train.stage1), ("stage2", train.stage2)):
        steps_per_epoch = stage_config.clips_per_epoch // stage_config.batch_clips
        with open(layout.run(name, stage) / "history.csv", newline="") as file:
            scores = [100 * float(row["holdout_score"]) for row in csv.DictReader(file)]
        stages.append([(step + steps_per_epoch * (k + 1), score) for k, score in enumerate(scores)])
        step = stages[-1][-1][0]
    return tuple(stages)


def curve_panels(runs: Runs, paper: PaperTable, baseline: str) -> dict[str, object]:
    """The variables of studies/curves.svg.j2.

    It draws one panel a row: (step, mean, lowest, highest) over seeds, stage by stage.
    """
    panels = {}
    for row in paper.rows:
        by_stage = zip(*(run.stages for run in runs.get(row, {}).values()), strict=True)
        panels[row] = [_points(seeds) for seeds in by_stage]
    points = [point for stages in panels.values() for points in stages for point in points] or [(1, 0, 0, 1)]
    x = linear_axis([0, *(point[0] for point in points)], num=3)
    y = linear_axis([0, *(value for point in points for value in point[1:])], num=4)
    return {"panels": panels, "baseline": baseline, "x": x, "y": y}


def _points(seeds: tuple[list[tuple[int, float]], ...]) -> list[tuple[float, ...]]:
    """(step, mean, lowest, highest) of one stage. seeds: (step, score) by epoch of each seed."""
    bands = band([[score for _, score in points] for points in seeds])
    return [(step, *one) for (step, _), one in zip(seeds[0], bands, strict=False)]


def band(curves: Sequence[Sequence[float]]) -> list[tuple[float, float, float]]:
    """(mean, lowest, highest) over curves at each point of the shortest curve."""
    return [(float(np.mean(values)), min(values), max(values)) for values in zip(*curves, strict=False)]
