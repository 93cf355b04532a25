"""Shared by every stage's command: logging, and bad input as one line on standard error with exit status 1."""

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
    """Run a stage's `main`. Bad input ends it with status 1; SSVOS_DEBUG=1 also shows the traceback."""
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
        # FaultyData has one line per fault
        print(f"error: {error if isinstance(error, FaultyData) else explain(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; `dvc repro` resumes from the last saved state", file=sys.stderr)
        sys.exit(130)


def no_arguments(description: str) -> None:
    """Parse the command line of a stage without arguments: --help prints the description, anything else is an error."""
    argparse.ArgumentParser(description=description).parse_args()
