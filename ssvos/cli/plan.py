"""`ssvos plan`: print the stages of a run, its time, memory and disk space, and write the parameters of a preset."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ssvos.progress import progress_bar


class Layout(StrEnum):
    davis = "davis"
    youtube_vos = "youtube-vos"
    folder = "folder"


def plan(
    preset: Annotated[str, typer.Option(help="A preset: demo, davis, ... (docs/presets.md).")] = "",
    data: Annotated[list[str] | None, typer.Option(metavar="[NAME=]DIR", help="A folder of videos, or `demo`.")] = None,
    layout: Annotated[Layout | None, typer.Option(help="The folder's layout, if it is not detected.")] = None,
    train: Annotated[str, typer.Option(help="The list of training videos.")] = "",
    val: Annotated[str, typer.Option(help="The list of evaluation videos.")] = "",
    holdout: Annotated[
        str, typer.Option(help="The list that chooses the checkpoint; default: a part of --train.")
    ] = "",
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a value.")] = None,
    params: Annotated[Path, typer.Option(help="The file to plan without --preset and --data.")] = Path("params.yaml"),
    workers: Annotated[int | None, typer.Option(min=0, help="Training workers; default: two, or one per GPU.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda")] = "auto",
    write: Annotated[bool, typer.Option("--write", help="Write these parameters to --params.")] = False,
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this file.")] = None,
) -> None:
    """Print what a run does, how long it takes on this machine and what it needs; write the parameters of a preset.

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
    requested = params_from(values, origin)
    if write:
        require_folders(requested.base, origin)
    run_plan = make_plan(requested, machine, workers, progress_bar)
    typer.echo(describe(run_plan, f"{origin}, data set {requested.base.data.name}"))
    if json_out:
        write_text(json_out, json.dumps(as_table(run_plan), indent=2) + "\n")
    if write:
        typer.echo(write_params(values, params, origin))
