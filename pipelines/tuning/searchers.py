"""Ray Tune's search algorithms and schedulers, with the results of trials before an interruption."""

from functools import partial
from types import SimpleNamespace

import numpy as np

from pipelines.params import flatten
from pipelines.tuning.search_callback import Trial
from pipelines.tuning.search_space import Value, clamp_to_ranges, current_values, num_epochs
from ssvos.config import Config


def search_algorithm(config: Config, planned: list[dict[str, Value]], ended: list[Trial]) -> dict:
    """Return `search_alg` and `num_samples` of the remaining trials, for `tune.run`.

    planned: values to try first.
    ended: trials from before an interruption.
    """
    from ray.tune.search.basic_variant import BasicVariantGenerator

    tune = config.tune
    if tune.searcher == "tpe":
        return {"search_alg": _optuna(config, planned, ended), "num_samples": tune.trials - len(ended)}
    if tune.searcher == "pbt":
        first = current_values(config)
        generator = BasicVariantGenerator(points_to_evaluate=[first] if first else None, random_state=tune.seed)
        return {"search_alg": generator, "num_samples": tune.trials}
    return {"search_alg": BasicVariantGenerator(points_to_evaluate=planned), "num_samples": len(planned)}


def _optuna(config: Config, planned: list[dict[str, Value]], ended: list[Trial]):
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Optuna's first trials are random: with the same seed it would draw the ended trials' values again
    seed = config.tune.seed
    if ended:
        seed = int(np.random.SeedSequence((seed, len(ended))).generate_state(1)[0])
    search = OptunaSearch(_distributions(config), points_to_evaluate=planned, seed=seed, metric="score", mode="max")
    for trial in ended:
        search.add_evaluated_point(trial.values, trial.score, error=trial.score is None)
    return search


def _distributions(config: Config) -> dict:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    current, space = flatten(config), {}
    for key, search_range in config.tune.space.items():
        if search_range.choices:
            space[key] = CategoricalDistribution(_choices(config, key))
        elif isinstance(current[key], int):
            space[key] = IntDistribution(int(search_range.low), int(search_range.high), log=search_range.log)
        else:
            space[key] = FloatDistribution(search_range.low, search_range.high, log=search_range.log)
    return space


def _choices(config: Config, key: str) -> list[Value]:
    is_float = isinstance(flatten(config)[key], float)
    return [float(value) if is_float else value for value in config.tune.space[key].choices]


def ray_space(config: Config) -> dict:
    """Return the space for Ray Tune: PBT draws from it, and planned values must be in it. Optuna has its own."""
    from ray import tune

    if config.tune.searcher == "tpe":
        return {}
    current, space = flatten(config), {}
    for key, search_range in config.tune.space.items():
        low, high = search_range.low, search_range.high
        if search_range.choices:
            space[key] = tune.choice(_choices(config, key))
        elif isinstance(current[key], int):
            space[key] = (tune.lograndint if search_range.log else tune.randint)(int(low), int(high) + 1)
        else:
            space[key] = (tune.loguniform if search_range.log else tune.uniform)(low, high)
    return space


def trial_scheduler(config: Config, ended: list[Trial]):
    """Return the scheduler: ASHA stops weak trials and also counts ended ones; PBT stops none and copies the best."""
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    from pipelines.tuning.pbt import Population

    tune, epochs = config.tune, num_epochs(config)
    if tune.searcher == "pbt":
        mutations = ray_space(config)
        mutations |= {key: _choices(config, key) for key, one in tune.space.items() if one.choices}
        return Population(
            epochs=epochs,
            metric="row/holdout_score",  # of the current epoch: the best score so far is copied along with a member
            mode="max",
            time_attr="training_iteration",
            perturbation_interval=tune.perturbation_interval,
            hyperparam_mutations=mutations,
            custom_explore_fn=partial(clamp_to_ranges, config),
            log_config=False,
        )
    if tune.scheduler == "none":
        return FIFOScheduler()
    grace = min(tune.grace_period, epochs)
    asha = ASHAScheduler(
        metric="score", mode="max", max_t=epochs, grace_period=grace, reduction_factor=tune.reduction_factor
    )
    for trial in ended:
        _replay(asha, trial)
    return asha


def _replay(scheduler, trial: Trial) -> None:
    """Report an ended trial's epochs to a scheduler."""
    ray_trial, score = SimpleNamespace(trial_id=f"ended-{trial.number}"), float("-inf")
    scheduler.on_trial_add(None, ray_trial)
    for row in trial.history:
        score = max(score, row["holdout_score"])
        scheduler.on_trial_result(None, ray_trial, {"training_iteration": int(row["epoch"]), "score": score})
