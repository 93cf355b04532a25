"""What a study's runs left, by row and seed, for the stages that make its table and figures."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from pydantic import Field

from pipelines.params import Layout
from ssvos.config import Config, FrozenConfig, parse, read_yaml
from ssvos.config.variants import seeded_name
from ssvos.metrics.comparison import Scores
from ssvos.metrics.tables import PaperTable
from ssvos.visualization import linear_axis

STUDY = Path("study.yaml")
SCORES = {"JF": "J&F-Mean", "J": "J-Mean", "F": "F-Mean"}


class Study(FrozenConfig):
    """study.yaml: which rows of the table run, with which seeds; not_run: the others, each with the reason."""

    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]
    rows: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    not_run: dict[str, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One seed of a row. scores: of the benchmark, percent, by the keys of SCORES; videos: J&F of each judged video,
    percent; stages: (step, held-out J in percent) by epoch."""

    scores: Mapping[str, float]
    videos: Mapping[str, float]
    stages: tuple[list[tuple[int, float]], ...]

    @property
    def steps(self) -> int:
        """Of both stages together."""
        return self.stages[-1][-1][0]

    @property
    def best_epochs(self) -> tuple[int, ...]:
        """Of each stage, counted from 1: the first of equal scores, as training keeps it."""
        return tuple(1 + max(range(len(points)), key=lambda k: points[k][1]) for points in self.stages)


Kind = TypeVar("Kind", bound=Study)
Runs = Mapping[str, Mapping[int, Run]]  # by row and seed; what has no result is not there


def read_study(path: Path, paper: PaperTable, kind: type[Kind] = Study) -> Kind:
    """A study's file; every row of the paper's table must be named in it, once."""
    study = parse(kind, read_yaml(path), path)
    named = [*study.rows, *study.not_run]
    for row in dict.fromkeys((*paper.rows, *named)):
        if row not in paper.rows:
            raise ValueError(f"{path}: {row}: no row of the table; choose of {', '.join(paper.rows)}")
        if named.count(row) != 1:
            raise ValueError(f"{path}: {row}: name it once, in rows, or in not_run with the reason")
    return study


def read_runs(study: Study, config_of: Callable[[str], Config], layout: Layout, results: Callable[[str], Path]) -> Runs:
    """All runs that have a result. results: where val.json of a row with a seed lies; objects.csv stands beside it."""
    runs: dict[str, dict[int, Run]] = {}
    for row in study.rows:
        for seed in study.seeds:
            name = seeded_name(row, seed)
            path = results(name)
            if path.is_file():
                scores = percent_scores(_read(path).get("scores"), path)
                videos = video_scores(path.with_name("objects.csv"))
                runs.setdefault(row, {})[seed] = Run(scores, videos, _held_out(config_of(name), layout, name))
    return runs


def scores_of(found: Mapping[int, Run]) -> Scores:
    """What a row's runs are compared by: J&F of every judged video with every seed."""
    return {(seed, video): score for seed, run in found.items() for video, score in run.videos.items()}


def read_answers(layout: Layout) -> dict[str, dict[str, float]]:
    """Scores of the answers without training, percent, by the keys of SCORES."""
    answers = _read(layout.baselines)
    return {name: percent_scores(scores, layout.baselines) for name, scores in answers.items()}


def percent_scores(scores: Mapping[str, dict], path: Path) -> dict[str, float]:
    """The DAVIS-2017 scores of the one source that a study judges; `path` is where they stand."""
    try:
        (one,) = scores.values()
        return {key: 100 * one["global"][name] for key, name in SCORES.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: no DAVIS-2017 scores of a single source; correct data.sources, `dvc repro`"
        ) from error


def video_scores(path: Path) -> dict[str, float]:
    """J&F of each judged video in percent: the mean over its objects of (J + F) / 2, from an `objects.csv`."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `dvc repro` makes it")
    gathered: dict[str, list[float]] = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            try:
                score = 50 * (float(row["J.mean"]) + float(row["F.mean"]))
                gathered.setdefault(row["object"].rpartition("_")[0], []).append(score)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}: no J.mean and F.mean of an object in each row; `dvc repro`") from error
    return {video: float(np.mean(values)) for video, values in gathered.items()}


def mean_and_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1) of at least one value; a single one has no deviation."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def _read(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `dvc repro` makes it")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); `dvc repro` makes it again") from error


def _held_out(config: Config, layout: Layout, name: str) -> tuple[list[tuple[int, float]], ...]:
    train, step, stages = config.train, 0, []
    for stage, config in (("stage1", train.stage1), ("stage2", train.stage2)):
        length = config.clips_per_epoch // config.batch_clips
        with open(layout.run(name, stage) / "history.csv", newline="") as file:
            scores = [100 * float(row["holdout_score"]) for row in csv.DictReader(file)]
        stages.append([(step + length * (k + 1), score) for k, score in enumerate(scores)])
        step = stages[-1][-1][0]
    return tuple(stages)


def curves(runs: Runs, paper: PaperTable, baseline: str) -> dict[str, object]:
    """What studies/curves.svg.j2 draws: a panel a row, of (step, mean, lowest, highest) over seeds, stage by stage."""
    panels = {}
    for row in paper.rows:
        by_stage = zip(*(run.stages for run in runs.get(row, {}).values()), strict=True)
        panels[row] = [_points(of_seeds) for of_seeds in by_stage]
    points = [point for stages in panels.values() for points in stages for point in points] or [(1, 0, 0, 1)]
    x = linear_axis([0, *(point[0] for point in points)], num=3)
    y = linear_axis([0, *(value for point in points for value in point[1:])], num=4)
    return {"panels": panels, "baseline": baseline, "x": x, "y": y}


def _points(of_seeds: tuple[list[tuple[int, float]], ...]) -> list[tuple[float, ...]]:
    bands = band([[score for _, score in points] for points in of_seeds])
    return [(step, *one) for (step, _), one in zip(of_seeds[0], bands, strict=False)]


def band(curves: Sequence[Sequence[float]]) -> list[tuple[float, float, float]]:
    """(mean, lowest, highest) over curves at each of their points, as far as the shortest goes."""
    return [(float(np.mean(values)), min(values), max(values)) for values in zip(*curves, strict=False)]
