"""Parameters of the search (Table II)."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ssvos.config.base import Count, FrozenConfig, Positive


class RangeConfig(FrozenConfig):
    """The values of a searched parameter: the range from `low` to `high`, or a list of `choices`.

    low: smallest value, included
    high: largest value, included
    log: draw uniformly in the logarithm of the value
    num: number of points that a grid takes from the range, both ends included; 0: none
    choices: values to choose from, instead of a range
    """

    low: float | None = None
    high: float | None = None
    log: bool = True
    num: Annotated[int, Field(ge=0)] = 0
    choices: Annotated[tuple[bool | int | float | str, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _check(self) -> "RangeConfig":
        if self.choices:
            if self.low is not None or self.high is not None or self.num:
                raise ValueError("has both choices and a range; give only one of them")
            if len(set(self.choices)) < max(2, len(self.choices)):
                raise ValueError("has fewer than two choices, or repeats one; give different choices")
            return self
        if self.low is None or self.high is None:
            raise ValueError("has no range; give low and high, or choices")
        if not self.low < self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}; correct one of them")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low} must be above 0 if log is true; raise it, or set log to false")
        if self.num == 1:
            raise ValueError("num 1 is not a grid; give at least 2")
        return self


class ResourcesConfig(FrozenConfig):
    """Resources of a trial, or of each of its workers.

    cpus: number of CPUs
    gpus: number of GPUs; below 1, several trials share one GPU
    """

    cpus: Positive = 1.0
    gpus: Annotated[float, Field(ge=0.0)] = 0.0

    @model_validator(mode="after")
    def _check(self) -> "ResourcesConfig":
        if self.gpus > 1 and self.gpus % 1:
            raise ValueError(f"gpus {self.gpus} is above 1 and not a whole number; round it")
        return self


def _table2_space() -> dict[str, RangeConfig]:
    return {
        "train.stage1.learning_rate": RangeConfig(low=1e-5, high=1e-3),
        "train.stage2.learning_rate": RangeConfig(low=1e-6, high=1e-4),
        "loss.sigma_xy": RangeConfig(low=25.0, high=200.0),
        "loss.sigma_rgb": RangeConfig(low=5.0, high=45.0),
        "loss.weight": RangeConfig(low=0.01, high=10.0),
        "loss.beta": RangeConfig(low=0.01, high=3.0),
    }


class TuneConfig(FrozenConfig):
    """The search (Table II) over the parameters in `space`. The first trial has the present values.

    variant: the variant whose parameters are searched
    searcher: `tpe` (Optuna), `random`, `grid` (all combinations, at most `trials`), or `pbt` (population-based)
    scheduler: `asha` stops weak trials early; `pbt` ignores it
    trials: number of trials; with `pbt`, the size of the population
    time_budget_s: time limit of the whole search, seconds; 0: no limit
    seed: seed of the searcher
    grace_period: epochs, over both stages, before `asha` may stop a trial
    reduction_factor: at each rung `asha` continues 1 in reduction_factor trials
    perturbation_interval: epochs between two exploitation steps of `pbt`
    workers: DDP workers of a trial; 0: a single process
    resources: CPUs and GPUs of a trial, or of each of its workers; empty: one GPU if the machine has one, else one CPU
    trial: overrides that make a trial cheaper, in the form of an entry of `variants`
    space: dotted parameter names and their ranges
    """

    renamed: ClassVar[dict[str, str]] = {
        "algorithm": "searcher",
        "seconds": "time_budget_s",
        "grace": "grace_period",
        "reduction": "reduction_factor",
        "perturb": "perturbation_interval",
    }

    variant: str = "ours"
    searcher: Literal["tpe", "random", "grid", "pbt"] = "tpe"
    scheduler: Literal["asha", "none"] = "asha"
    trials: Count = 16
    time_budget_s: Annotated[float, Field(ge=0.0)] = 0.0
    seed: int = 0
    grace_period: Count = 2
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    perturbation_interval: Count = 1
    workers: Annotated[int, Field(ge=0)] = 0
    resources: ResourcesConfig | None = None
    trial: dict[str, Any] = Field(default_factory=dict)
    space: dict[str, RangeConfig] = Field(default_factory=_table2_space)
