"""Stage `tune`: search the parameters of Table II with Ray Tune; a trial is a short training of both stages.

An interrupted search resumes: its trials are saved in resume/ until it has ended.
"""

import csv
import hashlib
import io
import json
from pathlib import Path

from pipelines.cluster.storage import StorageLocation, put, remove_folder, require_storage, resume_folder
from pipelines.params import BEST, CURVES, PARAMS, TRIALS, Layout, flatten, nested, read_params, write_yaml
from pipelines.stage import no_arguments, run_stage
from pipelines.tracking import mlflow_client as tracking
from pipelines.tracking.record import SEARCHES, DataUse, Record
from pipelines.tracking.stage_records import Records
from pipelines.tuning.search_callback import Trial
from pipelines.tuning.search_space import require_space
from pipelines.tuning.trainable import require_trainable
from pipelines.tuning.trial_resources import require_trial_resources
from pipelines.tuning.trial_store import TrialStore
from pipelines.tuning.tuner import run_search
from ssvos.config import Config, parse
from ssvos.config.variants import Params, merge
from ssvos.files import write_text


def main() -> None:
    no_arguments(__doc__)
    params = read_params()
    config = trial_config(params)
    require_trial_resources(config.tune)
    require_storage()
    tracking.connect()
    layout = Layout(config.data.name)
    records = Records.read(params, layout)
    require_trainable(config, layout)
    trial_store = TrialStore(search_folder(records, params, config))
    search = _search_record(records, params, config)
    parent = _open_run(search, trial_store)
    with tracking.mark_failed_on_error(parent):
        trials = run_search(config, layout, search, parent, trial_store)
    scored = [trial for trial in trials if trial.score is not None]
    if not scored:
        remove_folder(trial_store.folder)  # a repeated command would otherwise resume the failed search
        reason = trials[0].error if trials else "none has started"
        raise ValueError(f"tune: all {len(trials)} trials failed ({reason}); lower the learning rates in tune.space")
    best = max(scored, key=lambda trial: trial.score)
    write_text(TRIALS, _csv([trial.row() for trial in trials]))
    write_text(CURVES, _csv([{"trial": trial.number} | row for trial in trials for row in trial.history]))
    write_yaml(BEST, _summary(search, trials, best))
    tracking.write(records.search(), parent)
    remove_folder(trial_store.folder)
    print(f"{BEST}: trial {best.number} of {len(trials)}, held-out score {best.score:.3f}")


def trial_config(params: Params) -> Config:
    """Return a trial's parameters: those of `tune.variant` with the overrides of `tune.trial`.

    Raises ValueError for an unknown variant, or a key of `tune.space` that cannot be searched.
    """
    tune = params.base.tune
    if tune.variant not in params.variants:
        raise ValueError(
            f"{PARAMS}: tune.variant: no variant {tune.variant!r}; choose one of {', '.join(params.variants)}"
        )
    if not tune.space:
        raise ValueError(f"{PARAMS}: tune.space: name at least one parameter to search")
    values = params.variant(tune.variant).model_dump(mode="json")
    config = parse(Config, merge(values, tune.trial), f"{PARAMS}: tune.trial")
    require_space(config)
    return config


def search_folder(records: Records, params: Params, config: Config) -> Path | StorageLocation:
    """Return the folder of this search's saved trials; it exists until the search has ended."""
    return resume_folder(f"{records.layout.name}-tune-{_search_record(records, params, config).tags['search']}")


def _open_run(search: Record, trial_store: TrialStore) -> str:
    """Open the search's MLflow run, or after an interruption the same run again -> its id."""
    path = trial_store.folder / "mlflow.run"
    run_id = tracking.open_run(search, path.read_text() if path.is_file() else "")
    put(path, run_id.encode())
    return run_id


def _search_record(records: Records, params: Params, config: Config) -> Record:
    """Return the record of the search at its start; the tag `search` is a digest of its parameters and data."""
    content = json.dumps(config.model_dump(mode="json"), sort_keys=True) + records.data.digest
    tags = {
        "stage": "tune",
        "variant": config.tune.variant,
        "data": records.layout.name,
        "data.digest": records.data.digest,
        "search": hashlib.sha256(content.encode()).hexdigest()[:12],
    }
    use = DataUse(**(vars(records.data) | {"context": "training"}))
    name = f"{config.tune.variant} tune"
    return Record(name, tags, flatten(params.variant(config.tune.variant)), use, experiment=SEARCHES)


def _summary(search: Record, trials: list[Trial], best: Trial) -> dict:
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
