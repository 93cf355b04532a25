"""Selects the parameters that decide a stage's output: its own, and those of the stages before it.

Without this, MLflow would show differences between runs in parameters that have no effect on them.
"""

from collections.abc import Mapping

_DATA = ("data.", "synthetic.")
_SCRIBBLES = (*_DATA, "scribbles.")
_STAGE1 = (*_SCRIBBLES, "model.", "loss.", "train.seed", "train.augment.", "train.stage1.", "tuned_from")
_STAGE2 = (*_STAGE1, "train.stage2.")
_PREFIXES = {
    "prepare": _DATA,
    "scribbles": _SCRIBBLES,
    "train_stage1": _STAGE1,
    "train_stage2": _STAGE2,
    "trial": _STAGE2,
    "predict": (*_STAGE2, "predict."),
    # MLflow prints a run's parameters above each of its pictures; the training run has the other parameters
    "evaluate": ("predict.",),
    "baselines": (*_SCRIBBLES, "model.", "train.seed", "train.stage2.height", "train.stage2.width"),
}


def effective_params(stage: str, params: Mapping[str, object]) -> dict[str, object]:
    """Return the flattened parameters in effect at a stage; all of them at tune, report and others not listed."""
    prefixes = _PREFIXES.get(stage, ("",))
    is_rendered = any(source["layout"] == "embedded" for source in params["data.sources"])
    unused = () if is_rendered else ("synthetic.",)
    return {key: value for key, value in params.items() if key.startswith(prefixes) and not key.startswith(unused)}
