"""Take the winner of the search into params.yaml: prints what changes, asks, and writes down where it comes from.

Example: python -m pipelines.tuning.apply_best, or with --yes where nobody can answer.
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
    found = read_best(BEST)
    params = read_params(PARAMS)
    changes = difference(params, found)
    if not changes:
        print(f"{PARAMS}: has the winner's values already, nothing to adopt")
        return
    print(f"{provenance(found)}")
    for key, (old, new) in changes.items():
        print(f"  {key}: {_shown(old)} -> {_shown(new)}")
    if not (args.yes or _agreed()):
        print(f"{PARAMS}: left as it is; `python -m pipelines.tuning.apply_best --yes` writes the change")
        return
    write_text(PARAMS, adopted_text(PARAMS, found))
    print(f"{PARAMS}: written; `dvc repro` trains with these values")


def read_best(path: Path) -> dict:
    """best.yaml as the search left it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no search has ended here; run `dvc repro tune` first")
    found = read_yaml(path)
    try:
        is_whole = bool(found["search"]["variant"] and provenance(found) and list(_leaves(found["params"])))
    except (KeyError, TypeError, ValueError, AttributeError):
        is_whole = False
    if not is_whole:
        raise ValueError(f"{path}: not the result of a search; run `dvc repro tune` again")
    return found


def difference(params: Params, found: dict) -> dict[str, tuple[object, object]]:
    """The values that adopting changes: {key: (old, new)}. ValueError if the search was of other data."""
    name, variant = found["search"]["data"], found["search"]["variant"]
    if name != params.base.data.name:
        raise ValueError(
            f"{BEST}: its search was of data set {name}, {PARAMS} is of {params.base.data.name}; "
            "run `dvc repro tune` for this one"
        )
    present = flatten(params.variant(variant))
    for key, value in _leaves(found["params"]):
        if key not in present:
            raise ValueError(f"{BEST}: {key} is no parameter; run `dvc repro tune` again")
        if type(value) is not type(present[key]):
            raise ValueError(f"{BEST}: not the result of a search; run `dvc repro tune` again")
    return {key: (present[key], value) for key, value in _leaves(found["params"]) if present[key] != value}


def provenance(found: dict) -> str:
    """One line that says which search the values come from."""
    search, best, before = found["search"], found["best"], found["before"]
    line = f"search {search['digest']}: trial {best['trial']} of {search['trials']} on {search['data']} "
    line += f"(data digest {search['data_digest']}), held-out {search['metric']} {best['score']:.4f}"
    return line + (f", {before['score']:.4f} before" if before and before["score"] is not None else "")


def adopted_text(path: Path, found: dict) -> str:
    """The parameter file with the winner's values, its comments and order kept; checked before anybody writes it."""
    from io import StringIO

    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 200
    content = yaml.load(path.read_text(encoding="utf-8"))
    override = content["variants"].get(found["search"]["variant"]) or {}
    for key, value in _leaves(found["params"]):
        # a variant that overrides the parameter itself would hide the change
        _set(override if _holds(override, key) else content, key, value)
    content["tuned_from"] = provenance(found)
    text = StringIO()
    yaml.dump(content, text)
    _require_only_these(path, text.getvalue(), found)
    return text.getvalue()


def _require_only_these(path: Path, text: str, found: dict) -> None:
    """YAML anchors make two keys share a value, so that changing one would change the other unseen."""
    from ruamel.yaml import YAML

    before, after = read_params(path), params_from(YAML(typ="safe").load(text), path)
    variant, taken = found["search"]["variant"], dict(_leaves(found["params"]))
    expected = flatten(before.variant(variant)) | taken | {"tuned_from": after.base.tuned_from}
    wrong = [key for key, value in flatten(after.variant(variant)).items() if expected[key] != value]
    if wrong:
        raise ValueError(f"{path}: {wrong[0]} shares its value with another key by an anchor (& and *); write it out")


def _leaves(values: dict, prefix: str = ""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _holds(values: dict, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _set(values: dict, key: str, value: object) -> None:
    *path, leaf = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
    values[leaf] = value


def _agreed() -> bool:
    return sys.stdin.isatty() and input("write this? [y/N] ").strip().lower() in ("y", "yes")


if __name__ == "__main__":
    run_stage(main)
