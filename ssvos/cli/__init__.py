"""The command line, `ssvos`: thin commands over the package; heavy imports wait inside them."""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ssvos import __version__

_SHOWN = 100  # faults that are told one by one

app = typer.Typer(
    name="ssvos",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Protocol(StrEnum):
    davis2017 = "davis2017"
    davis2016 = "davis2016"
    davis2017_unsupervised = "davis2017-unsupervised"
    youtube_vos = "youtube-vos"


class Benchmark(StrEnum):
    davis2017_testdev = "davis2017-testdev"
    youtube_vos = "youtube-vos"


class Convention(StrEnum):
    after_entry = "after_entry"
    after_entry_listed_only = "after_entry_listed_only"
    from_entry = "from_entry"
    after_entry_without_last = "after_entry_without_last"


class Layout(StrEnum):
    davis = "davis"
    youtube_vos = "youtube-vos"
    folder = "folder"


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"ssvos {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True)] = False,
    # taken out of the arguments by main(), so that it may stand anywhere; here for the help text
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Segment objects in video from scribbles, and learn to.

    Example: ssvos segment clip/ --scribble clip/scribble.png --checkpoint checkpoint.pt --out masks/
    """


@app.command()
def scribble(
    masks: Annotated[Path, typer.Argument(help="Folder <seq>/<frame>.png of dense masks.")],
    out: Annotated[Path, typer.Argument(help="Where <seq>/<frame>.png scribbles go.")],
    width: Annotated[int, typer.Option(min=1, max=255, help="Stroke width in pixels.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the background rectangles.")] = 0,
) -> None:
    """Simulate a scribble for every mask: skeletons of the objects, a rectangle of background around them.

    Example: ssvos scribble DAVIS/Annotations/480p scribbles/ --width 5 --seed 0
    """
    from ssvos.config import ScribbleConfig
    from ssvos.files import require_writable
    from ssvos.labels import read_labels, write_labels
    from ssvos.scribbles.simulate import scribble_rng, simulate_scribble

    config = ScribbleConfig(width=width, seed=seed)
    paths = _label_paths(masks)
    if out.resolve().is_relative_to(masks.resolve()):
        raise ValueError(f"{out}: lies in {masks}, scribbles would take the masks' places; choose another folder")
    for path in paths:
        require_writable(out / path.parent.name / path.name)
    with _tracked("scribbling", 2 * len(paths)) as advance:
        for path in paths:
            read_labels(path)  # a broken mask is found before anything is written
            advance()
        for path in paths:
            sequence = path.parent.name
            drawn = simulate_scribble(read_labels(path), scribble_rng(seed, sequence, path.stem), config)
            write_labels(out / sequence / path.name, drawn)
            advance()
    typer.echo(f"{len(paths)} scribbles in {out}")


def _label_paths(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected <seq>/<frame>.png below it")
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix == ".png":
            raise ValueError(f"{path}: lies beside the sequences; put masks in folders <seq>/<frame>.png")
    paths = sorted(folder.glob("*/*.png"))
    for path in sorted(folder.glob("*/*.[pP][nN][gG]")):
        if path.suffix != ".png":
            raise ValueError(f"{path}: would be left out; rename it to {path.stem}.png")
    if not paths:
        raise ValueError(f"{folder}: holds no <seq>/<frame>.png; give the folder above the sequences")
    return paths


@app.command()
def evaluate(
    gt: Annotated[Path, typer.Argument(help="Folder <seq>/<frame>.png of true masks.")],
    pred: Annotated[Path, typer.Argument(help="Folder <seq>/<frame>.png of predicted masks.")],
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the scores there.")] = None,
    frames_out: Annotated[Path | None, typer.Option("--frames", help="Write J and F of each frame there, CSV.")] = None,
    protocol: Annotated[Protocol, typer.Option(help="Whose rules.")] = Protocol.davis2017,
    meta: Annotated[Path | None, typer.Option(help="youtube-vos: valid/meta.json.")] = None,
    train_meta: Annotated[Path | None, typer.Option(help="youtube-vos: train/meta.json.")] = None,
    convention: Annotated[
        Convention | None, typer.Option(help="youtube-vos: which frames of an object count; after_entry by default.")
    ] = None,
    split: Annotated[Path | None, typer.Option(help="File with a sequence a line; all by default.")] = None,
) -> None:
    """Score predicted masks by a benchmark's rules: a table in percent, a row an object and one of all.

    Example: ssvos evaluate DAVIS/Annotations/480p masks/ --split DAVIS/ImageSets/2017/val.txt --json scores.json
    """
    from ssvos.evaluation.mask_folders import planned, score
    from ssvos.metrics.sequence_folders import unscored

    is_youtube_vos = protocol is Protocol.youtube_vos
    if is_youtube_vos and (meta is None or train_meta is None):
        raise typer.BadParameter("youtube-vos needs --meta and --train-meta")
    if not is_youtube_vos and (meta or train_meta or convention):
        raise typer.BadParameter("--meta, --train-meta and --convention are of --protocol youtube-vos")
    if json_out and json_out == frames_out:
        raise typer.BadParameter("--json and --frames name one file")
    evaluation = planned(protocol, gt, pred, split, meta, train_meta, convention or Convention.after_entry)
    typer.echo(score(evaluation, json_out, frames_out, _tracked))
    outputs = [path for path in (json_out, frames_out) if path]
    for line in unscored(pred, [task.sequence for task in evaluation.tasks], split is not None, outputs):
        typer.echo(f"note: {line}", err=True)


@app.command()
def submit(
    pred: Annotated[Path, typer.Argument(help="Folder <seq>/<frame>.png of predicted masks.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.zip", help="Where the zip is written.")],
    benchmark: Annotated[Benchmark, typer.Option(help="Whose server.")],
    data: Annotated[Path, typer.Option(help="The benchmark's data: DAVIS's folder, or YouTube-VOS's `valid`.")],
) -> None:
    """Check predicted masks, name every fault, and write the zip that a benchmark's server takes.

    Example: ssvos submit masks/ out.zip --benchmark davis2017-testdev --data DAVIS
    """
    from ssvos.evaluation.submission import TOP_FOLDERS, find_faults, wanted_masks, write_zip
    from ssvos.files import require_writable

    if out.suffix != ".zip":
        raise ValueError(f"{out}: a submission is a zip; give a name that ends in .zip")
    if out.resolve().is_relative_to(pred.resolve()):
        raise ValueError(f"{out}: lies in {pred}, beside the masks; choose another folder")
    require_writable(out)
    wanted = wanted_masks(benchmark, data)
    total = sum(len(video.frames) for video in wanted)
    with _tracked("checking masks", total) as advance:
        faults = find_faults(pred, wanted, advance)
    if faults:
        _refuse(faults)
    with _tracked("writing masks", total) as advance:
        made = write_zip(pred, wanted, out, TOP_FOLDERS[benchmark], advance)
    typer.echo(f"{out}: {made.num_sequences} sequences, {made.num_frames} frames, {made.num_bytes} bytes")
    typer.echo(f"sha256 {made.sha256}")
    if made.num_left_out:
        typer.echo(f"left out: {made.num_left_out} masks of frames that the server does not ask for")


def _refuse(faults: list[str]) -> NoReturn:
    """Exit status 1 with a line for each of several faults, as many as a person would read, and their number."""
    for fault in faults[:_SHOWN]:
        typer.echo(f"ssvos: {fault}", err=True)
    if len(faults) > _SHOWN:
        typer.echo(f"ssvos: and {len(faults) - _SHOWN} more", err=True)
    if len(faults) > 1:
        typer.echo(f"ssvos: {len(faults)} faults; nothing was written", err=True)
    raise typer.Exit(1)


@app.command()
def split(
    meta: Annotated[Path, typer.Argument(metavar="TRAIN_META", help="meta.json of YouTube-VOS's training set.")],
    out: Annotated[Path, typer.Argument(help="A new folder, in YouTube-VOS's layout: train/ and valid/.")],
    unseen_share: Annotated[
        float, typer.Option(help="Share of the categories that train nothing (the benchmark: 26 of 91).")
    ] = 0.29,
    val_share: Annotated[float, typer.Option(help="Share of the other videos that is held out.")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is drawn.")] = 0,
) -> None:
    """Hold a validation set with seen and unseen categories out of YouTube-VOS's training set.

    Example: ssvos split YouTube-VOS/train/meta.json heldout/ --unseen-share 0.29 --val-share 0.1 --seed 0
    """
    from ssvos.evaluation.unseen_split import write_split

    made = write_split(meta, out, unseen_share, val_share, seed)
    typer.echo(f"{out}/train: {len(made.train)} videos, {len(made.seen)} categories")
    typer.echo(f"{out}/valid: {len(made.valid)} videos, {len(made.valid_unseen)} with one of the unseen categories:")
    typer.echo(", ".join(made.unseen))


@app.command()
def segment(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="Folder of frames, or a video file.")],
    scribble: Annotated[Path, typer.Option(help="Scribble PNG of the first frame, or DAVIS-interactive JSON.")],
    out: Annotated[Path, typer.Option(help="Where a palette PNG a frame goes.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="A checkpoint.pt of this project; without one, that which comes along: docs/model-card.md."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write overlay.mp4 (H.264).")] = False,
    foreground_bias: Annotated[
        float, typer.Option(help="Taken off the object's log-odds: larger gives tighter masks.")
    ] = 0.0,
    refine: Annotated[
        int, typer.Option(min=0, help="Rounds of dense-CRF inference, which follow the image's edges; 0: none.")
    ] = 5,
    colours: Annotated[
        float, typer.Option(min=0, help="Weight of the first frame's colours beside the network; 0: none, 1: full.")
    ] = 1.0,
    flow: Annotated[
        float, typer.Option(min=0, help="Weight of what GrabCut and optical flow carry along; 0: none, and faster.")
    ] = 4.0,
    online: Annotated[
        int, typer.Option(min=0, help="Steps of learning from the scribble before segmenting: slower, often better.")
    ] = 0,
    full_size: Annotated[
        bool, typer.Option("--full-size", help="Frames at their own size, not at that of training.")
    ] = False,
) -> None:
    """Segment a video of your own from a scribble on its first frame.

    Example: ssvos segment frames/ --scribble scribble.png --out masks/ --overlay
    """
    from ssvos.config import ColourConfig, FlowConfig, OnlineConfig, PredictConfig, RefinementConfig
    from ssvos.inference.segment_video import segment_video
    from ssvos.models.checkpoint import PACKAGED

    for option, number in {"--foreground-bias": foreground_bias, "--colours": colours, "--flow": flow}.items():
        if not math.isfinite(number):
            raise ValueError(f"{option} {number}: is no number; give one, for example 0.5")
    settings = PredictConfig(
        foreground_bias=foreground_bias,
        refinement=RefinementConfig(iterations=refine),
        colour=ColourConfig(weight=colours),
        flow=FlowConfig(weight=flow),
        online=OnlineConfig(steps=online),
    )
    count = segment_video(source, scribble, checkpoint or PACKAGED, out, device, overlay, full_size, settings, _tracked)
    typer.echo(f"{count} masks in {out}")


@app.command()
def fit(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Parameters, and a `fit` section.")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    loaders: Annotated[int, typer.Option(min=0, help="Processes that read clips beside the training.")] = 0,
    cache: Annotated[Path | None, typer.Option(help="Folder of rendered clips that several trainings share.")] = None,
) -> None:
    """Train one stage on one device with PyTorch alone.

    Example: ssvos fit fit.yaml, where fit.yaml holds the keys of params.yaml and `fit: {stage: stage1, out: runs/a}`
    """
    from ssvos.training.fit import fit_from_file

    typer.echo(fit_from_file(config, typer.echo, _tracked, device, loaders, cache))


@app.command()
def pack(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The file that `ssvos fit` would be given.")],
    out: Annotated[Path, typer.Argument(help="A new folder for frames, labels, scribbles and the file itself.")],
    height: Annotated[int, typer.Option(min=16, help="Frames that are higher are made so high.")] = 240,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of the frames, as JPEG.")] = 75,
) -> None:
    """Pack what a training reads into one small folder, to train on another machine: ssvos fit OUT/fit.yaml.

    Example: ssvos pack fit.yaml packed/ --height 240
    """
    from ssvos.training.pack import pack_from_file

    typer.echo(pack_from_file(config, out, height, quality, _tracked))


@app.command()
def plan(
    preset: Annotated[str, typer.Option(help="A preset: demo, davis, ... (docs/presets.md).")] = "",
    data: Annotated[list[str] | None, typer.Option(metavar="[NAME=]DIR", help="A folder of videos; or `demo`.")] = None,
    layout: Annotated[Layout | None, typer.Option(help="The folder's layout, where it is not recognised.")] = None,
    train: Annotated[str, typer.Option(help="The list to train on.")] = "",
    val: Annotated[str, typer.Option(help="The list to judge on.")] = "",
    holdout: Annotated[str, typer.Option(help="A list that chooses the checkpoint; else a part of --train.")] = "",
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Another value.")] = None,
    params: Annotated[Path, typer.Option(help="What is planned without --preset and --data.")] = Path("params.yaml"),
    workers: Annotated[int | None, typer.Option(min=0, help="Training workers; by default two, or one a GPU.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda")] = "auto",
    write: Annotated[bool, typer.Option("--write", help="Write these parameters to --params.")] = False,
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write the numbers there.")] = None,
) -> None:
    """Say what a run will do, how long it takes here and what it needs; write the parameters of a preset.

    Example: ssvos plan --preset davis --data /data/DAVIS --set train.stage1.epochs=40 --write
    """
    import json

    from ssvos.config.variants import params_from
    from ssvos.files import write_text
    from ssvos.hardware import this_machine
    from ssvos.planning.plan import make_plan
    from ssvos.planning.plan_text import as_table, describe
    from ssvos.planning.presets import Request, requested_values, require_folders, write_params

    machine = this_machine(device)
    request = Request(preset, data or (), layout or "", train, val, holdout, settings or ())
    values, origin = requested_values(request, params, "gpu-24gb" if machine.num_gpus else "cpu-small")
    asked = params_from(values, origin)
    if write:
        require_folders(asked.base, origin)
    made = make_plan(asked, machine, workers, _tracked)
    typer.echo(describe(made, f"{origin}, data set {asked.base.data.name}"))
    if json_out:
        write_text(json_out, json.dumps(as_table(made), indent=2) + "\n")
    if write:
        typer.echo(write_params(values, params, origin))


@contextmanager
def _tracked(what: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A progress bar on a terminal, nothing when piped; gives the function that advances it."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count=1: bar.advance(task, count)


def main() -> None:
    """Entry point: bad input ends with one line on standard error and exit status 1."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments)
    except (ValueError, OSError, FloatingPointError) as error:
        if "--debug" in sys.argv:
            raise
        from ssvos.files import explain

        typer.echo(f"ssvos: {explain(error)}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
