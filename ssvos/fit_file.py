"""`ssvos fit`: one training stage from one YAML file, with PyTorch alone."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from ssvos.config import Config, FitFile, parse, read_yaml
from ssvos.data.index import labelled_frames, read_index, write_index
from ssvos.data.preparation import Tracked, prepare, source_roots
from ssvos.device import choose_device
from ssvos.files import require_writable
from ssvos.run_folder import write_run
from ssvos.scribbles.store import STORE_SCHEMA, scribble_row, write_store
from ssvos.training import first_network, fit, require_clips, training_data


def fit_from_file(path: Path, say: Callable[[str], None], tracked: Tracked, device: str = "auto") -> Path:
    """Train the stage that a YAML file names; returns the checkpoint's path.

    The file holds the keys of params.yaml (`variants` may stay and is left out of account) and a `fit` section
    (ssvos.config.FitConfig), whose paths count from the file's folder. All that is given is read before anything is
    written.
    """
    values = read_yaml(path)
    values.pop("variants", None)
    settings = parse(FitFile, values, path)
    folder, request = path.parent.absolute(), settings.fit
    out = folder / request.out
    config = Config.model_validate(settings.model_dump(exclude={"fit"}, mode="json"))
    stage, place = getattr(config.train, request.stage), choose_device(device)
    network = first_network(config, folder / request.start if request.start else "")
    require_writable(out / "checkpoint.pt")
    roots = source_roots(config, out / "embedded", folder)
    index = folder / request.index if request.index else out / "index.parquet"
    scribbles = folder / request.scribbles if request.scribbles else out / "scribbles.parquet"
    table = read_index(index) if request.index else prepare(config, roots, tracked)
    require_clips(table, config, stage, scribbles if request.scribbles else None)
    if not request.index:
        write_index(table, index)
    if not request.scribbles:
        _write_scribbles(labelled_frames(table), roots, config, scribbles, tracked)
    data = training_data(index, scribbles, roots, config)
    say(f"{len(data.fit.videos)} videos to train on, {len(data.holdout.videos)} held out, choosing by {data.choose_by}")
    progress = fit(network, data, config, stage, place, lambda epoch: say(epoch.line(request.stage, stage.epochs)))
    return write_run(out, progress, config, request.stage, variant="")


def _write_scribbles(frames: pa.Table, roots: dict[str, Path], config: Config, path: Path, tracked: Tracked) -> None:
    rows = []
    with tracked("scribbling", len(frames)) as advance:
        for row in frames.to_pylist():
            rows.append(scribble_row(row, roots[row["dataset"]], config.scribbles))
            advance()
    write_store(pa.Table.from_pylist(rows, schema=STORE_SCHEMA), path)
