"""The grid points of Table II as our parameters. Each row changes one parameter by the same factor as the paper does.

The values differ from the paper's because our data, network and length of training differ.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipelines.params import Layout, flatten, nested
from pipelines.studies.study import Study
from ssvos.config import Config, FrozenConfig, parse
from ssvos.config.variants import merge, seeded_name
from ssvos.metrics.tables import PaperTable

BASE = "base"
# our parameter of each symbol in paper_tables.yaml
_KEYS = {
    "lr1": "train.stage1.learning_rate",
    "lr2": "train.stage2.learning_rate",
    "gamma_d": "loss.sigma_xy",
    "gamma_r": "loss.sigma_rgb",
    "lambda": "loss.weight",
    "beta": "loss.beta",
}


class Budget(FrozenConfig):
    """The size of a study.

    runs:  number of trainings, one for each row and seed; the first seed of all rows comes before the second
    share: fraction of the clips, the warm-up and the ramp of params.yaml that a training uses
    """

    runs: Annotated[int, Field(ge=1)]
    share: Annotated[float, Field(gt=0, le=1)] = 1.0


class GridStudy(Study):
    """study.yaml with a budget."""

    budget: Budget


def overrides(paper: PaperTable, row: str, config: Config) -> dict[str, float]:
    """The parameters that a row changes, by dotted key; none for the base. config: our base."""
    base, ours = paper.rows[BASE].sets, flatten(config)
    # twelve digits, so that 0.1 x 0.8 is 0.08
    return {
        _KEYS[symbol]: float(f"{ours[_KEYS[symbol]] * printed / base[symbol]:.12g}")
        for symbol, printed in paper.rows[row].sets.items()
        if printed != base[symbol]
    }


def row_description(paper: PaperTable, row: str, config: Config) -> dict[str, str]:
    """A row's changed values in words, the paper's as printed and ours; for the base all six values."""
    ours = overrides(paper, row, config) if row != BASE else {key: flatten(config)[key] for key in _KEYS.values()}
    printed = paper.rows[row].sets
    return {
        "group": paper.rows[row].group or row,
        "paper_sets": ", ".join(f"{symbol} {value:g}" for symbol, value in printed.items()),
        "ours_sets": ", ".join(f"`{key}` {value:g}" for key, value in ours.items()),
    }


def grid_config(paper: PaperTable, study: GridStudy, row: str, seed: int, config: Config) -> Config:
    """All parameters of a row with a seed. Raises ValueError if a changed value is outside its parameter's range."""
    values = merge(config.model_dump(mode="json"), nested(overrides(paper, row, config)))
    values = merge(values, {"train": {"seed": seed}})
    for stage in ("stage1", "stage2"):
        values = merge(values, {"train": {stage: _shortened(values["train"][stage], study.budget.share)}})
    return parse(Config, values, f"{row} of Table II")


def grid_configs(paper: PaperTable, study: GridStudy, config: Config) -> dict[str, Config]:
    """The parameters of all runs by name, in the order in which they run."""
    return {
        seeded_name(row, seed): grid_config(paper, study, row, seed, config)
        for seed in study.seeds
        for row in study.rows
    }


def _shortened(stage: dict, share: float) -> dict[str, int]:
    batch = stage["batch_clips"]
    clips = batch * max(1, round(share * stage["clips_per_epoch"] / batch))
    return {"clips_per_epoch": clips} | {key: round(share * stage[key]) for key in ("warmup_steps", "ramp_steps")}


def result_path(layout: Layout, name: str) -> Path:
    """The result of an evaluated run; its objects.csv is in the same folder."""
    return layout.run(name, "evaluation") / "val.json"


def failure_path(layout: Layout, name: str) -> Path:
    """The file with the error of a failed run, in one line."""
    return layout.run(name, "failed.txt")
