"""Finds the message about bad input in the errors that Ray wraps around a worker's exception."""

import re

from pipelines.stage import BAD_INPUT

# Ray Data passes on only the text of a worker's exception
_RAISED = re.compile(r"^(?:ValueError|FloatingPointError|\w*(?:OS|NotFound|Permission|Directory)Error): (.+)$", re.M)


def bad_input(error: Exception) -> Exception | None:
    """Return the worker's exception about its input, one of BAD_INPUT; None if the error has another cause."""
    from ray.exceptions import RayError

    if isinstance(error, BAD_INPUT) and not isinstance(error, RayError):
        return error
    failures = [getattr(error, "cause", None), *getattr(error, "worker_failures", {}).values()]
    # one of several workers found the fault, the others only lost their connection to it
    ranked = [failure for kind in BAD_INPUT for failure in failures if isinstance(failure, kind)]
    if ranked:
        return ranked[0]
    raised = _RAISED.findall(str(error)) if isinstance(error, RayError) else []
    return ValueError(raised[-1]) if raised else None
