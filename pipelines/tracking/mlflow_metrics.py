"""Writes metrics and tables to an MLflow run."""

import logging
import time
from collections.abc import Mapping, Sequence

from pipelines.tracking.mlflow_store import open_client
from pipelines.tracking.record import DataUse
from pipelines.tracking.tracking_uri import unavailable_reason

log = logging.getLogger(__name__)
_STEP_KEY = "epoch"


def log_metrics(run_id: str, metrics: Mapping[str, float], step: int = 0, data: DataUse | None = None) -> None:
    """Write metrics at a step, also to the run's logged model if it has one. A step is never written twice."""
    _log_rows(run_id, [(step, metrics)], data)


def log_history(run_id: str, history: Sequence[Mapping[str, float]]) -> None:
    """Write a row per epoch, with `epoch` as the step."""
    _log_rows(run_id, [(int(row[_STEP_KEY]), row) for row in history])


def try_log_history(run_id: str, history: Sequence[Mapping[str, float]]) -> None:
    """`log_history` during a training; a store that fails only causes a warning, and `write` adds the missing rows."""
    from mlflow.exceptions import MlflowException

    reason = unavailable_reason()
    try:
        if not reason:
            log_history(run_id, history)
    except MlflowException as error:
        reason = str(error).splitlines()[0]
    if reason:
        step = int(history[-1][_STEP_KEY])
        log.warning("MLflow did not accept step %d (%s); it will be written at the end", step, reason)


def _log_rows(run_id: str, rows: Sequence[tuple[int, Mapping[str, float]]], data: DataUse | None = None) -> None:
    from mlflow.entities import Metric

    client = open_client()
    run = client.get_run(run_id)
    about = {"model_id": run.data.tags.get("model.id")}
    about |= {"dataset_name": data.name, "dataset_digest": data.digest} if data else {}
    present = set(run.data.metrics)
    keys = dict.fromkeys(key for _, metrics in rows for key in metrics if key != _STEP_KEY)
    written = {(key, m.step) for key in keys if key in present for m in client.get_metric_history(run_id, key)}
    now = now_ms()
    entries = [
        Metric(key, float(value), now, step, **about)
        for step, metrics in rows
        for key, value in metrics.items()
        if key in keys and (key, step) not in written
    ]
    for start in range(0, len(entries), 1000):  # MLflow's limit of one batch
        client.log_batch(run_id, metrics=entries[start : start + 1000])


def log_table(run_id: str, rows: Sequence[Mapping[str, object]], name: str) -> None:
    """Write a table as an artifact that MLflow's comparison view shows; an empty table is not written.

    A dot in a column's name becomes a slash: MLflow's pages read a dot as a path into the cell.
    """
    import mlflow

    if not rows:
        return
    open_client()
    keys = dict.fromkeys(key for row in rows for key in row)  # rows of different sources have different columns
    mlflow.log_table({key.replace(".", "/"): [row.get(key) for row in rows] for key in keys}, name, run_id=run_id)


def now_ms() -> int:
    """Return the time in milliseconds, as MLflow stores it."""
    return round(1000 * time.time())
