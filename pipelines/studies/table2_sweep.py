"""Stage `settings` of studies/table2: trains and evaluates the grid points of Table II as trials of Ray Tune.

It runs in that folder. A finished run does not run again after an interruption or with a larger budget. A change of
parameters, data or code makes it run again.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from pipelines.cluster.ray_cluster import cluster
from pipelines.cluster.worker_inputs import pack
from pipelines.params import PARAMS, Layout, flatten, read_params, write_json
from pipelines.stage import no_arguments, run_stage
from pipelines.studies.study import STUDY, read_study
from pipelines.studies.study_table import csv_text
from pipelines.studies.table2_grid import BASE, GridStudy, failure_path, grid_configs, result_path
from pipelines.studies.table2_trial import trial
from pipelines.tracking import mlflow_client as tracking
from pipelines.tracking.record import SEARCHES, Record, numbers
from pipelines.tracking.stage_records import Records, test_metrics, trial_record
from pipelines.tuning.search_callback import SearchCallback, Trial
from pipelines.tuning.trainable import STAGES, require_trainable, run_trials
from ssvos.config import Config, read_yaml
from ssvos.files import write_text
from ssvos.metrics.tables import read_table
from ssvos.models.checkpoint import file_digest
from ssvos.progress import progress_bar

_CODE = "../../"  # the start of the paths of code in this folder's dvc.yaml


def main() -> None:
    no_arguments(__doc__)
    params = read_params()
    layout = Layout(params.base.data.name)
    paper = read_table("II")
    study = read_study(STUDY, paper, GridStudy)
    configs = grid_configs(paper, study, params.base)
    if [source.layout != "youtube-vos" for source in params.base.data.sources] != [True]:
        raise ValueError(
            f"{PARAMS}: data.sources: a study evaluates one source, with DAVIS-2017 scores; keep one such source"
        )
    require_trainable(configs[next(iter(configs))], layout)
    tracking.connect()
    records = Records.read(params, layout)
    digests = _digests(configs, records, layout)
    _remove_stale_runs(layout, digests)
    planned = list(configs)[: study.budget.runs]
    missing = [name for name in planned if not result_path(layout, name).is_file()]
    if missing:
        _run(records, {name: configs[name] for name in missing}, digests)
    finished = [name for name in planned if result_path(layout, name).is_file()]
    if any(not failure_path(layout, name).is_file() for name in planned if name not in finished):
        raise KeyboardInterrupt  # Ray Tune returns without an error after an interruption
    if not finished:
        reason = failure_path(layout, planned[0]).read_text().strip()
        raise ValueError(
            f"settings: all {len(planned)} runs failed ({reason}); lower the learning rates in params.yaml"
        )
    print(f"runs/{layout.name}: {len(finished)} of {len(configs)} runs, {len(missing)} of them new")


def _digests(configs: Mapping[str, Config], records: Records, layout: Layout) -> dict[str, str]:
    """By run, a digest of everything that determines its result: parameters, data, and the code listed in dvc.yaml."""
    deps = read_yaml(Path("dvc.yaml"))["stages"]["settings"]["deps"]
    code = [Path(dep) for dep in deps if dep.startswith(_CODE) and dep.endswith(".py")]
    shared = [records.data.digest, file_digest(layout.scribbles / "scribbles.parquet"), *map(file_digest, code)]
    return {name: _digest([_parameters(config), *shared]) for name, config in configs.items()}


def _parameters(config: Config) -> str:
    return json.dumps(config.model_dump(mode="json", exclude={"tune", "tuned_from"}), sort_keys=True)


def _digest(content: list[str]) -> str:
    return hashlib.sha256(" ".join(content).encode()).hexdigest()[:16]


def _remove_stale_runs(layout: Layout, digests: Mapping[str, str]) -> None:
    """Remove failed and interrupted runs, and runs of other parameters, data or code."""
    for name in layout.run_names():
        path = result_path(layout, name)
        if name not in digests or not path.is_file() or json.loads(path.read_text()).get("digest") != digests[name]:
            shutil.rmtree(layout.run(name, ""))


def _run(records: Records, configs: Mapping[str, Config], digests: Mapping[str, str]) -> None:
    """Run all trials, as a grid search over the names of the runs."""
    from ray import tune

    search = _search_record(records, digests)
    parent = tracking.open_run(search)
    job = {"configs": {name: config.model_dump(mode="json") for name, config in configs.items()}}
    with tracking.mark_failed_on_error(parent), cluster(), progress_bar("settings", len(configs)) as advance:
        job["inputs"] = pack(next(iter(configs.values())), records.layout)
        callback = _GridCallback(records.layout, search, configs, digests, parent, advance)
        run_trials(trial, job, callback, {"run": tune.grid_search(list(configs))})
        callback.complete_records()
    count = {status: sum(one.status == status for one in callback.trials) for status in ("finished", "failed")}
    tracking.write(replace(search, metrics=count, tables={"runs.json": [one.row() for one in callback.trials]}), parent)


def _search_record(records: Records, digests: Mapping[str, str]) -> Record:
    """The MLflow run that is the parent of all trials, with its content at the start."""
    name = f"{records.layout.name} settings"
    tags = {"stage": "settings", "variant": BASE, "data": records.layout.name, "data.digest": records.data.digest}
    tags["search"] = _digest(list(digests.values()))[:12]
    data = replace(records.data, context="training")
    return Record(name, tags, flatten(records.params.base), data, experiment=SEARCHES)


class _GridCallback(SearchCallback):
    """Writes a run's files when its trial ends, so that an interruption loses no finished run."""

    def __init__(
        self,
        layout: Layout,
        search: Record,
        configs: Mapping[str, Config],
        digests: Mapping[str, str],
        parent: str,
        advance: Callable[[], None],
    ) -> None:
        epochs = max(sum(getattr(one.train, stage).epochs for stage in STAGES) for one in configs.values())
        super().__init__(len(configs), epochs, [], parent, self._run_record, advance)
        self._layout, self._search, self._configs, self._digests = layout, search, configs, digests
        self._scores: dict[str, dict] = {}  # by run

    def _run_record(self, number: int, values: Mapping[str, str], history: list[dict]) -> Record:
        name = values["run"]
        record = trial_record(self._search, self._configs[name], number, {}, history)
        metrics = record.metrics | test_metrics(self._scores.get(name, {}), "test.")
        return replace(record, name=name, tags=record.tags | {"setting": name}, metrics=metrics)

    def on_trial_result(self, iteration, trials, trial, result, **info) -> None:
        if "scores" in result:
            self._scores[trial.config["run"]] = json.loads(result["scores"])
        else:
            super().on_trial_result(iteration, trials, trial, result, **info)

    def on_trial_complete(self, iteration, trials, trial, **info) -> None:
        name = trial.config["run"]
        if name in self._scores:  # a trial that was stopped early has no scores
            self._write(name, self._by_id[trial.trial_id])
        super().on_trial_complete(iteration, trials, trial, **info)

    def on_trial_error(self, iteration, trials, trial, **info) -> None:
        super().on_trial_error(iteration, trials, trial, **info)
        write_text(failure_path(self._layout, trial.config["run"]), f"{self._by_id[trial.trial_id].error}\n")

    def _write(self, name: str, trial: Trial) -> None:
        stage1_epochs, scores = self._configs[name].train.stage1.epochs, self._scores[name]
        histories = {"stage1": [row for row in trial.history if row["epoch"] <= stage1_epochs]}
        histories["stage2"] = [
            row | {"epoch": row["epoch"] - stage1_epochs} for row in trial.history if row["epoch"] > stage1_epochs
        ]
        for stage, history in histories.items():
            write_text(self._layout.run(name, stage) / "history.csv", csv_text(history, list(history[0])))
        objects = [
            {"source": source, "object": object_name, **numbers(values)}
            for source, one in scores.items()
            for object_name, values in one["objects"].items()
        ]
        path = result_path(self._layout, name)
        write_text(path.with_name("objects.csv"), csv_text(objects, list(objects[0])))
        summary = {source: {key: one[key] for key in ("protocol", "global")} for source, one in scores.items()}
        about = {"data": self._layout.name, "run": name, "digest": self._digests[name]}
        holdout_score = max(row["holdout_score"] for row in histories["stage2"])
        about |= {"chosen_by": trial.metric, "holdout_score": holdout_score}
        # this file comes last: a run that has it is complete
        write_json(path, about | {"scores": summary})


if __name__ == "__main__":
    run_stage(main)
