"""Stage `tune`: a search over the parameters of Table II with Ray Tune; a trial is a short training of both stages.

A search that was interrupted goes on: its trials are kept in resume/ until it has ended.
"""

import csv
import hashlib
import io
import json
from pathlib import Path

from pipelines.cluster.storage import Place, put, remove_folder, require_storage, resume_folder
from pipelines.params import BEST, CURVES, PARAMS, TRIALS, Layout, flatten, nested, read_params, write_yaml
from pipelines.stage import no_arguments, run_stage
from pipelines.tracking import mlflow_client as tracking
from pipelines.tracking.run_records import Records
from pipelines.tuning.search_callback import Trial
from pipelines.tuning.search_space import require_space
from pipelines.tuning.trainable import require_trainable
from pipelines.tuning.trial_resources import require_trial_resources
from pipelines.tuning.trial_store import TrialStore
from pipelines.tuning.tuner import run
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
    kept = TrialStore(kept_folder(records, params, config))
    search = _search_record(records, params, config)
    parent = _open_run(search, kept)
    with tracking.failing(parent):
        trials = run(config, layout, search, parent, kept)
    done = [trial for trial in trials if trial.score is not None]
    if not done:
        remove_folder(kept.folder)  # else the next run would have failed already
        reason = trials[0].error if trials else "none has started"
        raise ValueError(f"tune: all {len(trials)} trials failed; {reason}; lower the rates in tune.space")
    best = max(done, key=lambda trial: trial.score)
    write_text(TRIALS, _csv([trial.row() for trial in trials]))
    write_text(CURVES, _csv([{"trial": trial.number} | row for trial in trials for row in trial.history]))
    write_yaml(BEST, _summary(search, trials, best))
    tracking.write(records.search(), parent)
    remove_folder(kept.folder)
    print(f"{BEST}: trial {best.number} of {len(trials)}, held-out score {best.score:.3f}")


def trial_config(params: Params) -> Config:
    """The searched variant's parameters as a trial has them; ValueError if a searched key is none that can be."""
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


def kept_folder(records: Records, params: Params, config: Config) -> Path | Place:
    """Where this search keeps its trials until it has ended."""
    return resume_folder(f"{records.layout.name}-tune-{_search_record(records, params, config).tags['search']}")


def _open_run(search: tracking.Record, kept: TrialStore) -> str:
    """The parent run, the same one again after an interruption."""
    path = kept.folder / "mlflow.run"
    run_id = tracking.open_run(search, path.read_text() if path.is_file() else "")
    put(path, run_id.encode())
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
