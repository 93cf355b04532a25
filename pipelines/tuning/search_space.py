"""The searched parameters: checks of the search space, points of a grid and of a random search, and PBT's limits.

A parameter is an integer, a float or a choice, depending on the type of its current value.
"""

import itertools
import math

import numpy as np

from pipelines.params import PARAMS, Value, flatten, nested, typed_value
from ssvos.config import Config, RangeConfig, parse
from ssvos.config.variants import merge

STAGES = ("stage1", "stage2")
_IN_TRIAL = ("model.", "loss.", "train.")  # the stages before made the data that a trial reads
# what each step reads anew; a network has its shape from the start, and an optimizer's state has its own weight decay
_CHANGEABLE_IN_TRAINING = (
    "loss.",
    "train.augment.",
    *(
        f"train.{stage}.{key}"
        for stage in STAGES
        for key in ("learning_rate", "lr_decay", "auxiliary_weight", "grad_clip_norm")
    ),
)


def require_space(config: Config) -> None:
    """Raise ValueError with the key of `tune.space` that cannot be searched, or not by this algorithm."""
    values, current = config.model_dump(mode="json"), flatten(config)
    for key, search_range in config.tune.space.items():
        where = f"{PARAMS}: tune.space.{key}"
        if key in current:
            _require_type(where, search_range, current[key])
            _require_searchable(where, key, config.tune.searcher)
        for value in search_range.choices or (search_range.low, search_range.high):
            # for an unknown key the parameter models raise, and suggest a similar one
            parse(Config, merge(values, nested({key: typed_value(value, current.get(key))})), where)
        if config.tune.searcher == "grid" and not (search_range.choices or search_range.num):
            raise ValueError(
                f"{where}: a grid needs points, not a range; add num (the number of points), or give choices"
            )
    _require_budget(config)


def _require_type(where: str, search_range: RangeConfig, current: object) -> None:
    if not isinstance(current, Value):
        raise ValueError(f"{where}: not a single value, so it cannot be searched; remove it")
    if search_range.choices:
        return
    if isinstance(current, bool | str):
        raise ValueError(f"{where}: not a number, so it has no range; give choices")
    low, high = search_range.low, search_range.high
    if isinstance(current, int) and (low % 1 or high % 1):
        raise ValueError(f"{where}: an integer, but its range is {low} to {high}; round both")


def _require_searchable(where: str, key: str, searcher: str) -> None:
    if not key.startswith(_IN_TRIAL):
        raise ValueError(f"{where}: has no effect on a trial, which only trains; remove it")
    if key.endswith(".epochs"):
        raise ValueError(f"{where}: all trials have the same number of epochs; set it in tune.trial")
    if searcher == "pbt" and not key.startswith(_CHANGEABLE_IN_TRAINING):
        raise ValueError(f"{where}: cannot change during training, but pbt changes it; remove it, or use tpe")


def _require_budget(config: Config) -> None:
    """Check what the algorithm requires of the other keys of `tune`."""
    tune = config.tune
    epochs = num_epochs(config)
    points = math.prod(len(_points(config, key)) for key in tune.space) if tune.searcher == "grid" else 0
    if points > tune.trials:
        raise ValueError(
            f"{PARAMS}: tune.trials: {tune.trials} trials, but the grid has {points} points; raise it, or use fewer "
            "points"
        )
    if tune.searcher == "pbt" and tune.trials < 2:
        raise ValueError(f"{PARAMS}: tune.trials: a population needs at least 2 members, not {tune.trials}; raise it")
    if tune.searcher == "pbt" and tune.perturbation_interval >= epochs:
        raise ValueError(
            f"{PARAMS}: tune.perturbation_interval: {tune.perturbation_interval}, but a trial has only {epochs} "
            "epochs; lower it, or add epochs"
        )
    if tune.searcher == "pbt" and tune.workers:
        raise ValueError(
            f"{PARAMS}: tune.workers: {tune.workers} workers, but pbt trains a trial in one process; set it to 0"
        )
    for name in STAGES if tune.workers else ():
        stage = getattr(config.train, name)
        clips = stage.batch_clips // stage.accumulate
        if clips % tune.workers:
            raise ValueError(
                f"{PARAMS}: tune.workers: a batch of {clips} clips (train.{name}) cannot be divided among "
                f"{tune.workers} workers; use a divisor of {clips}"
            )


def num_epochs(config: Config) -> int:
    """Return the epochs of a trial, both stages together."""
    return sum(getattr(config.train, stage).epochs for stage in STAGES)


def current_values(config: Config) -> dict[str, Value] | None:
    """Return the current values, which the first trial has; None if one of them is outside its range."""
    flat = flatten(config)
    current = {key: flat[key] for key in config.tune.space}
    outside = [key for key, search_range in config.tune.space.items() if not _contains(search_range, current[key])]
    if outside:
        print(f"the current values are not tried: {outside[0]} {current[outside[0]]} is outside its range")
    return None if outside else current


def _contains(search_range: RangeConfig, value: Value) -> bool:
    return value in search_range.choices if search_range.choices else search_range.low <= value <= search_range.high


def grid_points(config: Config) -> list[dict[str, Value]]:
    """Return all combinations; the last key changes fastest."""
    keys = list(config.tune.space)
    return [dict(zip(keys, point, strict=True)) for point in itertools.product(*(_points(config, key) for key in keys))]


def _points(config: Config, key: str) -> list[Value]:
    """Return the distinct points of one parameter in a grid."""
    search_range, current = config.tune.space[key], flatten(config)[key]
    if search_range.choices:
        return [typed_value(value, current) for value in search_range.choices]
    spaced = np.geomspace if search_range.log else np.linspace
    points = spaced(search_range.low, search_range.high, search_range.num).tolist()
    return list(dict.fromkeys(round(value) for value in points)) if isinstance(current, int) else points


def random_points(config: Config) -> list[dict[str, Value]]:
    """Return the current values, then independent draws. A point depends only on the seed and its number."""
    current, count = current_values(config), config.tune.trials
    drawn = [_draw(config, np.random.default_rng((config.tune.seed, number))) for number in range(count)]
    return [current, *drawn[1:]] if current else drawn


def _draw(config: Config, rng: np.random.Generator) -> dict[str, Value]:
    current, point = flatten(config), {}
    for key, search_range in config.tune.space.items():
        if search_range.choices:
            point[key] = typed_value(search_range.choices[rng.integers(len(search_range.choices))], current[key])
            continue
        # an integer covers the interval around it, halfway to its neighbours
        half = 0.5 if isinstance(current[key], int) else 0.0
        low, high = search_range.low - half, search_range.high + half
        value = math.exp(rng.uniform(math.log(low), math.log(high))) if search_range.log else rng.uniform(low, high)
        value = min(max(value, search_range.low), search_range.high)
        point[key] = round(value) if half else value
    return point


def clamp_to_ranges(config: Config, values: dict[str, Value]) -> dict[str, Value]:
    """Return PBT's multiplied values, each clamped to its range."""
    clamped = dict(values)
    for key, search_range in config.tune.space.items():
        if not search_range.choices:
            value = min(max(values[key], search_range.low), search_range.high)
            clamped[key] = typed_value(value, flatten(config)[key])
    return clamped
