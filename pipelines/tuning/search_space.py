"""The searched parameters: what may be among them, the points of a grid and of a random search, and PBT's limits.

A parameter is a whole number, a number with a fraction, or a choice; which one, its present value says.
"""

import itertools
import math

import numpy as np

from pipelines.params import PARAMS, Value, flatten, nested, typed_value
from ssvos.config import Config, RangeConfig, parse
from ssvos.config.variants import merge

STAGES = ("stage1", "stage2")
_IN_A_TRIAL = ("model.", "loss.", "train.")  # the data that it reads are made before
# what acts anew in every step; a network's shape is settled when it is made, an optimizer's state keeps its own decay
_WHILE_TRAINING = (
    "loss.",
    "train.augment.",
    *(
        f"train.{stage}.{key}"
        for stage in STAGES
        for key in ("learning_rate", "lr_decay", "auxiliary_weight", "grad_clip_norm")
    ),
)


def require_space(config: Config) -> None:
    """ValueError that names the key of `tune.space` that cannot be searched, or not by this algorithm."""
    values, present = config.model_dump(mode="json"), flatten(config)
    for key, given in config.tune.space.items():
        where = f"{PARAMS}: tune.space.{key}"
        if key in present:
            _require_kind(where, given, present[key])
            _require_place(where, key, config.tune.searcher)
        for value in given.choices or (given.low, given.high):
            # a key that is not there is named with its nearest neighbour by the models themselves
            parse(Config, merge(values, nested({key: typed_value(value, present.get(key))})), where)
        if config.tune.searcher == "grid" and not (given.choices or given.num):
            raise ValueError(f"{where}: a grid takes points, not a range; add num, how many, or give choices")
    _require_budget(config)


def _require_kind(where: str, given: RangeConfig, present: object) -> None:
    if not isinstance(present, Value):
        raise ValueError(f"{where}: is no single value, which alone are searched; remove it")
    if given.choices:
        return
    if isinstance(present, bool | str):
        raise ValueError(f"{where}: is no number, it has no range; give choices")
    if isinstance(present, int) and (given.low % 1 or given.high % 1):
        raise ValueError(f"{where}: is a whole number, {given.low} to {given.high} are not; round them")


def _require_place(where: str, key: str, algorithm: str) -> None:
    if not key.startswith(_IN_A_TRIAL):
        raise ValueError(f"{where}: decides nothing in a trial, which trains and no more; remove it")
    if key.endswith(".epochs"):
        raise ValueError(f"{where}: is what a trial costs, the same for all; set it in tune.trial")
    if algorithm == "pbt" and not key.startswith(_WHILE_TRAINING):
        raise ValueError(f"{where}: cannot change while a network trains, which pbt does; remove it, or take tpe")


def _require_budget(config: Config) -> None:
    """What the algorithm asks of the other keys of `tune`."""
    tune = config.tune
    epochs = num_epochs(config)
    points = math.prod(len(_points(config, key)) for key in tune.space) if tune.searcher == "grid" else 0
    if points > tune.trials:
        raise ValueError(f"{PARAMS}: tune.trials: {tune.trials}, the grid has {points} points; raise it, or take fewer")
    if tune.searcher == "pbt" and tune.trials < 2:
        raise ValueError(f"{PARAMS}: tune.trials: a population has 2 members or more, not {tune.trials}; raise it")
    if tune.searcher == "pbt" and tune.perturbation_interval >= epochs:
        raise ValueError(
            f"{PARAMS}: tune.perturbation_interval: {tune.perturbation_interval}, a trial has {epochs} epochs; "
            "lower it, or add epochs"
        )
    if tune.searcher == "pbt" and tune.workers:
        raise ValueError(f"{PARAMS}: tune.workers: {tune.workers}, pbt trains a trial in one process; set 0")
    for name in STAGES if tune.workers else ():
        stage = getattr(config.train, name)
        if stage.batch_clips % (tune.workers * stage.accumulate):
            raise ValueError(
                f"{PARAMS}: tune.workers: {tune.workers} cannot share a batch of {stage.batch_clips} clips "
                f"(train.{name}); take a divisor of it"
            )


def num_epochs(config: Config) -> int:
    """Of a trial, both stages together."""
    return sum(getattr(config.train, stage).epochs for stage in STAGES)


def present_values(config: Config) -> dict[str, Value] | None:
    """The values that a search starts from, as its first trial; None if one of them lies outside its range."""
    flat = flatten(config)
    present = {key: flat[key] for key in config.tune.space}
    outside = [key for key, given in config.tune.space.items() if not _holds(given, present[key])]
    if outside:
        print(f"the present values are not tried: {outside[0]} {present[outside[0]]} lies outside its range")
    return None if outside else present


def _holds(given: RangeConfig, value: Value) -> bool:
    return value in given.choices if given.choices else given.low <= value <= given.high


def grid_points(config: Config) -> list[dict[str, Value]]:
    """All combinations, the last key changing first."""
    keys = list(config.tune.space)
    return [dict(zip(keys, point, strict=True)) for point in itertools.product(*(_points(config, key) for key in keys))]


def _points(config: Config, key: str) -> list[Value]:
    """Of one parameter in a grid, each once."""
    given, present = config.tune.space[key], flatten(config)[key]
    if given.choices:
        return [typed_value(value, present) for value in given.choices]
    spaced = (np.geomspace if given.log else np.linspace)(given.low, given.high, given.num).tolist()
    return list(dict.fromkeys(round(value) for value in spaced)) if isinstance(present, int) else spaced


def random_points(config: Config) -> list[dict[str, Value]]:
    """Independent draws after the present values. A point follows from the seed and its number alone."""
    present, count = present_values(config), config.tune.trials
    drawn = [_draw(config, np.random.default_rng((config.tune.seed, number))) for number in range(count)]
    return [present, *drawn[1:]] if present else drawn


def _draw(config: Config, rng: np.random.Generator) -> dict[str, Value]:
    present, point = flatten(config), {}
    for key, given in config.tune.space.items():
        if given.choices:
            point[key] = typed_value(given.choices[rng.integers(len(given.choices))], present[key])
            continue
        # a whole number has the stretch around it, halfway to its neighbours
        half = 0.5 if isinstance(present[key], int) else 0.0
        low, high = given.low - half, given.high + half
        value = math.exp(rng.uniform(math.log(low), math.log(high))) if given.log else rng.uniform(low, high)
        value = min(max(value, given.low), given.high)
        point[key] = round(value) if half else value
    return point


def within(config: Config, values: dict[str, Value]) -> dict[str, Value]:
    """Values that PBT has multiplied, moved to the nearest bound where they have left their range."""
    kept = dict(values)
    for key, given in config.tune.space.items():
        if not given.choices:
            kept[key] = typed_value(min(max(values[key], given.low), given.high), flatten(config)[key])
    return kept
