"""The address of MLflow's store, and whether the store answers there."""

import logging
import os
import sqlite3
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from ssvos.files import require_writable

log = logging.getLogger(__name__)
_ANSWER_SECONDS = 5.0  # for a server to answer a request
_WAIT_SECONDS = 300.0  # for a server that is away at the end of a stage


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI, or mlflow.db in the project's folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project_dir() / 'mlflow.db'}"


def project_dir() -> Path:
    """Return the project's folder; DVC may run a stage in a temporary copy, but DVC_ROOT still names the project."""
    return Path(os.environ.get("DVC_ROOT") or ".").absolute()


def unavailable_reason() -> str:
    """Return why the tracking server does not answer; '' if it answers, or if the store is a database file."""
    uri = tracking_uri()
    if not uri.startswith(("http://", "https://")):
        return ""
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_ANSWER_SECONDS):
            return ""
    except (urllib.error.URLError, OSError, ValueError) as error:
        return str(error)


def wait_for_server() -> None:
    """Wait up to five minutes for a server that is away, so that a stage's finished work is not lost."""
    deadline = time.monotonic() + _WAIT_SECONDS
    if reason := unavailable_reason():
        log.warning(
            "MLflow at %s does not answer (%s); waiting %.0f seconds for it", tracking_uri(), reason, _WAIT_SECONDS
        )
    while unavailable_reason() and time.monotonic() < deadline:
        time.sleep(2)


def require_database(uri: str, path: Path) -> None:
    """Raise ValueError if the database cannot be opened; MLflow itself would retry for minutes."""
    try:
        require_writable(path)
    except OSError as error:
        raise ValueError(f"MLFLOW_TRACKING_URI {uri}: {error}") from error
    if not path.is_file():
        return
    try:
        # read-write: SQLite must first roll back the transaction of a process that was killed
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True)) as database:
            database.execute("PRAGMA schema_version")
    except sqlite3.Error as error:
        raise ValueError(f"MLFLOW_TRACKING_URI {uri}: {error}; move the file away, or name another file") from error
