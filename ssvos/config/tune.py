"""Parameters of the search (Table II)."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ssvos.config.base import Count, FrozenConfig, Positive


class RangeConfig(FrozenConfig):
    """Where a searched parameter may lie: from `low` to `high`, both included, or one of `choices`.

    log: drawn evenly over its logarithm. num: points of the range that a grid takes, both ends among them; 0: none.
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
                raise ValueError("has choices and a range; give one of them")
            if len(set(self.choices)) < max(2, len(self.choices)):
                raise ValueError("has fewer than two different choices, or one twice; correct them")
            return self
        if self.low is None or self.high is None:
            raise ValueError("has no range; give low and high, or choices")
        if not self.low < self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low} must be above 0 where log is true")
        if self.num == 1:
            raise ValueError("num 1 is no grid; give at least 2")
        return self


class ResourcesConfig(FrozenConfig):
    """What a trial of the search takes, or each of its workers; below one GPU several trials share it."""

    cpus: Positive = 1.0
    gpus: Annotated[float, Field(ge=0.0)] = 0.0

    @model_validator(mode="after")
    def _check(self) -> "ResourcesConfig":
        if self.gpus > 1 and self.gpus % 1:
            raise ValueError(f"gpus {self.gpus} is neither a whole number nor a part of one GPU; round it")
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
    """The search (Table II): `trials` settings of the parameters in `space`; the first trial has the present values.

    variant: the variant whose parameters are searched.
    searcher: `tpe` (Optuna), `random`, `grid` (all combinations, at most `trials`), or `pbt` (population based).
    scheduler: `asha` stops weak trials early; `pbt` ignores it.
    trials: number of trials; with `pbt` the size of the population.
    time_budget_s: seconds of the whole search; 0: no limit.
    grace_period: epochs of both stages together before `asha` may stop a trial.
    reduction_factor: `asha` continues one trial in so many at each rung.
    perturbation_interval: epochs between two copies of the best members, with `pbt`.
    workers: DDP workers of a trial; 0: one process.
    resources: CPUs and GPUs of a trial, or of each of its workers; empty: one GPU if there is one, else one CPU.
    trial: overrides that make a trial cheap, in the form of an entry of `variants`.
    space: dotted parameter names and their ranges.
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
