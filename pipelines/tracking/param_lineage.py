"""Which parameters decide a stage's output: its own, and those of the stages before it.

Others would show up in MLflow as differences between runs that they have no part in.
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
    "evaluate": ("predict.",),  # MLflow prints a run's parameters over each of its pictures; the others: its training
    "baselines": (*_SCRIBBLES, "model.", "train.seed", "train.stage2.height", "train.stage2.width"),
}


def acting(stage: str, params: Mapping[str, object]) -> dict[str, object]:
    """Those of the flattened parameters that act at a stage; all of them at one that is not listed: tune, report."""
    prefixes = _PREFIXES.get(stage, ("",))
    is_rendered = any(source["layout"] == "embedded" for source in params["data.sources"])
    left_out = () if is_rendered else ("synthetic.",)
    return {key: value for key, value in params.items() if key.startswith(prefixes) and not key.startswith(left_out)}
