"""The command line `ssvos`, one file per command. Commands import heavy packages only when they run."""

import sys
from typing import Annotated

import typer

from ssvos import __version__
from ssvos.cli.evaluate import evaluate
from ssvos.cli.fit import fit
from ssvos.cli.pack import pack
from ssvos.cli.plan import plan
from ssvos.cli.scribble import scribble
from ssvos.cli.segment import segment
from ssvos.cli.split import split
from ssvos.cli.submit import submit

_PIPELINE_MODULES = ("hydra", "omegaconf")  # what commands import of the packages of `pip install ssvos[pipeline]`

app = typer.Typer(
    name="ssvos",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"ssvos {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True)] = False,
    # for the help text only: main() removes it from the arguments, so that it may be at any position
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Segment objects in video from scribbles, and train the network that does it.

    Example: ssvos segment clip/ --scribble clip/scribble.png --checkpoint checkpoint.pt --out masks/
    """


for _command in (scribble, evaluate, submit, split, segment, fit, pack, plan):
    app.command()(_command)


def main() -> None:
    """Entry point. Bad input prints one line on standard error and exits with status 1."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments)
    except (ValueError, OSError, FloatingPointError) as error:
        if "--debug" in sys.argv:
            raise
        from ssvos.files import explain

        typer.echo(f"ssvos: {explain(error)}", err=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        if "--debug" in sys.argv or error.name not in _PIPELINE_MODULES:
            raise
        message = f"{error.name}: this package is missing; install the pipeline: pip install 'ssvos[pipeline]'"
        typer.echo(f"ssvos: {message}", err=True)
        sys.exit(1)
