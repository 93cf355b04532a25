"""params.yaml to typed parameters, and the folders of a data set's outputs."""

from dataclasses import dataclass
from pathlib import Path

from ssvos.config import Config, parse, read_yaml
from ssvos.data.preparation import source_roots
from ssvos.files import write_text

PARAMS = Path("params.yaml")


@dataclass(frozen=True)
class Params:
    """The parameters as they stand and each variant's: the same with its overrides."""

    base: Config
    variants: dict[str, Config]

    def variant(self, name: str) -> Config:
        if name not in self.variants:
            raise ValueError(f"{PARAMS}: no variant {name!r}; there are {', '.join(self.variants)}")
        return self.variants[name]


def read_params(path: Path = PARAMS) -> Params:
    """Read and check all of params.yaml, every variant included."""
    values = read_yaml(path)
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


def flatten(config: Config) -> dict[str, object]:
    """{'train.stage1.epochs': 3, ...}: one entry a leaf, as MLflow shows parameters."""

    def walk(prefix: str, value: object):
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from walk(f"{prefix}.{key}" if prefix else key, inner)
        else:
            yield prefix, value

    return dict(walk("", config.model_dump(mode="json")))


@dataclass(frozen=True)
class Layout:
    """Where the outputs of a data set lie; every path carries its name, so that none overwrites another's."""

    name: str

    @property
    def frames(self) -> Path:
        return Path("data") / self.name / "frames"

    @property
    def index(self) -> Path:
        return self.frames / "index.parquet"

    @property
    def scribbles(self) -> Path:
        return Path("data") / self.name / "scribbles"

    def run(self, variant: str, stage: str) -> Path:
        return Path("runs") / self.name / variant / stage

    def predictions(self, variant: str) -> Path:
        return Path("predictions") / self.name / variant / "val"

    def results(self, variant: str) -> Path:
        return Path("results") / self.name / variant / "val.json"

    @property
    def yardsticks(self) -> Path:
        return Path("results") / self.name / "yardsticks.json"

    def roots(self, config: Config) -> dict[str, Path]:
        """Root folder of each source."""
        return source_roots(config, self.frames / "embedded")


def write_json(path: Path, content: dict) -> None:
    import json

    write_text(path, json.dumps(content, indent=2, sort_keys=False, allow_nan=False) + "\n")
