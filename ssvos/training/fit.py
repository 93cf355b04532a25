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
from ssvos.training.train_state import EpochReport, SavedState, TrainState, run_digest, to_bytes
from ssvos.training.trainer import first_network, fit
from ssvos.training.training_data import require_clips, training_data


def fit_from_file(
    path: Path,
    print_line: Callable[[str], None],
    tracked: Tracked,
    device: str = "auto",
    loaders: int = 0,
    cache: Path | None = None,
) -> Path:
    """Train the stage that a YAML file describes; returns the path of the checkpoint.

    A run that was interrupted resumes from its saved state if the file and the data are unchanged. All input is read
    before anything is written.

    path: a file with the keys of params.yaml (`variants` is ignored) and a section `fit` (ssvos.config.FitConfig).
        Relative paths start from the file's folder.
    print_line: called with each line of the log.
    tracked: shows progress.
    device: `auto`, `cpu` or a CUDA device.
    loaders: number of processes that read clips; 0: this process reads them. It does not change the result.
    cache: a folder for rendered clips that several runs may share. It does not change the result.
    """
    request, config = read_fit_file(path)
    folder = path.parent.absolute()
    out = folder / request.out
    stage, torch_device = getattr(config.train, request.stage), choose_device(device)
    require_precision(stage.precision, torch_device)
    init_checkpoint = request.init_checkpoint or stage.init_checkpoint
    start = [folder / Path(init_checkpoint).expanduser()] if init_checkpoint else []
    network = first_network(config, *start)
    require_writable(out / "checkpoint.pt")
    index, scribbles, roots = _prepare_data(request, config, folder, tracked)
    data = training_data(index, scribbles, roots, config, cache)
    print_line(
        f"{len(data.fit.videos)} training videos, {len(data.holdout.videos)} held-out videos; "
        f"the held-out {data.choose_by} chooses the checkpoint"
    )
    saved = _saved_state(out, run_digest(config, request.stage, [index, scribbles, *start]), print_line)
    resume = saved.read()
    if resume:
        print_line(f"resuming from {resume.position()}")

    def save(train_state: TrainState) -> None:
        saved.write(to_bytes(train_state, saved.digest))

    def report(epoch: EpochReport) -> None:
        save(epoch.train_state)
        print_line(epoch.line(request.stage, stage.epochs))

    train_state = fit(network, data, config, stage, torch_device, report, resume, loaders, save, print_line)
    checkpoint = write_run(out, train_state, config, request.stage, variant="")
    saved.remove()
    return checkpoint


def read_fit_file(path: Path) -> tuple[FitConfig, Config]:
    """The section `fit` and the parameters of a YAML file; `variants` is ignored."""
    values = read_yaml(path)
    values.pop("variants", None)
    settings = parse(FitFile, values, path)
    return settings.fit, Config.model_validate(settings.model_dump(exclude={"fit"}, mode="json"))


def _prepare_data(
    request: FitConfig, config: Config, folder: Path, tracked: Tracked
) -> tuple[Path, Path, dict[str, Path]]:
    """Paths of the index and the scribbles, and the folders of the sources. An index or scribbles that the YAML file
    does not name are made in the output folder."""
    out = folder / request.out
    index = folder / request.index if request.index else out / "index.parquet"
    scribbles = folder / request.scribbles if request.scribbles else out / "scribbles.parquet"
    roots = source_roots(config, index.parent / "embedded", folder)
    table = read_index(index) if request.index else prepare(config, roots, tracked)
    require_clips(table, config, getattr(config.train, request.stage), scribbles if request.scribbles else None)
    if not request.index:
        write_index(table, index)
    if not request.scribbles:
        _write_scribbles(labelled_frames(table), roots, config, scribbles, tracked)
    return index, scribbles, roots


def _saved_state(out: Path, digest: str, print_line: Callable[[str], None]) -> SavedState:
    """The saved state of this run. The states of other runs in the same folder are reported and not changed."""
    saved = SavedState(out / f"resume-{digest}.pt", digest)
    for path in sorted({*out.glob("resume-*.pt")} - {saved.path, saved.previous}):
        print_line(f"{path}: the state of a run with other parameters or data, not used")
    return saved


def _write_scribbles(frames: pa.Table, roots: dict[str, Path], config: Config, path: Path, tracked: Tracked) -> None:
    rows = []
    with tracked("scribbling", len(frames)) as advance:
        for row in frames.to_pylist():
            rows.append(scribble_row(row, roots[row["dataset"]], config.scribbles))
            advance()
    write_store(pa.Table.from_pylist(rows, schema=STORE_SCHEMA), path)
