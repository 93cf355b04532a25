"""The command line, `ssvos`: thin commands over the package; heavy imports wait inside them."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ssvos import __version__

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
    json_out: Annotated[Path, typer.Option("--json", help="Where the scores are written.")],
    protocol: Annotated[Protocol, typer.Option(help="Whose rules.")] = Protocol.davis2017,
    meta: Annotated[Path | None, typer.Option(help="youtube-vos: valid/meta.json.")] = None,
    train_meta: Annotated[Path | None, typer.Option(help="youtube-vos: train/meta.json.")] = None,
    split: Annotated[Path | None, typer.Option(help="File with a sequence a line; all by default.")] = None,
) -> None:
    """Score predicted masks by a benchmark's rules.

    Example: ssvos evaluate DAVIS/Annotations/480p masks/ --split DAVIS/ImageSets/2017/val.txt --json scores.json
    """
    import json

    from ssvos.data.videos import read_list
    from ssvos.files import require_writable, write_text
    from ssvos.metrics import davis, youtube_vos

    if split and not split.is_file():
        raise FileNotFoundError(f"{split}: no such list; give a text file with a sequence a line")
    sequences = read_list(split) if split else None
    require_writable(json_out)
    with _tracked("scoring frames", None) as advance:
        if protocol is Protocol.youtube_vos:
            if meta is None or train_meta is None:
                raise typer.BadParameter("youtube-vos needs --meta and --train-meta")
            scores = youtube_vos.evaluate_youtube_vos(gt, pred, meta, train_meta, sequences=sequences, on_frame=advance)
        else:
            score = {
                Protocol.davis2017: davis.evaluate_davis2017,
                Protocol.davis2016: davis.evaluate_davis2016,
                Protocol.davis2017_unsupervised: davis.evaluate_davis2017_unsupervised,
            }[protocol]
            scores = score(gt, pred, sequences, advance)
    write_text(json_out, json.dumps(scores, indent=2) + "\n")
    for name, value in scores["global"].items():
        typer.echo(f"{name:<10} {'-' if value is None else format(100 * value, '.1f')}")


@app.command()
def segment(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="Folder of frames, or a video file.")],
    scribble: Annotated[Path, typer.Option(help="Scribble PNG of the first frame, or DAVIS-interactive JSON.")],
    checkpoint: Annotated[Path, typer.Option(help="A checkpoint.pt of this project.")],
    out: Annotated[Path, typer.Option(help="Where a palette PNG a frame goes.")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write overlay.mp4 (H.264).")] = False,
    foreground_bias: Annotated[
        float, typer.Option(help="Taken off the object's log-odds: larger gives tighter masks.")
    ] = 0.0,
    full_size: Annotated[
        bool, typer.Option("--full-size", help="Frames at their own size, not at that of training.")
    ] = False,
) -> None:
    """Segment a video of your own from a scribble on its first frame.

    Example: ssvos segment frames/ --scribble scribble.png --checkpoint checkpoint.pt --out masks/ --overlay
    """
    from ssvos.segment_video import segment_video

    count = segment_video(source, scribble, checkpoint, out, device, overlay, full_size, foreground_bias, _tracked)
    typer.echo(f"{count} masks in {out}")


@app.command()
def fit(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Parameters, and a `fit` section.")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
) -> None:
    """Train one stage on one device with PyTorch alone.

    Example: ssvos fit fit.yaml, where fit.yaml holds the keys of params.yaml and `fit: {stage: stage1, out: runs/a}`
    """
    from ssvos.fit_file import fit_from_file

    typer.echo(fit_from_file(config, typer.echo, _tracked, device))


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

    from ssvos.files import write_text
    from ssvos.machine import this_machine
    from ssvos.plan import make_plan
    from ssvos.plan_text import as_table, describe
    from ssvos.presets import Request, requested_values, require_folders, write_params
    from ssvos.variants import params_from

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
