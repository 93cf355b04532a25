"""Stage `tune`: a search over the parameters of Table II with Ray Tune; a trial is a short training of both stages."""

import csv
import hashlib
import io
import json
import logging
import os
import tempfile
from functools import partial

from pipelines import tracking
from pipelines.cluster import cluster, trial_resources
from pipelines.follower import Follower, Trial
from pipelines.params import BEST, CURVES, PARAMS, TRIALS, Layout, flatten, nested, read_params, write_yaml
from pipelines.records import Records, trial_record
from pipelines.shipping import pack, unpack
from pipelines.stage import no_arguments, run_stage, tracked
from ssvos.config import Config, TuneConfig, parse
from ssvos.data.index import read_index
from ssvos.files import write_text
from ssvos.training import EpochReport, first_network, fit, require_clips, training_data
from ssvos.variants import Params, merge

_STAGES = ("stage1", "stage2")


def main() -> None:
    no_arguments(__doc__)
    params = read_params()
    config = trial_config(params)
    tracking.connect()
    layout = Layout(config.data.name)
    records = Records.read(params, layout)
    # weights that are not there, and what every trial would fail of, are found before any trial starts
    first_network(config)
    for stage in _STAGES:
        stored = layout.scribbles / "scribbles.parquet"
        require_clips(read_index(layout.index), config, getattr(config.train, stage), stored)
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


def run(config: Config, layout: Layout, search: tracking.Record, parent: str, advance) -> list[Trial]:
    """All trials. A failed one is a row of the result, not the end of the search."""
    import optuna
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not os.environ.get("SSVOS_DEBUG"):
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the follower tells of a failed trial, in a line

    settings = config.tune
    job = {"config": config.model_dump(mode="json"), "parcel": pack(config, layout)}
    resources, concurrent = trial_resources()
    epochs = sum(getattr(config.train, stage).epochs for stage in _STAGES)
    present = _present(config)
    record_of = partial(trial_record, search, config)
    follower = Follower(settings.trials, epochs, present, parent, record_of, advance)
    with tempfile.TemporaryDirectory(prefix="ssvos-tune-") as storage:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_trial, job=job), resources),
            param_space={},
            tune_config=tune.TuneConfig(
                metric="score",
                mode="max",
                num_samples=settings.trials,
                max_concurrent_trials=concurrent,
                search_alg=OptunaSearch(
                    _space(settings), points_to_evaluate=present, seed=settings.seed, metric="score", mode="max"
                ),
                scheduler=ASHAScheduler(
                    time_attr="training_iteration",
                    max_t=epochs,
                    grace_period=min(settings.grace, epochs),
                    reduction_factor=settings.reduction,
                ),
            ),
            run_config=tune.RunConfig(name="search", storage_path=storage, callbacks=[follower], verbose=0),
        )
        tuner.fit()
    return follower.trials


def _trial(values: dict, job: dict) -> None:
    """In a worker: both stages with these values, the second from the first's best weights."""
    import torch
    from ray import tune

    torch.set_num_threads(1)
    config = Config.model_validate(merge(job["config"], nested(values)))
    inputs = unpack(job["parcel"])
    data = training_data(inputs.index, inputs.scribbles, inputs.roots, config)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = first_network(inputs.here(config))
    best = float("-inf")
    for number, name in enumerate(_STAGES):
        stage = getattr(config.train, name)

        def report(epoch: EpochReport, offset: int = number * config.train.stage1.epochs) -> None:
            nonlocal best
            best = max(best, epoch.row["holdout_score"])
            row = epoch.row | {"epoch": epoch.row["epoch"] + offset}
            tune.report({"score": best, "row": row, "chosen_by": epoch.progress.chosen_by})

        progress = fit(network, data, config, stage, device, report)
        network.load_state_dict(progress.best_weights)


def _space(settings: TuneConfig) -> dict:
    from optuna.distributions import FloatDistribution

    return {key: FloatDistribution(given.low, given.high, log=given.log) for key, given in settings.space.items()}


def _present(config: Config) -> list[dict[str, float]]:
    """The values that the search starts from, as its first trial; none if one of them lies outside its range."""
    flat = flatten(config)
    present = {key: float(flat[key]) for key in config.tune.space}
    outside = [k for k, given in config.tune.space.items() if not given.low <= present[k] <= given.high]
    if outside:
        print(f"the present values are not tried: {outside[0]} {present[outside[0]]:g} lies outside its range")
    return [] if outside else [present]


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
