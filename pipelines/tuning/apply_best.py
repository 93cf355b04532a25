"""Write the best trial's values into params.yaml: prints the changes, asks, and notes which search they come from.

Example: python -m pipelines.tuning.apply_best, or with --yes to skip the question.
"""

import argparse
import sys
from pathlib import Path

from pipelines.params import BEST, PARAMS, flatten
from pipelines.stage import run_stage
from ssvos.config import read_yaml
from ssvos.config.variants import Params, params_from, read_params
from ssvos.files import write_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--yes", action="store_true", help="write without asking")
    args = parser.parse_args()
    best = read_best(BEST)
    params = read_params(PARAMS)
    changes = difference(params, best)
    if not changes:
        print(f"{PARAMS}: already has the best trial's values, nothing to change")
        return
    print(f"{provenance(best)}")
    for key, (old, new) in changes.items():
        print(f"  {key}: {_format(old)} -> {_format(new)}")
    if not (args.yes or _confirmed()):
        print(f"{PARAMS}: not changed; `python -m pipelines.tuning.apply_best --yes` writes the change")
        return
    write_text(PARAMS, updated_text(PARAMS, best))
    print(f"{PARAMS}: written; `dvc repro` trains with these values")


def read_best(path: Path) -> dict:
    """Read best.yaml. Raises FileNotFoundError, or ValueError if it is not the result of a search."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, no search has finished; run `dvc repro tune` first")
    best = read_yaml(path)
    try:
        is_complete = bool(best["search"]["variant"] and provenance(best) and list(_leaves(best["params"])))
    except (KeyError, TypeError, ValueError, AttributeError):
        is_complete = False
    if not is_complete:
        raise ValueError(f"{path}: not the result of a search; run `dvc repro tune` again")
    return best


def difference(params: Params, best: dict) -> dict[str, tuple[object, object]]:
    """Return the values that would change, {key: (old, new)}. Raises ValueError for a search on another data set."""
    name, variant = best["search"]["data"], best["search"]["variant"]
    if name != params.base.data.name:
        raise ValueError(
            f"{BEST}: the search used data set {name}, but {PARAMS} uses {params.base.data.name}; "
            "run `dvc repro tune` for this data set"
        )
    current = flatten(params.variant(variant))
    for key, value in _leaves(best["params"]):
        if key not in current:
            raise ValueError(f"{BEST}: {key} is not a parameter; run `dvc repro tune` again")
        if type(value) is not type(current[key]):
            raise ValueError(f"{BEST}: not the result of a search; run `dvc repro tune` again")
    return {key: (current[key], value) for key, value in _leaves(best["params"]) if current[key] != value}


def provenance(best: dict) -> str:
    """Return one line that names the search, trial and data of the values, with the score and the score before."""
    search, trial, before = best["search"], best["best"], best["before"]
    line = f"search {search['digest']}: trial {trial['trial']} of {search['trials']} on {search['data']} "
    line += f"(data digest {search['data_digest']}), held-out {search['metric']} {trial['score']:.4f}"
    return line + (f", {before['score']:.4f} before" if before and before["score"] is not None else "")


def updated_text(path: Path, best: dict) -> str:
    """Return the parameter file's text with the best trial's values; comments and order stay.

    Raises ValueError if that would change another parameter.
    """
    from io import StringIO

    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 200
    content = yaml.load(path.read_text(encoding="utf-8"))
    override = content["variants"].get(best["search"]["variant"]) or {}
    for key, value in _leaves(best["params"]):
        # if the variant overrides the parameter, a change outside of the override has no effect
        _set(override if _contains(override, key) else content, key, value)
    content["tuned_from"] = provenance(best)
    text = StringIO()
    yaml.dump(content, text)
    _require_no_other_change(path, text.getvalue(), best)
    return text.getvalue()


def _require_no_other_change(path: Path, text: str, best: dict) -> None:
    """Raise ValueError if another parameter changed: keys that share a value by a YAML anchor change together."""
    from ruamel.yaml import YAML

    before, after = read_params(path), params_from(YAML(typ="safe").load(text), path)
    variant, changes = best["search"]["variant"], dict(_leaves(best["params"]))
    expected = flatten(before.variant(variant)) | changes | {"tuned_from": after.base.tuned_from}
    wrong = [key for key, value in flatten(after.variant(variant)).items() if expected[key] != value]
    if wrong:
        raise ValueError(
            f"{path}: {wrong[0]} shares its value with another key by an anchor (& and *); write both values out"
        )


def _leaves(values: dict, prefix: str = ""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _contains(values: dict, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


def _format(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _set(values: dict, key: str, value: object) -> None:
    *path, leaf = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
    values[leaf] = value


def _confirmed() -> bool:
    return sys.stdin.isatty() and input("write this? [y/N] ").strip().lower() in ("y", "yes")


if __name__ == "__main__":
    run_stage(main)
