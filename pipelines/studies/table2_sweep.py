"""Stage `settings` of studies/table2: Table II's settings as trials of Ray Tune, each trained and judged.

Runs in that folder. A setting that has run with a seed is kept, and not run again after an interruption or with a
larger budget; a change of parameters, data or code starts it anew.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pipelines.cluster.ray_cluster import cluster
from pipelines.cluster.worker_inputs import pack
from pipelines.params import PARAMS, Layout, flatten, read_params, write_json
from pipelines.stage import no_arguments, run_stage
from pipelines.studies.study import STUDY, read_study
from pipelines.studies.study_table import csv_text
from pipelines.studies.table2_grid import BASE, SettingsStudy, failure_path, result_path, settings
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

_CODE = "../../"  # where this folder's dvc.yaml names the code that decides a result


def main() -> None:
    no_arguments(__doc__)
    params = read_params()
    layout = Layout(params.base.data.name)
    paper = read_table("II")
    study = read_study(STUDY, paper, SettingsStudy)
    configs = settings(paper, study, params.base)
    if [source.layout != "youtube-vos" for source in params.base.data.sources] != [True]:
        raise ValueError(f"{PARAMS}: data.sources: a study judges one source, by DAVIS-2017; leave one of that kind")
    require_trainable(configs[next(iter(configs))], layout)
    tracking.connect()
    records = Records.read(params, layout)
    digests = _digests(configs, records, layout)
    _remove_others(layout, digests)
    wanted = list(configs)[: study.budget.runs]
    waiting = [name for name in wanted if not result_path(layout, name).is_file()]
    if waiting:
        _run(records, {name: configs[name] for name in waiting}, digests)
    done = [name for name in wanted if result_path(layout, name).is_file()]
    if any(not failure_path(layout, name).is_file() for name in wanted if name not in done):
        raise KeyboardInterrupt  # Ray Tune ends without an error then
    if not done:
        reason = failure_path(layout, wanted[0]).read_text().strip()
        raise ValueError(f"settings: all {len(wanted)} runs failed; {reason}; lower the rates in params.yaml")
    print(f"runs/{layout.name}: {len(done)} of {len(configs)} runs, {len(waiting)} of them new")


def _digests(configs: Mapping[str, Config], records: Records, layout: Layout) -> dict[str, str]:
    """By run, of all that decides its result: its parameters, the data, and the code that dvc.yaml names."""
    named = read_yaml(Path("dvc.yaml"))["stages"]["settings"]["deps"]
    code = [Path(one) for one in named if one.startswith(_CODE) and one.endswith(".py")]
    shared = [records.data.digest, file_digest(layout.scribbles / "scribbles.parquet"), *map(file_digest, code)]
    return {name: _digest([_decisive(config), *shared]) for name, config in configs.items()}


def _decisive(config: Config) -> str:
    return json.dumps(config.model_dump(mode="json", exclude={"tune", "tuned_from"}), sort_keys=True)


def _digest(content: list[str]) -> str:
    return hashlib.sha256(" ".join(content).encode()).hexdigest()[:16]


def _remove_others(layout: Layout, digests: Mapping[str, str]) -> None:
    """Runs of other parameters, data or code, those that failed, and what an interrupted one left."""
    for name in layout.run_names():
        path = result_path(layout, name)
        if name not in digests or not path.is_file() or json.loads(path.read_text()).get("digest") != digests[name]:
            shutil.rmtree(layout.run(name, ""))


def _run(records: Records, configs: Mapping[str, Config], digests: Mapping[str, str]) -> None:
    """Run them all, as a grid over their names."""
    from ray import tune

    search = _search_record(records, digests)
    parent = tracking.open_run(search)
    job = {"configs": {name: config.model_dump(mode="json") for name, config in configs.items()}}
    with tracking.mark_failed_on_error(parent), cluster(), progress_bar("settings", len(configs)) as advance:
        job["parcel"] = pack(next(iter(configs.values())), records.layout)
        keeper = _Keeper(records.layout, search, configs, digests, parent, advance)
        run_trials(trial, job, keeper, {"run": tune.grid_search(list(configs))})
        keeper.complete_records()
    count = {status: sum(one.status == status for one in keeper.trials) for status in ("finished", "failed")}
    tracking.write(replace(search, metrics=count, tables={"runs.json": [one.row() for one in keeper.trials]}), parent)


def _search_record(records: Records, digests: Mapping[str, str]) -> Record:
    """The parent run as it is opened."""
    name = f"{records.layout.name} settings"
    tags = {"stage": "settings", "variant": BASE, "data": records.layout.name, "data.digest": records.data.digest}
    tags["search"] = _digest(list(digests.values()))[:12]
    use = replace(records.data, context="training")
    return Record(name, tags, flatten(records.params.base), use, experiment=SEARCHES)


class _Keeper(SearchCallback):
    """Writes a run's files when its trial ends, so that an interruption loses none that has."""

    def __init__(self, layout: Layout, search, configs: Mapping[str, Config], digests, parent: str, advance) -> None:
        epochs = max(sum(getattr(one.train, stage).epochs for stage in STAGES) for one in configs.values())
        super().__init__(len(configs), epochs, [], parent, self._setting_record, advance)
        self._layout, self._search, self._configs, self._digests = layout, search, configs, digests
        self._judged: dict[str, dict] = {}

    def _setting_record(self, number: int, values: Mapping[str, str], history: list[dict]) -> Record:
        name = values["run"]
        record = trial_record(self._search, self._configs[name], number, {}, history)
        metrics = record.metrics | test_metrics(self._judged.get(name, {}), "test.")
        return replace(record, name=name, tags=record.tags | {"setting": name}, metrics=metrics)

    def on_trial_result(self, iteration, trials, trial, result, **info) -> None:
        if "judged" in result:
            self._judged[trial.config["run"]] = json.loads(result["judged"])
        else:
            super().on_trial_result(iteration, trials, trial, result, **info)

    def on_trial_complete(self, iteration, trials, trial, **info) -> None:
        name = trial.config["run"]
        if name in self._judged:  # else it was stopped before its end
            self._write(name, self._by_id[trial.trial_id])
        super().on_trial_complete(iteration, trials, trial, **info)

    def on_trial_error(self, iteration, trials, trial, **info) -> None:
        super().on_trial_error(iteration, trials, trial, **info)
        write_text(failure_path(self._layout, trial.config["run"]), f"{self._by_id[trial.trial_id].error}\n")

    def _write(self, name: str, seen: Trial) -> None:
        first, judged = self._configs[name].train.stage1.epochs, self._judged[name]
        rows = {"stage1": [row for row in seen.history if row["epoch"] <= first]}
        rows["stage2"] = [row | {"epoch": row["epoch"] - first} for row in seen.history if row["epoch"] > first]
        for stage, history in rows.items():
            write_text(self._layout.run(name, stage) / "history.csv", csv_text(history, list(history[0])))
        objects = [
            {"source": source, "object": one, **numbers(values)}
            for source, scores in judged.items()
            for one, values in scores["objects"].items()
        ]
        path = result_path(self._layout, name)
        write_text(path.with_name("objects.csv"), csv_text(objects, list(objects[0])))
        scores = {source: {key: one[key] for key in ("protocol", "global")} for source, one in judged.items()}
        about = {"data": self._layout.name, "run": name, "digest": self._digests[name]}
        about |= {"chosen_by": seen.metric, "holdout_score": max(row["holdout_score"] for row in rows["stage2"])}
        write_json(path, about | {"scores": scores})  # last: what has it is whole


if __name__ == "__main__":
    run_stage(main)
