"""A search, begun or taken up again: which trials remain, and how Ray Tune runs them."""

from functools import partial

from pipelines.cluster.ray_cluster import cluster
from pipelines.cluster.worker_inputs import pack
from pipelines.params import Layout
from pipelines.tracking import mlflow_client as tracking
from pipelines.tracking.run_records import trial_record
from pipelines.tuning import search_trial
from pipelines.tuning.search_callback import SearchCallback, Trial
from pipelines.tuning.search_space import grid_points, num_epochs, present_values, random_points
from pipelines.tuning.searchers import proposing, ray_space, scheduling
from pipelines.tuning.trainable import can_go_on, run_trials
from pipelines.tuning.trial_resources import places
from pipelines.tuning.trial_store import TrialStore
from ssvos.config import Config
from ssvos.progress import progress_bar


def run(config: Config, layout: Layout, search: tracking.Record, parent: str, kept: TrialStore) -> list[Trial]:
    """All trials, with those that are kept. A failed one is a row of the result, not the end of the search."""
    tune, present = config.tune, [one for one in (present_values(config),) if one]
    points = {"grid": grid_points, "random": random_points}.get(tune.searcher, lambda _: [])(config)
    total, known = len(points) or tune.trials, _known(config, kept)
    record_of = partial(trial_record, search, config)
    with progress_bar("trials", total) as advance:
        follower = SearchCallback(total, num_epochs(config), present, parent, record_of, advance, known, kept.write)
        follower.begin()
        ended = [trial for trial in known if trial.has_ended]
        left = tune.time_budget_s - follower.seconds if tune.time_budget_s else None
        if len(ended) < total and (left is None or left > 0):
            done = {trial.number for trial in ended}
            planned = [point for number, point in enumerate(points) if number not in done]
            planned = planned or [trial.values for trial in known if not trial.has_ended] or ([] if ended else present)
            with cluster():
                search_of = proposing(config, planned, ended) | {"scheduler": scheduling(config, ended)}
                _run_rest(config, layout, follower, kept, search_of | {"time_budget_s": left})
        is_late = tune.time_budget_s and follower.seconds >= tune.time_budget_s
        if is_late:
            follower.stop_rest()
    if not is_late and sum(trial.has_ended for trial in follower.trials) < total:
        raise KeyboardInterrupt  # Ray Tune ends without an error then
    follower.complete_records()
    return [trial for trial in follower.trials if trial.has_ended]


def _known(config: Config, kept: TrialStore) -> list[Trial]:
    """The trials of this search before an interruption. A population goes on as a whole or not at all."""
    known = kept.known
    ended = sum(trial.has_ended for trial in known)
    if known and config.tune.searcher == "pbt" and ended < config.tune.trials and not can_go_on(kept.folder):
        print("the population begins again: it was interrupted before Ray Tune had kept it", flush=True)
        return [Trial(trial.number, {}, trial.run_id) for trial in known]
    if known:
        print(f"the search goes on: {ended} trials had ended before it was interrupted", flush=True)
    return known


def _run_rest(config: Config, layout: Layout, follower: SearchCallback, kept: TrialStore, search: dict) -> None:
    """What has not ended, inside `cluster()`."""
    tune, room = config.tune, places(config.tune)
    job = {"config": config.model_dump(mode="json"), "parcel": pack(config, layout), "threads": room.threads}
    space = ray_space(config)
    if tune.searcher == "pbt":
        # all members live at once, also those that wait for room
        run_trials(search_trial.member, job, follower, space, room.asked, storage=kept.folder, **search)
        return
    job |= {"workers": tune.workers, "resources": (room.cpus, room.gpus)}
    one, also = (search_trial.distributed, [search_trial.Releasing()]) if tune.workers else (search_trial.trial, [])
    run_trials(one, job, follower, space, room.asked, room.concurrent, also=also, **search)
