"""Connects to the MLflow store at MLFLOW_TRACKING_URI."""

import logging
import os
from pathlib import Path

from pipelines.tracking.record import EXPERIMENT
from pipelines.tracking.tracking_uri import project_dir, require_database, tracking_uri, unavailable_reason


def require_store() -> None:
    """Check, before any work, that the store answers. Raises ValueError with its address otherwise."""
    from mlflow.exceptions import MlflowException

    uri = tracking_uri()
    if uri.startswith("sqlite:///"):
        require_database(uri, Path(uri.removeprefix("sqlite:///")))
    if reason := unavailable_reason():
        raise ValueError(
            f"MLFLOW_TRACKING_URI {uri}: no MLflow server answers at this address ({reason}); start it, or unset the "
            "variable to write to mlflow.db"
        )
    try:
        experiment_id(open_client(), EXPERIMENT)
    except (MlflowException, ImportError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0][:200]
        raise ValueError(
            f"MLFLOW_TRACKING_URI {uri}: not usable ({reason}); use a server's URL or sqlite:///FILE, or unset the "
            "variable to write to mlflow.db"
        ) from error


def open_client():
    """Return a client of the store at MLFLOW_TRACKING_URI, by default mlflow.db in the project's folder."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    # MLflow's own limits are minutes; `wait_for_server` waits for a server that is away
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    from mlflow import MlflowClient, set_tracking_uri

    # importing MLflow sets up a logger for its database code that reports every table
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    set_tracking_uri(tracking_uri())
    return MlflowClient(tracking_uri())


def experiment_id(client, name: str) -> str:
    """Return the id of an experiment, which is created if it does not exist."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment:
        return experiment.experiment_id
    # by default a SQLite store writes artifacts to the working directory of the first command
    location = (project_dir() / "mlartifacts").as_uri() if tracking_uri().startswith("sqlite:") else None
    try:
        return client.create_experiment(name, artifact_location=location)
    except MlflowException:  # another process created it in between
        return client.get_experiment_by_name(name).experiment_id
