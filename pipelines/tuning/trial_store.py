"""A search's trials on disk while it runs, a file each, so that one that was interrupted goes on."""

import json
from dataclasses import asdict
from pathlib import Path

from pipelines.cluster.storage import Place, put
from pipelines.tuning.search_callback import Trial


class TrialStore:
    """In a folder whose name carries the search's digest: another search never finds them.

    known: all that had been started when this was made, in order. ValueError names a file that is none of a trial.
    """

    def __init__(self, folder: Path | Place) -> None:
        self.folder = folder
        self.known = [_read(path) for path in sorted(folder.glob("trial-*.json"), key=str)]

    def write(self, trial: Trial) -> None:
        """Write a trial whole or not at all; it takes the place of what was written of it before."""
        content = json.dumps(asdict(trial), indent=2, allow_nan=False)
        put(self.folder / f"trial-{trial.number:04d}.json", content.encode())


def _read(path: Path | Place) -> Trial:
    try:
        return Trial(**json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a trial of a search ({error}); remove its folder to search anew") from error
