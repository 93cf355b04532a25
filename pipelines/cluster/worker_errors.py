"""What a worker says of its input, out of the errors that Ray wraps it in."""

import re

from pipelines.stage import BAD_INPUT

# Ray Data hands over no more than the text of what a worker raised
_RAISED = re.compile(r"^(?:ValueError|FloatingPointError|\w*(?:OS|NotFound|Permission|Directory)Error): (.+)$", re.M)


def bad_input(error: Exception) -> Exception | None:
    """The fault that a worker found in its input, one of BAD_INPUT in its own words; None if it is another error."""
    from ray.exceptions import RayError

    if isinstance(error, BAD_INPUT) and not isinstance(error, RayError):
        return error
    failures = [getattr(error, "cause", None), *getattr(error, "worker_failures", {}).values()]
    # of several workers one has found the fault, the others have lost their connection to it
    ranked = [failure for kind in BAD_INPUT for failure in failures if isinstance(failure, kind)]
    if ranked:
        return ranked[0]
    raised = _RAISED.findall(str(error)) if isinstance(error, RayError) else []
    return ValueError(raised[-1]) if raised else None
