"""From YAML to checked parameters: an error is one line that names the file and the key."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

from ssvos.config.base import FrozenConfig, Model

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML 1.2 file, in which 1e-05 is a number (in YAML 1.1 it is text).

    path: the file
    returns: its content; {} for an empty file
    Raises FileNotFoundError for a missing file, ValueError for one that is not a YAML mapping.
    """
    from ruamel.yaml import YAML  # imported late: only some commands read parameters
    from ruamel.yaml.error import YAMLError

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; give a YAML file of parameters")
    try:
        content = YAML(typ="safe").load(Path(path).read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as YAML; {_yaml_reason(error)}; correct it") from error
    if not isinstance(content, dict | None):
        raise ValueError(
            f"{path}: expected a mapping of parameters, found {type(content).__name__}; write `key: value`"
        )
    return content or {}


def _yaml_reason(error: Exception) -> str:
    """`line 3: what is wrong`; the text of a YAMLError itself spans several lines."""
    mark = getattr(error, "problem_mark", None)
    reason = " ".join(str((mark and getattr(error, "problem", None)) or error).split())[:200]
    return f"line {mark.line + 1}: {reason}" if mark else reason


def parse(model: type[Model], values: Mapping[str, Any], source: str | Path) -> Model:
    """Check values against a model.

    model: the model
    values: a mapping of its fields
    source: the file, as error messages name it
    Raises ValueError with one line that names the file and, for every error, the key and what was expected.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{source}: " + "; ".join(_explain(model, item) for item in _causes(error))) from error


def _causes(error: ValidationError) -> list["ErrorDetails"]:
    """The errors that no other error causes. pydantic also reports a list as too short if its only item is wrong."""
    locations = [item["loc"] for item in error.errors()]

    def is_consequence(item: "ErrorDetails") -> bool:
        loc = item["loc"]
        return item["type"] == "too_short" and any(other != loc and other[: len(loc)] == loc for other in locations)

    return [item for item in error.errors() if not is_consequence(item)]


def _explain(model: type[FrozenConfig], item: "ErrorDetails") -> str:
    key = ".".join(str(part) for part in item["loc"])
    match item["type"]:
        case "extra_forbidden":
            return f"{key}: {_unknown_key(_model_at(model, item['loc'][:-1]), str(item['loc'][-1]))}"
        case "missing":
            return f"{key}: missing, add it"
        case "value_error":  # raised by a model's own check, with a full message
            return f"{key}: {item['ctx']['error']}" if key else str(item["ctx"]["error"])
        case "model_type" | "dict_type":
            return f"{key}: expected a mapping of parameters, not {item['input']!r}"
        case "too_short":
            return f"{key}: too few entries; give at least {item['ctx']['min_length']}"
        case "string_pattern_mismatch":  # only Name has a pattern
            return (
                f"{key}: {item['input']!r} is not a name; use letters, digits, '_', '.', '-', a letter or digit first"
            )
        case _:
            return f"{key}: {item['msg'][0].lower()}{item['msg'][1:]}, not {item['input']!r}"


def _unknown_key(owner: type[FrozenConfig] | None, name: str) -> str:
    """owner: the model that does not have the key; None where keys are free."""
    if owner and (present := owner.renamed.get(name)):
        return f"renamed to {present}; use the new name"
    near = get_close_matches(name, list(owner.model_fields) if owner else [], 1)
    return "unknown key" + (f", did you mean {near[0]}?" if near else ", remove it")


def _model_at(model: type[FrozenConfig], location: Sequence[int | str]) -> type[FrozenConfig] | None:
    """The model at a location in the parameters; None inside a mapping with free keys."""
    for part in location:
        if not isinstance(part, str):
            continue  # an index into a list; the list's field gave the model
        field = model.model_fields.get(part)
        inner = field and next((t for t in (field.annotation, *get_args(field.annotation)) if _is_model(t)), None)
        if not inner:
            return None
        model = inner
    return model


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, FrozenConfig)
