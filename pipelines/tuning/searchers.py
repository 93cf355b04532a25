"""Ray Tune's side of a search: what proposes values, what stops trials, and what each is told of earlier ones."""

from functools import partial
from types import SimpleNamespace

import numpy as np

from pipelines.params import flatten
from pipelines.tuning.search_callback import Trial
from pipelines.tuning.search_space import Value, num_epochs, present_values, within
from ssvos.config import Config


def proposing(config: Config, planned: list[dict[str, Value]], ended: list[Trial]) -> dict:
    """`search_alg` and `num_samples` of the trials that remain: first the planned values, then what is proposed."""
    from ray.tune.search.basic_variant import BasicVariantGenerator

    tune = config.tune
    if tune.searcher == "tpe":
        return {"search_alg": _optuna(config, planned, ended), "num_samples": tune.trials - len(ended)}
    if tune.searcher == "pbt":
        first = present_values(config)
        drawn = BasicVariantGenerator(points_to_evaluate=[first] if first else None, random_state=tune.seed)
        return {"search_alg": drawn, "num_samples": tune.trials}
    return {"search_alg": BasicVariantGenerator(points_to_evaluate=planned), "num_samples": len(planned)}


def _optuna(config: Config, planned: list[dict[str, Value]], ended: list[Trial]):
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # its first trials are random ones: the same seed would draw those that have ended once more
    seed = config.tune.seed
    if ended:
        seed = int(np.random.SeedSequence((seed, len(ended))).generate_state(1)[0])
    search = OptunaSearch(_distributions(config), points_to_evaluate=planned, seed=seed, metric="score", mode="max")
    for trial in ended:
        search.add_evaluated_point(trial.values, trial.score, error=trial.score is None)
    return search


def _distributions(config: Config) -> dict:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    present, space = flatten(config), {}
    for key, given in config.tune.space.items():
        if given.choices:
            space[key] = CategoricalDistribution(_choices(config, key))
        elif isinstance(present[key], int):
            space[key] = IntDistribution(int(given.low), int(given.high), log=given.log)
        else:
            space[key] = FloatDistribution(given.low, given.high, log=given.log)
    return space


def _choices(config: Config, key: str) -> list[Value]:
    is_float = isinstance(flatten(config)[key], float)
    return [float(value) if is_float else value for value in config.tune.space[key].choices]


def ray_space(config: Config) -> dict:
    """The space as Ray Tune has it: what PBT draws of, and what planned values must lie in; Optuna has its own."""
    from ray import tune

    if config.tune.searcher == "tpe":
        return {}
    present, space = flatten(config), {}
    for key, given in config.tune.space.items():
        if given.choices:
            space[key] = tune.choice(_choices(config, key))
        elif isinstance(present[key], int):
            space[key] = (tune.lograndint if given.log else tune.randint)(int(given.low), int(given.high) + 1)
        else:
            space[key] = (tune.loguniform if given.log else tune.uniform)(given.low, given.high)
    return space


def scheduling(config: Config, ended: list[Trial]):
    """What stops weak trials, with the rungs of those that have ended; PBT stops none and copies the best."""
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    from pipelines.tuning.pbt import Population

    tune, epochs = config.tune, num_epochs(config)
    if tune.searcher == "pbt":
        mutations = ray_space(config)
        mutations |= {key: _choices(config, key) for key, given in tune.space.items() if given.choices}
        return Population(
            epochs=epochs,
            metric="row/holdout_score",  # as it stands now: the best so far is copied along with a member
            mode="max",
            time_attr="training_iteration",
            perturbation_interval=tune.perturbation_interval,
            hyperparam_mutations=mutations,
            custom_explore_fn=partial(within, config),
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
    member, score = SimpleNamespace(trial_id=f"ended-{trial.number}"), float("-inf")
    scheduler.on_trial_add(None, member)
    for row in trial.history:
        score = max(score, row["holdout_score"])
        scheduler.on_trial_result(None, member, {"training_iteration": int(row["epoch"]), "score": score})
