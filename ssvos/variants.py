"""A parameter file with its variants: the same parameters, each with overrides of its own."""

from dataclasses import dataclass
from pathlib import Path

from ssvos.config import Config, parse, read_yaml

_REMEDY = "run this in the project's folder, or write one with `ssvos plan --preset demo --write`"


@dataclass(frozen=True)
class Params:
    """The parameters as they stand and each variant's: the same with its overrides."""

    base: Config
    variants: dict[str, Config]

    def variant(self, name: str) -> Config:
        if name not in self.variants:
            raise ValueError(f"variants: no variant {name!r}; choose one of {', '.join(self.variants)}")
        return self.variants[name]


def read_params(path: Path) -> Params:
    """Read and check a whole parameter file, every variant included."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; {_REMEDY}")
    values = read_yaml(path)
    if not values:
        raise ValueError(f"{path}: the file is empty; {_REMEDY}")
    return params_from(values, path)


def params_from(values: dict, path: Path | str) -> Params:
    """Check the values of a parameter file; `path` names it in errors."""
    values = dict(values)
    overrides = values.pop("variants", None)
    if not isinstance(overrides, dict) or not overrides:
        raise ValueError(f"{path}: variants: name at least one, for example `ours: {{}}`")
    base = parse(Config, values, path)
    variants = {}
    for name, override in overrides.items():
        if not isinstance(override, dict):
            raise ValueError(
                f"{path}: variants.{name}: expected a table of overrides ({{}} for none), not {override!r}"
            )
        variants[name] = parse(Config, merge(values, override), f"{path}: variants.{name}")
    return Params(base, variants)


def merge(values: dict, override: dict) -> dict:
    """`values` with the leaves of `override` in place of its own."""
    result = dict(values)
    for key, value in override.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merge(result[key], value) if both else value
    return result
