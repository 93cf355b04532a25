"""Writes MLflow runs: a stage describes its result in a `Record`, and `write` turns it into a run."""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from pipelines.tracking.mlflow_metrics import log_history, log_metrics, log_table, now_ms
from pipelines.tracking.mlflow_store import experiment_id, open_client, require_store
from pipelines.tracking.param_lineage import effective_params
from pipelines.tracking.record import EXPERIMENT, DataUse, Record
from pipelines.tracking.tracking_uri import tracking_uri, unavailable_reason, wait_for_server

log = logging.getLogger(__name__)
_stage_start_ms: int | None = None
_MODEL_PACKAGES = (
    "torch",
    "numpy",
    "pydantic",
    "einops",
    "pillow",
    "opencv-python-headless",
    "scikit-image",
    "pyarrow",
    "av",
)


def connect() -> None:
    """Check the store at the start of a stage, and note the time as the start of the run that the stage will write."""
    global _stage_start_ms
    require_store()
    _stage_start_ms = now_ms()


def open_run(record: Record, run_id: str = "", parent: str = "", start_ms: int | None = None) -> str:
    """Start a record's run with its tags, parameters and data -> its id.

    run_id: a run to resume, if the store still has it.
    parent: id of the parent run.
    start_ms: start of the run's work in milliseconds, by default now.
    """
    from mlflow.entities import Param
    from mlflow.exceptions import MlflowException
    from mlflow.tracking.context.registry import resolve_tags

    client = open_client()
    if run_id:
        try:
            client.update_run(run_id, status="RUNNING")
            return run_id
        except MlflowException:
            pass  # the database was lost: write the run again
    # user, program and git commit, as in `mlflow.start_run`
    tags = {**resolve_tags(), **record.tags, **_dvc_tags()}
    if parent:
        tags["mlflow.parentRunId"] = parent
    experiment = experiment_id(client, record.experiment)
    run = client.create_run(experiment, start_time=start_ms, run_name=record.name, tags=tags)
    params = effective_params(record.tags["stage"], record.params)
    entries = [Param(key, str(value)[:6000]) for key, value in params.items()]
    for start in range(0, len(entries), 100):  # MLflow's limit of one batch
        client.log_batch(run.info.run_id, params=entries[start : start + 100])
    if record.data:
        _log_input(client, run.info.run_id, record.data)
    return run.info.run_id


def try_open_run(record: Record, run_id: str = "", parent: str = "") -> str:
    """`open_run` if the store answers; otherwise a warning, and `write` opens the run later -> `run_id` unchanged."""
    from mlflow.exceptions import MlflowException

    reason = unavailable_reason()
    try:
        if not reason:
            return open_run(record, run_id, parent)
    except MlflowException as error:
        reason = str(error).splitlines()[0]
    log.warning("MLflow did not accept the start of %s (%s); it will be written at the end", record.name, reason)
    return run_id


def write(record: Record, run_id: str = "", parent: str = "") -> str:
    """Write a complete record and end its run -> its id. Waits for a server that is away.

    run_id: a run that was opened before; only what it lacks is written.

    Raises ValueError if the store does not accept the run.
    """
    from mlflow.exceptions import MlflowException

    wait_for_server()
    try:
        return _write(record, run_id, parent)
    except MlflowException as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"MLFLOW_TRACKING_URI {tracking_uri()}: did not accept the run ({reason}); start the server, then repeat "
            "the command"
        ) from error


def _write(record: Record, run_id: str, parent: str) -> str:
    client = open_client()
    run_id = open_run(record, run_id, parent, _stage_start_ms)
    for key, value in record.tags.items():
        client.set_tag(run_id, key, value)
    log_history(run_id, record.history)
    log_metrics(run_id, record.metrics, data=record.data)
    for name, rows in record.tables.items():
        log_table(run_id, rows, name)
    for folder, paths in record.files.items():
        for path in paths:
            client.log_artifact(run_id, str(path), folder or None)
    for name, picture in record.pictures.items():
        key = re.sub(r"[^a-zA-Z0-9_\-./ ]", "_", name)  # the characters that MLflow accepts
        client.log_image(run_id, picture, key=key, step=0, synchronous=True)
    if record.model:
        client.set_tag(run_id, "model.id", _log_model(run_id, record))
    close_run(run_id)
    return run_id


def _dvc_tags() -> dict[str, str]:
    names = {"DVC_STAGE": "dvc.stage", "DVC_EXP_NAME": "dvc.experiment"}
    return {tag: os.environ[name] for name, tag in names.items() if os.environ.get(name)}


def _log_input(client, run_id: str, data: DataUse) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=data.name,
        digest=data.digest,
        source_type="local",
        source=json.dumps({"uri": data.source}),
        profile=json.dumps(data.profile),
    )
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", data.context)])])


def _log_model(run_id: str, record: Record) -> str:
    """Log a checkpoint as a model for `mlflow.pyfunc.load_model` -> its id. Its code is text, nothing is pickled."""
    import mlflow
    import mlflow.pyfunc

    package = Path(__file__).parents[2]
    params = effective_params(record.tags["stage"], record.params)
    with mlflow.start_run(run_id=run_id):
        logged = mlflow.pyfunc.log_model(
            name=record.tags["variant"],
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"checkpoint": str(record.model)},
            code_paths=[str(package / "ssvos")],
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in _MODEL_PACKAGES],
            params={key: str(value)[:500] for key, value in params.items()},
            tags=dict(record.tags),
        )
    return logged.model_id


def delete_run(run_id: str) -> None:
    """Delete a run as MLflow's pages do; a run that the store does not have is no error."""
    from mlflow.exceptions import MlflowException

    try:
        open_client().delete_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise


def close_run(run_id: str, status: str = "FINISHED") -> None:
    open_client().set_terminated(run_id, status)


@contextmanager
def mark_failed_on_error(run_id: str) -> Iterator[None]:
    """Mark the run as failed if the block raises; `open_run` can resume it later."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except BaseException:
        with suppress(MlflowException):  # the block's error must not be hidden by one of the store
            close_run(run_id, "FAILED")
        raise


def find_run(tags: Mapping[str, str], experiment: str = EXPERIMENT) -> str:
    """Return the id of the newest finished run that has all these tags, or ''."""
    client = open_client()
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return ""
    where = " and ".join([*(f"tags.`{key}` = '{value}'" for key, value in tags.items()), "status = 'FINISHED'"])
    runs = client.search_runs([found.experiment_id], where, order_by=["start_time DESC"], max_results=1)
    return runs[0].info.run_id if runs else ""
