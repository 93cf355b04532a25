"""Stage `tune`: a search over the parameters of Table II with Ray Tune; a trial is a short training of both stages."""

import csv
import hashlib
import io
import json
from functools import partial

from pipelines import tracking
from pipelines.cluster import cluster
from pipelines.follower import Follower, Trial
from pipelines.params import BEST, CURVES, PARAMS, TRIALS, Layout, flatten, nested, read_params, write_yaml
from pipelines.records import Records, trial_record
from pipelines.shipping import pack, unpack
from pipelines.stage import no_arguments, run_stage, tracked
from pipelines.trials import STAGES, require_trainable, run_trials, train_both
from ssvos.config import Config, TuneConfig, parse
from ssvos.files import write_text
from ssvos.variants import Params, merge


def main() -> None:
    no_arguments(__doc__)
    params = read_params()
    config = trial_config(params)
    tracking.connect()
    layout = Layout(config.data.name)
    records = Records.read(params, layout)
    require_trainable(config, layout)
    search = _search_record(records, params, config)
    parent = tracking.open_run(search)
    with tracking.failing(parent), cluster(), tracked("trials", config.tune.trials) as advance:
        trials = run(config, layout, search, parent, advance)
    done = [trial for trial in trials if trial.score is not None]
    if not done:
        raise ValueError(f"tune: all {len(trials)} trials failed; {trials[0].error}; lower the rates in tune.space")
    best = max(done, key=lambda trial: trial.score)
    write_text(TRIALS, _csv([trial.row() for trial in trials]))
    write_text(CURVES, _csv([{"trial": trial.number} | row for trial in trials for row in trial.history]))
    write_yaml(BEST, _summary(search, trials, best))
    tracking.write(records.search(), parent)
    print(f"{BEST}: trial {best.number} of {len(trials)}, held-out score {best.score:.3f}")


def trial_config(params: Params) -> Config:
    """The searched variant's parameters as a trial has them; ValueError if a searched key is no number of them."""
    tune = params.base.tune
    if tune.variant not in params.variants:
        raise ValueError(
            f"{PARAMS}: tune.variant: no variant {tune.variant!r}; choose one of {', '.join(params.variants)}"
        )
    if not tune.space:
        raise ValueError(f"{PARAMS}: tune.space: name at least one parameter to search")
    values = params.variant(tune.variant).model_dump(mode="json")
    config = parse(Config, merge(values, tune.trial), f"{PARAMS}: tune.trial")
    present = flatten(config)
    for key, given in tune.space.items():
        if key in present and not isinstance(present[key], float):
            raise ValueError(
                f"{PARAMS}: tune.space.{key}: is no number with a fraction, which alone are searched; remove it"
            )
        for value in (given.low, given.high):
            # a key that is not there is named with its nearest neighbour by the models themselves
            parse(Config, merge(values, nested({key: value})), f"{PARAMS}: tune.space.{key}")
    return config


def run(config: Config, layout: Layout, search: tracking.Record, parent: str, kept: KeptTrials) -> list[Trial]:
    """All trials, with those that are kept. A failed one is a row of the result, not the end of the search."""
    tune, present = config.tune, [one for one in (present_values(config),) if one]
    points = {"grid": grid_points, "random": random_points}.get(tune.algorithm, lambda _: [])(config)
    total, known = len(points) or tune.trials, _known(config, kept)
    record_of = partial(trial_record, search, config)
    with tracked("trials", total) as advance:
        follower = Follower(total, num_epochs(config), present, parent, record_of, advance, known, kept.write)
        follower.complete_records()
        ended = [trial for trial in known if trial.has_ended]
        left = tune.seconds - follower.seconds if tune.seconds else None
        if len(ended) < total and (left is None or left > 0):
            done = {trial.number for trial in ended}
            planned = [point for number, point in enumerate(points) if number not in done]
            planned = planned or [trial.values for trial in known if not trial.has_ended] or ([] if ended else present)
            with cluster():
                search_of = proposing(config, planned, ended) | {"scheduler": scheduling(config, ended)}
                _run_rest(config, layout, follower, kept, search_of | {"time_budget_s": left})
        is_late = tune.seconds and follower.seconds >= tune.seconds
        if is_late:
            follower.stop_rest()
    if not is_late and sum(trial.has_ended for trial in follower.trials) < total:
        raise KeyboardInterrupt  # Ray Tune ends without an error then
    return [trial for trial in follower.trials if trial.has_ended]


def _known(config: Config, kept: KeptTrials) -> list[Trial]:
    """The trials of this search before an interruption. A population goes on as a whole or not at all."""
    known = kept.read()
    ended = sum(trial.has_ended for trial in known)
    if known and config.tune.algorithm == "pbt" and ended < config.tune.trials and not can_go_on(kept.folder):
        print("the population begins again: it was interrupted before Ray Tune had kept it", flush=True)
        return [Trial(trial.number, {}, trial.run_id) for trial in known]
    if known:
        print(f"the search goes on: {ended} trials had ended before it was interrupted", flush=True)
    return known


def _run_rest(config: Config, layout: Layout, follower: Follower, kept: KeptTrials, search: dict) -> None:
    """What has not ended, inside `cluster()`."""
    tune, room = config.tune, places(config.tune)
    job = {"config": config.model_dump(mode="json"), "parcel": pack(config, layout), "threads": room.threads}
    if tune.algorithm == "pbt":
        run_trials(
            search_trial.member, job, follower, population_space(config), room.asked, None, kept.folder, **search
        )
        return
    job |= {"workers": tune.workers, "resources": (room.cpus, room.gpus)}
    one = search_trial.distributed if tune.workers else search_trial.trial
    run_trials(one, job, follower, {}, room.asked, room.concurrent, **search)


def _open_run(search: tracking.Record, kept: KeptTrials) -> str:
    """The parent run, the same one again after an interruption."""
    path = kept.folder / "mlflow.run"
    run_id = tracking.open_run(search, path.read_text() if path.is_file() else "")
    write_text(path, run_id)
    return run_id


def _search_record(records: Records, params: Params, config: Config) -> tracking.Record:
    """The parent run as it is opened; its digest tells searches apart."""
    content = json.dumps(config.model_dump(mode="json"), sort_keys=True) + records.data.digest
    tags = {
        "stage": "tune",
        "variant": config.tune.variant,
        "data": records.layout.name,
        "data.digest": records.data.digest,
        "search": hashlib.sha256(content.encode()).hexdigest()[:12],
    }
    use = tracking.DataUse(**(vars(records.data) | {"context": "training"}))
    name = f"{config.tune.variant} tune"
    return tracking.Record(name, tags, flatten(params.variant(config.tune.variant)), use, experiment=tracking.SEARCHES)


def _summary(search: tracking.Record, trials: list[Trial], best: Trial) -> dict:
    count = {status: sum(trial.status == status for trial in trials) for status in ("finished", "stopped", "failed")}
    about = {"data": search.tags["data"], "data_digest": search.tags["data.digest"], "variant": search.tags["variant"]}
    before = next((trial for trial in trials if trial.is_present), None)
    return {
        "search": about | {"trials": len(trials)} | count | {"metric": best.metric, "digest": search.tags["search"]},
        "best": {"trial": best.number, "score": best.score},
        "before": {"trial": before.number, "score": before.score} if before else None,
        "params": nested(best.values),
    }


def _csv(rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


if __name__ == "__main__":
    run_stage(main)
