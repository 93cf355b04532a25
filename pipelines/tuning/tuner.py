"""Runs a search, or resumes one: decides which trials remain, and has Ray Tune run them."""

from functools import partial

from pipelines.cluster.ray_cluster import cluster
from pipelines.cluster.worker_inputs import pack
from pipelines.params import Layout
from pipelines.tracking.record import Record
from pipelines.tracking.stage_records import trial_record
from pipelines.tuning import search_trial
from pipelines.tuning.search_callback import SearchCallback, Trial
from pipelines.tuning.search_space import current_values, grid_points, num_epochs, random_points
from pipelines.tuning.searchers import ray_space, search_algorithm, trial_scheduler
from pipelines.tuning.trainable import has_saved_trials, run_trials
from pipelines.tuning.trial_resources import trial_resources
from pipelines.tuning.trial_store import TrialStore
from ssvos.config import Config
from ssvos.progress import progress_bar


def run_search(config: Config, layout: Layout, search: Record, parent: str, trial_store: TrialStore) -> list[Trial]:
    """Run the trials that `trial_store` does not have yet -> all trials. A failed trial does not end the search.

    search: record of the search; its trials are children of the MLflow run `parent`.
    """
    tune, current = config.tune, [values for values in (current_values(config),) if values]
    points = {"grid": grid_points, "random": random_points}.get(tune.searcher, lambda _: [])(config)
    total, known = len(points) or tune.trials, _known_trials(config, trial_store)
    record_of = partial(trial_record, search, config)
    with progress_bar("trials", total) as advance:
        callback = SearchCallback(
            total, num_epochs(config), current, parent, record_of, advance, known, trial_store.write
        )
        callback.begin()
        ended = [trial for trial in known if trial.has_ended]
        seconds_left = tune.time_budget_s - callback.seconds if tune.time_budget_s else None
        if len(ended) < total and (seconds_left is None or seconds_left > 0):
            done = {trial.number for trial in ended}
            planned = [point for number, point in enumerate(points) if number not in done]
            planned = planned or [trial.values for trial in known if not trial.has_ended] or ([] if ended else current)
            with cluster():
                options = search_algorithm(config, planned, ended) | {"scheduler": trial_scheduler(config, ended)}
                _run_remaining(config, layout, callback, trial_store, options | {"time_budget_s": seconds_left})
        is_over_time = tune.time_budget_s and callback.seconds >= tune.time_budget_s
        if is_over_time:
            callback.stop_rest()
    if not is_over_time and sum(trial.has_ended for trial in callback.trials) < total:
        raise KeyboardInterrupt  # an interrupted Ray Tune returns without an error
    callback.complete_records()
    return [trial for trial in callback.trials if trial.has_ended]


def _known_trials(config: Config, trial_store: TrialStore) -> list[Trial]:
    """Return the search's trials from before an interruption. A population resumes as a whole or starts again."""
    known = trial_store.known
    ended = sum(trial.has_ended for trial in known)
    is_population = config.tune.searcher == "pbt"
    if known and is_population and ended < config.tune.trials and not has_saved_trials(trial_store.folder):
        print("the population starts again: Ray Tune had not saved it before the interruption", flush=True)
        return [Trial(trial.number, {}, trial.run_id) for trial in known]
    if known:
        print(f"the search resumes: {ended} trials had ended before the interruption", flush=True)
    return known


def _run_remaining(
    config: Config, layout: Layout, callback: SearchCallback, trial_store: TrialStore, search: dict
) -> None:
    """Run the trials that have not ended, inside `cluster()`."""
    tune, resources = config.tune, trial_resources(config.tune)
    job = {"config": config.model_dump(mode="json"), "packed_inputs": pack(config, layout)}
    job |= {"threads": resources.threads}
    space = ray_space(config)
    if tune.searcher == "pbt":
        # without a limit of concurrent trials: every member exists from the start, even if it waits for resources
        run_trials(
            search_trial.population_member,
            job,
            callback,
            space,
            resources.reserved,
            storage=trial_store.folder,
            **search,
        )
        return
    job |= {"workers": tune.workers, "resources": (resources.cpus, resources.gpus)}
    trial, extra_callbacks = search_trial.trial, []
    if tune.workers:
        trial, extra_callbacks = search_trial.distributed_trial, [search_trial.ReleaseWorkers()]
    run_trials(
        trial,
        job,
        callback,
        space,
        resources.reserved,
        resources.concurrent,
        extra_callbacks=extra_callbacks,
        **search,
    )
