"""Writes every missing MLflow run from the stages' files, for example after `dvc pull`, or if the database is lost.

Example: python -m pipelines.tracking.run_records
"""

import json
from collections.abc import Callable, Iterator

from pipelines.params import BEST, Layout, read_params
from pipelines.stage import no_arguments, run_stage
from pipelines.tracking.mlflow_client import find_run, write
from pipelines.tracking.mlflow_metrics import log_metrics
from pipelines.tracking.mlflow_store import require_store
from pipelines.tracking.record import Record
from pipelines.tracking.stage_records import Records, trial_records
from pipelines.tracking.tracking_uri import tracking_uri
from ssvos.config import Config, read_yaml
from ssvos.config.variants import merge, variant_of
from ssvos.files import explain
from ssvos.progress import progress_bar


def main() -> None:
    no_arguments(__doc__)
    params = read_params()
    layout = Layout(params.base.data.name)
    require_store()
    if not layout.index.is_file():
        raise FileNotFoundError(f"{layout.index}: no such file, so nothing to record; run `dvc pull` or `dvc repro`")
    steps = list(record_writers(Records.read(params, layout)))
    with progress_bar("writing runs", len(steps)) as advance:
        for label, write_record in steps:
            try:
                write_record()
            except (KeyError, TypeError, json.JSONDecodeError, FileNotFoundError) as error:
                raise ValueError(
                    f"{label}: incomplete outputs ({explain(error)}); run `dvc checkout` to restore them"
                ) from error
            advance()
    print(f"{tracking_uri()}: holds " + ", ".join(label for label, _ in steps))


def record_writers(records: Records) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield a label and a function that writes the run, for every output of the data set on disk."""
    layout, names = records.layout, _run_names(records)

    def once(make: Callable[..., Record], *args: str) -> Callable[[], object]:
        return lambda: write_once(make(*args))

    yield "prepare", once(records.prepare)
    if (layout.scribbles / "summary.json").is_file():
        yield "scribbles", once(records.scribbles)
    for name in names:
        for stage in ("stage1", "stage2"):
            if (layout.run(name, stage) / "checkpoint.pt").is_file():
                yield f"{name} train_{stage}", once(records.training, name, stage)
        if layout.speed(name).is_file():
            yield f"{name} predict", once(records.prediction, name)
        if layout.results(name).is_file():
            yield f"{name} evaluate", lambda name=name: write_evaluation(records.evaluation(name))
    if layout.baselines.is_file():
        yield "baselines", once(records.baselines)
    if (layout.tables / "numbers.json").is_file():
        yield "tables", once(records.tables)
    if BEST.is_file() and read_yaml(BEST)["search"]["data"] == layout.name:
        yield "tune", lambda: write_search(records, records.search())
    if layout.page.is_file():
        yield "report", once(records.report)


def _run_names(records: Records) -> list[str]:
    """Return the variants, then the variants that a study trained with its own seeds."""
    names = list(records.params.variants)
    return names + [name for name in records.layout.run_names() if variant_of(name) in names and name not in names]


def write_once(record: Record, parent: str = "") -> str:
    """Write a record unless the store has it -> the run's id."""
    return find_run(record.tags, record.experiment) or write(record, parent=parent)


def write_evaluation(record: Record) -> None:
    """Write the evaluation's run, and add its scores to the training run and logged model of the same checkpoint."""
    write_once(record)
    keys = ("variant", "data", "data.digest", "checkpoint.digest")
    training_run = find_run({"stage": "train_stage2"} | {key: record.tags[key] for key in keys})
    if training_run:
        log_metrics(training_run, record.metrics, data=record.data)


def write_search(records: Records, record: Record) -> None:
    """Write a search's run and a child run for each trial."""
    parent = write_once(record)
    config = records.params.variant(record.tags["variant"])
    config = Config.model_validate(merge(config.model_dump(mode="json"), config.tune.trial))
    for trial in trial_records(record, config):
        write_once(trial, parent)


if __name__ == "__main__":
    run_stage(main)
