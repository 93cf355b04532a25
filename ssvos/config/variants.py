"""A parameter file with variants. A variant is the base parameters with overrides."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssvos.config import Config, parse, read_yaml

_REMEDY = "run this in the project's folder, or write one with `ssvos plan --preset demo --write`"
_SEEDED = re.compile(r"(.+)-seed(0|[1-9][0-9]*)")


@dataclass(frozen=True)
class Params:
    """The parameters of a file.

    base: the parameters without overrides
    variants: name of a variant -> its parameters
    """

    base: Config
    variants: dict[str, Config]

    def variant(self, name: str) -> Config:
        """The parameters of a variant; `full-seed1` is variant `full` with `train.seed` 1.

        Raises ValueError for an unknown variant.
        """
        seeded = _SEEDED.fullmatch(name)
        variant, seed = seeded.groups() if seeded else (name, None)
        if variant not in self.variants:
            raise ValueError(f"variants: no variant {name!r}; choose one of {', '.join(self.variants)}")
        config = self.variants[variant]
        return config if seed is None else _with_seed(config, int(seed))


def seeded_name(variant: str, seed: int) -> str:
    """The name by which `Params.variant` returns a variant with another seed."""
    return f"{variant}-seed{seed}"


def variant_of(name: str) -> str:
    """The variant of a seeded name: `full` for `full-seed1`. Other names are returned unchanged."""
    seeded = _SEEDED.fullmatch(name)
    return seeded[1] if seeded else name


def _with_seed(config: Config, seed: int) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})


def read_params(path: Path) -> Params:
    """Read and check a parameter file with all its variants.

    Raises FileNotFoundError for a missing file, ValueError for an empty or invalid one.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; {_REMEDY}")
    values = read_yaml(path)
    if not values:
        raise ValueError(f"{path}: the file is empty; {_REMEDY}")
    return params_from(values, path)


def params_from(values: dict[str, Any], path: Path | str) -> Params:
    """Check the values of a parameter file.

    values: the content of the file
    path: the file, as error messages name it
    Raises ValueError for invalid parameters.
    """
    values = dict(values)
    overrides = values.pop("variants", None)
    if not isinstance(overrides, dict) or not overrides:
        raise ValueError(f"{path}: variants: no variant is defined; add one, for example `ours: {{}}`")
    base = parse(Config, values, path)
    variants = {}
    for name, override in overrides.items():
        if not isinstance(override, dict):
            raise ValueError(
                f"{path}: variants.{name}: expected a mapping of overrides ({{}} for none), not {override!r}"
            )
        if seeded := _SEEDED.fullmatch(name):
            raise ValueError(f"{path}: variants.{name}: this name denotes {seeded[1]} with seed {seeded[2]}; rename it")
        variants[name] = parse(Config, merge(values, override), f"{path}: variants.{name}")
    return Params(base, variants)


def merge(values: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """A copy of `values` in which the leaves of `override` replace its own, at every level."""
    result = dict(values)
    for key, value in override.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merge(result[key], value) if both else value
    return result
