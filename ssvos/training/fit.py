"""`ssvos fit`: one training stage from one YAML file, with PyTorch alone."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from ssvos.config import Config, FitConfig, FitFile, parse, read_yaml
from ssvos.data.index import labelled_frames, read_index, write_index
from ssvos.data.preparation import Tracked, prepare, source_roots
from ssvos.device import choose_device, require_precision
from ssvos.files import require_writable
from ssvos.scribbles.store import STORE_SCHEMA, scribble_row, write_store
from ssvos.training.run_dir import write_run
from ssvos.training.train_state import EpochReport, Kept, TrainState, run_digest, to_bytes
from ssvos.training.trainer import first_network, fit, require_clips, training_data


def fit_from_file(
    path: Path,
    say: Callable[[str], None],
    tracked: Tracked,
    device: str = "auto",
    loaders: int = 0,
    cache: Path | None = None,
) -> Path:
    """Train the stage that a YAML file names; returns the checkpoint's path. Begun before with the same file and data,
    and interrupted, it goes on from the state that it left beside its output. loaders: processes that read clips beside
    the one that trains; cache: a folder for rendered clips, which several trainings may share. Neither changes a
    result.

    The file holds the keys of params.yaml (`variants` may stay and is left out of account) and a `fit` section
    (ssvos.config.FitConfig), whose paths count from the file's folder. All that is given is read before anything is
    written.
    """
    request, config = read_fit_file(path)
    folder = path.parent.absolute()
    out = folder / request.out
    stage, place = getattr(config.train, request.stage), choose_device(device)
    require_precision(stage.precision, place)
    given = request.init_checkpoint or stage.init_checkpoint
    start = [folder / Path(given).expanduser()] if given else []
    network = first_network(config, *start)
    require_writable(out / "checkpoint.pt")
    index = folder / request.index if request.index else out / "index.parquet"
    roots = source_roots(config, index.parent / "embedded", folder)
    scribbles = folder / request.scribbles if request.scribbles else out / "scribbles.parquet"
    table = read_index(index) if request.index else prepare(config, roots, tracked)
    require_clips(table, config, stage, scribbles if request.scribbles else None)
    if not request.index:
        write_index(table, index)
    if not request.scribbles:
        _write_scribbles(labelled_frames(table), roots, config, scribbles, tracked)
    data = training_data(index, scribbles, roots, config, cache)
    say(f"{len(data.fit.videos)} videos to train on, {len(data.holdout.videos)} held out, choosing by {data.choose_by}")
    kept = _kept(out, run_digest(config, request.stage, [index, scribbles, *start]), say)
    resume = kept.read()
    if resume:
        say(f"going on from {resume.place()}")

    def save(progress: TrainState) -> None:
        kept.write(to_bytes(progress, kept.digest))

    def report(epoch: EpochReport) -> None:
        save(epoch.progress)
        say(epoch.line(request.stage, stage.epochs))

    progress = fit(network, data, config, stage, place, report, resume, loaders, save, say)
    checkpoint = write_run(out, progress, config, request.stage, variant="")
    kept.remove()
    return checkpoint


def read_fit_file(path: Path) -> tuple[FitConfig, Config]:
    """The fit that a YAML file asks for and its parameters, `variants` left out of account."""
    values = read_yaml(path)
    values.pop("variants", None)
    settings = parse(FitFile, values, path)
    return settings.fit, Config.model_validate(settings.model_dump(exclude={"fit"}, mode="json"))


def _kept(out: Path, digest: str, say: Callable[[str], None]) -> Kept:
    """Where the state of this run lies; those of others in the same folder are told and left alone."""
    kept = Kept(out / f"resume-{digest}.pt", digest)
    for path in sorted({*out.glob("resume-*.pt")} - {kept.path, kept.before}):
        say(f"{path}: of other parameters or data, not gone on from")
    return kept


def _write_scribbles(frames: pa.Table, roots: dict[str, Path], config: Config, path: Path, tracked: Tracked) -> None:
    rows = []
    with tracked("scribbling", len(frames)) as advance:
        for row in frames.to_pylist():
            rows.append(scribble_row(row, roots[row["dataset"]], config.scribbles))
            advance()
    write_store(pa.Table.from_pylist(rows, schema=STORE_SCHEMA), path)
