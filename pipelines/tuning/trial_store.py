"""Saves a running search's trials on disk, one file each, so that an interrupted search can resume."""

import json
from dataclasses import asdict
from pathlib import Path

from pipelines.cluster.storage import StorageLocation, put
from pipelines.tuning.search_callback import Trial


class TrialStore:
    """The trials of one search; the folder's name contains the search's digest, so no other search reads them.

    known: the trials that were saved when this object was created, by number.

    Raises ValueError for a file that is not a trial.
    """

    def __init__(self, folder: Path | StorageLocation) -> None:
        self.folder = folder
        self.known = [_read_trial(path) for path in sorted(folder.glob("trial-*.json"), key=str)]

    def write(self, trial: Trial) -> None:
        """Save a trial completely or not at all; it replaces the trial's earlier file."""
        content = json.dumps(asdict(trial), indent=2, allow_nan=False)
        put(self.folder / f"trial-{trial.number:04d}.json", content.encode())


def _read_trial(path: Path | StorageLocation) -> Trial:
    try:
        return Trial(**json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a saved trial ({error}); remove its folder to start a new search") from error
