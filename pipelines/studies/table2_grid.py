"""Table II's rows as our own parameters: each changes one of them by the factor by which the paper changes its own.

Our data, network and length of training are others than the paper's, and so are the values that suit them.
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
# the table's symbols, as paper_tables.yaml has them
_KEYS = {
    "lr1": "train.stage1.learning_rate",
    "lr2": "train.stage2.learning_rate",
    "gamma_d": "loss.sigma_xy",
    "gamma_r": "loss.sigma_rgb",
    "lambda": "loss.weight",
    "beta": "loss.beta",
}


class Budget(FrozenConfig):
    """What a study may cost. runs: trainings, a row with a seed each; the first seed of every row comes first.
    share: of the clips, and of the warm-up and the ramp, that params.yaml gives a training."""

    runs: Annotated[int, Field(ge=1)]
    share: Annotated[float, Field(gt=0, le=1)] = 1.0


class SettingsStudy(Study):
    """study.yaml with a budget."""

    budget: Budget


def overrides(paper: PaperTable, row: str, config: Config) -> dict[str, float]:
    """What a row changes, by dotted key; nothing for the base."""
    base, ours = paper.rows[BASE].sets, flatten(config)
    # twelve digits: 0.1 x 0.8 is 0.08
    return {
        _KEYS[symbol]: float(f"{ours[_KEYS[symbol]] * printed / base[symbol]:.12g}")
        for symbol, printed in paper.rows[row].sets.items()
        if printed != base[symbol]
    }


def described(paper: PaperTable, row: str, config: Config) -> dict[str, str]:
    """What a row is, in words: the paper's values as printed, and ours; of the base all six."""
    ours = overrides(paper, row, config) if row != BASE else {key: flatten(config)[key] for key in _KEYS.values()}
    printed = paper.rows[row].sets
    return {
        "group": paper.rows[row].group or row,
        "paper_sets": ", ".join(f"{symbol} {value:g}" for symbol, value in printed.items()),
        "ours_sets": ", ".join(f"`{key}` {value:g}" for key, value in ours.items()),
    }


def setting(paper: PaperTable, study: SettingsStudy, row: str, seed: int, config: Config) -> Config:
    """All parameters of a row with a seed. ValueError where a changed one may not have its new value."""
    values = merge(config.model_dump(mode="json"), nested(overrides(paper, row, config)))
    values = merge(values, {"train": {"seed": seed}})
    for stage in ("stage1", "stage2"):
        values = merge(values, {"train": {stage: _shortened(values["train"][stage], study.budget.share)}})
    return parse(Config, values, f"{row} of Table II")


def settings(paper: PaperTable, study: SettingsStudy, config: Config) -> dict[str, Config]:
    """By the name of a run, in the order in which they are run."""
    return {
        seeded_name(row, seed): setting(paper, study, row, seed, config) for seed in study.seeds for row in study.rows
    }


def _shortened(stage: dict, share: float) -> dict[str, int]:
    batch = stage["batch_clips"]
    clips = batch * max(1, round(share * stage["clips_per_epoch"] / batch))
    return {"clips_per_epoch": clips} | {key: round(share * stage[key]) for key in ("warmup_steps", "ramp_steps")}


def result_path(layout: Layout, name: str) -> Path:
    """Of a run that has been judged; objects.csv stands beside it."""
    return layout.run(name, "judged") / "val.json"


def failure_path(layout: Layout, name: str) -> Path:
    """Where a run that failed says why, in a line."""
    return layout.run(name, "failed.txt")
