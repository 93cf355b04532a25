"""MLflow: the one place that imports it. A run per variant and training stage, found again by digests."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

EXPERIMENT = "ssvos"


def _client():
    """A client of the store at MLFLOW_TRACKING_URI, by default mlflow.db in the project's folder."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    from mlflow import MlflowClient, set_tracking_uri

    set_tracking_uri(tracking_uri())
    return MlflowClient(tracking_uri())


def tracking_uri() -> str:
    """DVC may run a stage in a temporary copy; DVC_ROOT still names the project, where people look for runs."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_home() / 'mlflow.db'}"


def _home() -> Path:
    return Path(os.environ.get("DVC_ROOT") or ".").absolute()


def _experiment(client) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(EXPERIMENT)
    if found:
        return found.experiment_id
    # without an explicit place, a SQLite store puts artifacts wherever the first command happened to run
    place = (_home() / "mlartifacts").as_uri() if tracking_uri().startswith("sqlite:") else None
    try:
        return client.create_experiment(EXPERIMENT, artifact_location=place)
    except MlflowException:  # another process made it in between
        return client.get_experiment_by_name(EXPERIMENT).experiment_id


def open_run(name: str, tags: Mapping[str, str], params: Mapping[str, object], run_id: str = "") -> str:
    """Start a run, or go on with `run_id` if the store still has it; returns its id."""
    from mlflow.entities import Param, RunTag
    from mlflow.exceptions import MlflowException

    client = _client()
    if run_id:
        try:
            client.update_run(run_id, status="RUNNING")
            return run_id
        except MlflowException:
            pass  # a lost database: the run is written anew
    all_tags = {**tags, **_dvc_tags()}
    run = client.create_run(_experiment(client), run_name=name, tags=all_tags)
    entries = [Param(key, str(value)[:6000]) for key, value in params.items()]
    for start in range(0, len(entries), 100):  # MLflow's limit of one batch
        client.log_batch(run.info.run_id, params=entries[start : start + 100])
    client.log_batch(run.info.run_id, tags=[RunTag("mlflow.source.name", f"pipelines.{tags.get('stage', name)}")])
    return run.info.run_id


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


def log_metrics(run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
    """Write metrics at a step; a repeated epoch adds no second value at its step."""
    from mlflow.entities import Metric

    client = _client()
    run = client.get_run(run_id)
    entries = []
    for key, value in metrics.items():
        seen = run.data.metrics.get(key) is not None and any(
            m.step == step for m in client.get_metric_history(run_id, key)
        )
        if not seen:
            entries.append(Metric(key, float(value), 0, step))
    client.log_batch(run_id, metrics=entries)


def log_files(run_id: str, paths: Sequence[Path], folder: str = "") -> None:
    client = _client()
    for path in paths:
        client.log_artifact(run_id, str(path), folder or None)


def log_table(run_id: str, rows: Sequence[Mapping[str, object]], name: str) -> None:
    """A table as MLflow shows it in a run's artifacts and in the comparison view."""
    import mlflow

    columns = {key: [row.get(key) for row in rows] for key in rows[0]}
    _client()
    mlflow.log_table(columns, name, run_id=run_id)


def log_input(run_id: str, name: str, digest: str, source: str, context: str, profile: Mapping[str, object]) -> None:
    """Name the data set a run used."""
    import json

    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=name,
        digest=digest,
        source_type="local",
        source=json.dumps({"uri": source}),
        profile=json.dumps(profile),
    )
    _client().log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])


def set_tags(run_id: str, tags: Mapping[str, str]) -> None:
    client = _client()
    for key, value in tags.items():
        client.set_tag(run_id, key, value)


def close_run(run_id: str, status: str = "FINISHED") -> None:
    _client().set_terminated(run_id, status)


def find_run(tags: Mapping[str, str]) -> str:
    """Id of the newest run that carries all these tags, or ''."""
    client = _client()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return ""
    where = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    found = client.search_runs([experiment.experiment_id], where, order_by=["start_time DESC"], max_results=1)
    return found[0].info.run_id if found else ""
