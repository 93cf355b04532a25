"""The progress bar of the commands and the stages."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(title: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A context manager that shows a progress bar on a terminal, and is silent elsewhere.

    title: text of the bar
    total: number of steps; None: unknown
    yields: a function that advances the bar by a count, 1 by default
    """
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count=1: bar.advance(task, count)
