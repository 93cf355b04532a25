"""Where MLflow's store is, and whether it is there."""

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
_ANSWERS_WITHIN = 5.0  # seconds a tracking server has to answer
_AWAY_AT_MOST = 300.0  # seconds it may be away at the end of a stage


def tracking_uri() -> str:
    """DVC may run a stage in a temporary copy; DVC_ROOT still names the project, where people look for runs."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


def home() -> Path:
    return Path(os.environ.get("DVC_ROOT") or ".").absolute()


def silence() -> str:
    """Why a tracking server does not answer; '' if it does, or there is none: a database is a file."""
    uri = tracking_uri()
    if not uri.startswith(("http://", "https://")):
        return ""
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_ANSWERS_WITHIN):
            return ""
    except (urllib.error.URLError, OSError, ValueError) as error:
        return str(error)


def await_answer() -> None:
    """At the end of a stage, whose work would be for nothing: a server that is away for a while is waited for."""
    until = time.monotonic() + _AWAY_AT_MOST
    if fault := silence():
        log.warning(
            "MLflow at %s does not answer (%s); waiting %.0f seconds for it", tracking_uri(), fault, _AWAY_AT_MOST
        )
    while silence() and time.monotonic() < until:
        time.sleep(2)


def require_database(uri: str, path: Path) -> None:
    """MLflow tries a database that it cannot open for minutes."""
    try:
        require_writable(path)
    except OSError as error:
        raise ValueError(f"MLFLOW_TRACKING_URI {uri}: {error}") from error
    if not path.is_file():
        return
    try:
        # for writing: a process that was killed within a transaction leaves one that must be rolled back first
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True)) as database:
            database.execute("PRAGMA schema_version")
    except sqlite3.Error as error:
        raise ValueError(f"MLFLOW_TRACKING_URI {uri}: {error}; move the file away or name another") from error
