"""What every stage's command has: logging, and bad input as one line on standard error with exit status 1."""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable

from ssvos.data.videos import FaultyData
from ssvos.files import explain

BAD_INPUT = (ValueError, FloatingPointError, OSError)


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's `main`; SSVOS_DEBUG=1 shows the traceback of an error as well."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    for noisy in ("ray", "mlflow", "alembic", "PIL", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(ray|mlflow)\..*")
    try:
        main()
    except BAD_INPUT as error:
        if os.environ.get("SSVOS_DEBUG"):
            raise
        sys.stdout.flush()
        # the faults of a data set are a line each
        print(f"error: {error if isinstance(error, FaultyData) else explain(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; `dvc repro` goes on from the last saved state", file=sys.stderr)
        sys.exit(130)


def no_arguments(description: str) -> None:
    """For a stage that has none: --help says what it does, anything else is a usage error and not a run."""
    argparse.ArgumentParser(description=description).parse_args()
