"""MLflow: the one place that writes to it. A stage says what it did in a `Record`; here it becomes a run."""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
from PIL import Image

from pipelines.tracking.param_lineage import acting
from pipelines.tracking.tracking_uri import await_answer, home, require_database, silence, tracking_uri

log = logging.getLogger(__name__)
EXPERIMENT = "ssvos"
SEARCHES = "ssvos-tune"
_STEP_KEY = "epoch"
_stage_began: int | None = None  # in milliseconds
_NEEDED = ("torch", "numpy", "pydantic", "einops", "pillow", "opencv-python-headless", "scikit-image", "pyarrow", "av")


@dataclass(frozen=True)
class DataUse:
    """A data set that a run used: name, digest of all its files, where it lies, as what, and some counts."""

    name: str
    digest: str
    source: str
    context: str
    profile: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """All that one run holds. Its tags identify it: a run with the same tags is the same run.

    params: all of them; the run shows those that act at its stage. history: a row an epoch, with `epoch` as the step.
    tables: rows by file name. files: by artifact folder. pictures: by name; MLflow lays those of one name side by side.
    model: a checkpoint that becomes a logged model with the variant's name.
    """

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, object]
    data: DataUse | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: Sequence[Mapping[str, float]] = ()
    tables: Mapping[str, Sequence[Mapping[str, object]]] = field(default_factory=dict)
    files: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)
    model: Path | None = None
    experiment: str = EXPERIMENT


def connect() -> None:
    """At the start of a stage: `require_store`, and the run that the stage writes at its end began now."""
    global _stage_began
    require_store()
    _stage_began = _now()


def require_store() -> None:
    """Make sure that the store answers, before any work; ValueError names the address otherwise."""
    from mlflow.exceptions import MlflowException

    uri = tracking_uri()
    if uri.startswith("sqlite:///"):
        require_database(uri, Path(uri.removeprefix("sqlite:///")))
    if fault := silence():
        raise ValueError(
            f"MLFLOW_TRACKING_URI {uri}: no MLflow server answers there ({fault}); start it, or unset the variable "
            "to write to mlflow.db"
        )
    try:
        _experiment(_client(), EXPERIMENT)
    except (MlflowException, ImportError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0][:200]
        raise ValueError(
            f"MLFLOW_TRACKING_URI {uri}: not usable ({reason}); give a server or sqlite:///FILE, or unset the variable "
            "to write to mlflow.db"
        ) from error


def _client():
    """A client of the store at MLFLOW_TRACKING_URI, by default mlflow.db in the project's folder."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    # its own are minutes; a server that is away is waited for at the end
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    from mlflow import MlflowClient, set_tracking_uri

    # an import of MLflow gives its database code a logger of its own that announces every table
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    set_tracking_uri(tracking_uri())
    return MlflowClient(tracking_uri())


def _experiment(client, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found:
        return found.experiment_id
    # without an explicit place, a SQLite store puts artifacts wherever the first command happened to run
    place = (home() / "mlartifacts").as_uri() if tracking_uri().startswith("sqlite:") else None
    try:
        return client.create_experiment(name, artifact_location=place)
    except MlflowException:  # another process made it in between
        return client.get_experiment_by_name(name).experiment_id


def open_run(record: Record, run_id: str = "", parent: str = "", began: int | None = None) -> str:
    """Start a record's run with its tags, parameters and data, or go on with `run_id` if the store still has it.

    began: when its work began, in milliseconds; now.
    """
    from mlflow.entities import Param
    from mlflow.exceptions import MlflowException
    from mlflow.tracking.context.registry import resolve_tags

    client = _client()
    if run_id:
        try:
            client.update_run(run_id, status="RUNNING")
            return run_id
        except MlflowException:
            pass  # a lost database: the run is written anew
    # user, program and git commit, as `mlflow.start_run` has them
    tags = {**resolve_tags(), **record.tags, **_dvc_tags()}
    if parent:
        tags["mlflow.parentRunId"] = parent
    experiment = _experiment(client, record.experiment)
    run = client.create_run(experiment, start_time=began, run_name=record.name, tags=tags)
    entries = [Param(key, str(value)[:6000]) for key, value in acting(record.tags["stage"], record.params).items()]
    for start in range(0, len(entries), 100):  # MLflow's limit of one batch
        client.log_batch(run.info.run_id, params=entries[start : start + 100])
    if record.data:
        _log_input(client, run.info.run_id, record.data)
    return run.info.run_id


def open_live(record: Record, run_id: str = "", parent: str = "") -> str:
    """`open_run` where the store answers; else `run_id` as it is, and `write` opens the run at its end if it is ''."""
    from mlflow.exceptions import MlflowException

    fault = silence()
    try:
        if not fault:
            return open_run(record, run_id, parent)
    except MlflowException as error:
        fault = str(error).splitlines()[0]
    log.warning("MLflow did not take the beginning of %s (%s); it is written at the end", record.name, fault)
    return run_id


def write(record: Record, run_id: str = "", parent: str = "") -> str:
    """Write a whole record and end its run; with `run_id` the rest of a run that was opened before. Returns its id.

    ValueError if the store does not take it, which is waited for.
    """
    from mlflow.exceptions import MlflowException

    await_answer()
    try:
        return _write(record, run_id, parent)
    except MlflowException as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"MLFLOW_TRACKING_URI {tracking_uri()}: did not take the run ({reason}); start it, then the command again"
        ) from error


def _write(record: Record, run_id: str, parent: str) -> str:
    client = _client()
    run_id = open_run(record, run_id, parent, _stage_began)
    for key, value in record.tags.items():
        client.set_tag(run_id, key, value)
    _log_history(run_id, record.history)
    log_metrics(run_id, record.metrics, data=record.data)
    for name, rows in record.tables.items():
        log_table(run_id, rows, name)
    for folder, paths in record.files.items():
        for path in paths:
            client.log_artifact(run_id, str(path), folder or None)
    for name, picture in record.pictures.items():
        key = re.sub(r"[^a-zA-Z0-9_\-./ ]", "_", name)  # what MLflow takes
        client.log_image(run_id, picture, key=key, step=0, synchronous=True)
    if record.model:
        client.set_tag(run_id, "model.id", _log_model(run_id, record))
    close_run(run_id)
    return run_id


def _now() -> int:
    return round(1000 * time.time())


def _dvc_tags() -> dict[str, str]:
    names = {"DVC_STAGE": "dvc.stage", "DVC_EXP_NAME": "dvc.experiment"}
    return {tag: os.environ[name] for name, tag in names.items() if os.environ.get(name)}


def data_digest(index: pa.Table) -> str:
    """16 hex digits over the fingerprints of all frames of an index, and the lists they are in."""
    rows = index.select(["split", "fingerprint"]).to_pylist()
    return hashlib.sha256("".join(f"{r['split']}{r['fingerprint']}" for r in rows).encode()).hexdigest()[:16]


def numbers(nested: Mapping, prefix: str = "") -> dict[str, float]:
    """The numeric leaves of a nested table, by dotted names that MLflow takes."""
    flat: dict[str, float] = {}
    for key, value in nested.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            flat |= numbers(value, name)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[name.replace("&", "_and_")] = float(value)
    return flat


def log_metrics(run_id: str, metrics: Mapping[str, float], step: int = 0, data: DataUse | None = None) -> None:
    """Write metrics at a step, on the run's logged model too if it has one; a repeated epoch adds no second value."""
    _log_rows(run_id, [(step, metrics)], data)


def log_live(run_id: str, history: Sequence[Mapping[str, float]]) -> None:
    """Write epochs as they come; a store that fails now stops nothing: `write` brings what is missing at the end."""
    from mlflow.exceptions import MlflowException

    fault = silence()
    try:
        if not fault:
            _log_history(run_id, history)
    except MlflowException as error:
        fault = str(error).splitlines()[0]
    if fault:
        step = int(history[-1][_STEP_KEY])
        log.warning("MLflow did not take step %d (%s); it is written at the end", step, fault)


def _log_history(run_id: str, history: Sequence[Mapping[str, float]]) -> None:
    _log_rows(run_id, [(int(row[_STEP_KEY]), row) for row in history])


def _log_rows(run_id: str, rows: Sequence[tuple[int, Mapping[str, float]]], data: DataUse | None = None) -> None:
    from mlflow.entities import Metric

    client = _client()
    run = client.get_run(run_id)
    about = {"model_id": run.data.tags.get("model.id")}
    about |= {"dataset_name": data.name, "dataset_digest": data.digest} if data else {}
    present = set(run.data.metrics)
    keys = dict.fromkeys(key for _, metrics in rows for key in metrics if key != _STEP_KEY)
    written = {(key, m.step) for key in keys if key in present for m in client.get_metric_history(run_id, key)}
    now = _now()
    entries = [
        Metric(key, float(value), now, step, **about)
        for step, metrics in rows
        for key, value in metrics.items()
        if key in keys and (key, step) not in written
    ]
    for start in range(0, len(entries), 1000):  # MLflow's limit of one batch
        client.log_batch(run_id, metrics=entries[start : start + 1000])


def log_table(run_id: str, rows: Sequence[Mapping[str, object]], name: str) -> None:
    """A table as MLflow shows it in a run's artifacts and in the comparison view; an empty one is not written.

    In names of columns a dot becomes a slash: MLflow's pages look for what is behind a dot inside the cell.
    """
    import mlflow

    if not rows:
        return
    _client()
    keys = dict.fromkeys(key for row in rows for key in row)  # sources differ in what they say
    mlflow.log_table({key.replace(".", "/"): [row.get(key) for row in rows] for key in keys}, name, run_id=run_id)


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
    """Log a checkpoint as a model that `mlflow.pyfunc.load_model` loads; it holds code as text, nothing pickled."""
    import mlflow
    import mlflow.pyfunc

    package = Path(__file__).parents[2]
    with mlflow.start_run(run_id=run_id):
        logged = mlflow.pyfunc.log_model(
            name=record.tags["variant"],
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"checkpoint": str(record.model)},
            code_paths=[str(package / "ssvos")],
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in _NEEDED],
            params={key: str(value)[:500] for key, value in acting(record.tags["stage"], record.params).items()},
            tags=dict(record.tags),
        )
    return logged.model_id


def delete_run(run_id: str) -> None:
    """Take a run away, as the pages of MLflow do; one that the store has not, or not any more, is no error."""
    from mlflow.exceptions import MlflowException

    try:
        _client().delete_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise


def close_run(run_id: str, status: str = "FINISHED") -> None:
    _client().set_terminated(run_id, status)


@contextmanager
def failing(run_id: str) -> Iterator[None]:
    """A run whose work breaks off in the block is marked as failed; it goes on where it is opened again."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except BaseException:
        with suppress(MlflowException):  # what broke off is the error to tell, not a store that is gone as well
            close_run(run_id, "FAILED")
        raise


def find_run(tags: Mapping[str, str], experiment: str = EXPERIMENT) -> str:
    """Id of the newest finished run that carries all these tags, or ''."""
    client = _client()
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return ""
    where = " and ".join([*(f"tags.`{key}` = '{value}'" for key, value in tags.items()), "status = 'FINISHED'"])
    runs = client.search_runs([found.experiment_id], where, order_by=["start_time DESC"], max_results=1)
    return runs[0].info.run_id if runs else ""
