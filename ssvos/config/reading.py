"""From YAML to checked parameters: every fault is one line that names the file and the key."""

from difflib import get_close_matches
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from ssvos.config.base import FrozenConfig, Model


def read_yaml(path: Path) -> dict:
    """Read YAML 1.2, in which 1e-05 is a number (YAML 1.1 takes it for text). Empty files give {}."""
    from ruamel.yaml import YAML  # only commands that read parameters pay for the import
    from ruamel.yaml.error import YAMLError

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; give a YAML file of parameters")
    try:
        content = YAML(typ="safe").load(Path(path).read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as YAML; {_yaml_fault(error)}; correct it") from error
    if not isinstance(content, dict | None):
        raise ValueError(f"{path}: expected a table of parameters, found {type(content).__name__}")
    return content or {}


def _yaml_fault(error: Exception) -> str:
    """`line 3: what is wrong`, of an error that otherwise draws the place over several lines."""
    mark = getattr(error, "problem_mark", None)
    reason = " ".join(str((mark and getattr(error, "problem", None)) or error).split())[:200]
    return f"line {mark.line + 1}: {reason}" if mark else reason


def parse(model: type[Model], values: dict, source: str | Path) -> Model:
    """Check values against a model; ValueError with one line that names file, key and what was expected."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{source}: " + "; ".join(_explain(model, item) for item in _causes(error))) from error


def _causes(error: ValidationError) -> list[dict]:
    """The faults, without those that others cause: a list whose only item is faulty counts as empty, too."""
    places = [item["loc"] for item in error.errors()]

    def is_consequence(item: dict) -> bool:
        within = [loc for loc in places if loc != item["loc"] and loc[: len(item["loc"])] == item["loc"]]
        return item["type"] == "too_short" and bool(within)

    return [item for item in error.errors() if not is_consequence(item)]


def _explain(model: type[FrozenConfig], item: dict) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        owner = _model_at(model, item["loc"][:-1])
        if owner and (present := owner.renamed.get(str(item["loc"][-1]))):
            return f"{key}: renamed to {present}; use the new name"
        near = get_close_matches(str(item["loc"][-1]), list(owner.model_fields) if owner else [], 1)
        return f"{key}: unknown key" + (f", did you mean {near[0]}?" if near else ", remove it")
    if item["type"] == "missing":
        return f"{key}: missing, add it"
    if item["type"] == "value_error":  # of a model's own, which says all
        return f"{key}: {item['ctx']['error']}" if key else str(item["ctx"]["error"])
    if item["type"] in ("model_type", "dict_type"):
        return f"{key}: expected a table of parameters, not {item['input']!r}"
    if item["type"] == "too_short":
        return f"{key}: name at least {item['ctx']['min_length']}"
    if item["type"] == "string_pattern_mismatch":  # of Name, the only pattern
        return f"{key}: letters, digits, '_', '.' and '-' only, beginning with a letter or digit, not {item['input']!r}"
    return f"{key}: {item['msg'][0].lower()}{item['msg'][1:]}, not {item['input']!r}"


def _model_at(model: type[FrozenConfig], place: tuple) -> type[FrozenConfig] | None:
    """The model of the table at a place in the parameters; None where the table has free keys."""
    for part in place:
        if not isinstance(part, str):
            continue  # the position in a list; its field named the model
        field = model.model_fields.get(part)
        inner = field and next((t for t in (field.annotation, *get_args(field.annotation)) if _is_model(t)), None)
        if not inner:
            return None
        model = inner
    return model


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, FrozenConfig)
