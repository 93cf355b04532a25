"""A parameter file with its variants: the same parameters, each with overrides of its own."""

import re
from dataclasses import dataclass
from pathlib import Path

from ssvos.config import Config, parse, read_yaml

_REMEDY = "run this in the project's folder, or write one with `ssvos plan --preset demo --write`"
_SEEDED = re.compile(r"(.+)-seed(0|[1-9][0-9]*)")


@dataclass(frozen=True)
class Params:
    """The parameters as they stand and each variant's: the same with its overrides."""

    base: Config
    variants: dict[str, Config]

    def variant(self, name: str) -> Config:
        """A variant's parameters. `full-seed1` are those of `full` with `train.seed` 1, and nothing else changed."""
        seeded = _SEEDED.fullmatch(name)
        variant, seed = seeded.groups() if seeded else (name, None)
        if variant not in self.variants:
            raise ValueError(f"variants: no variant {name!r}; choose one of {', '.join(self.variants)}")
        config = self.variants[variant]
        return config if seed is None else _with_seed(config, int(seed))


def seeded_name(variant: str, seed: int) -> str:
    """The name under which `Params.variant` gives a variant with a seed of its own."""
    return f"{variant}-seed{seed}"


def variant_of(name: str) -> str:
    """`full` of `full-seed1`; any other name as it is."""
    seeded = _SEEDED.fullmatch(name)
    return seeded[1] if seeded else name


def _with_seed(config: Config, seed: int) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})


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
        if seeded := _SEEDED.fullmatch(name):
            raise ValueError(f"{path}: variants.{name}: the name means {seeded[1]} with seed {seeded[2]}; rename it")
        variants[name] = parse(Config, merge(values, override), f"{path}: variants.{name}")
    return Params(base, variants)


def merge(values: dict, override: dict) -> dict:
    """`values` with the leaves of `override` in place of its own."""
    result = dict(values)
    for key, value in override.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merge(result[key], value) if both else value
    return result
