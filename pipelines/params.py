"""Reads params.yaml into typed parameters, and names the folders of a data set's outputs."""

from dataclasses import dataclass
from pathlib import Path

from ssvos.config import Config, variants
from ssvos.config.variants import Params
from ssvos.data.preparation import source_roots
from ssvos.files import write_text

Value = bool | int | float | str

PARAMS = Path("params.yaml")
# without a data set's name: best.yaml contains the name of the data set that was searched
TRIALS, CURVES, BEST = Path("tune/trials.csv"), Path("tune/curves.csv"), Path("tune/best.yaml")


def read_params(path: Path = PARAMS) -> Params:
    """Read and check params.yaml with all its variants."""
    return variants.read_params(path)


def flatten(config: Config) -> dict[str, object]:
    """Return one entry per leaf with a dotted key, {'train.stage1.epochs': 3, ...}, as MLflow shows parameters."""

    def walk(prefix: str, value: object):
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from walk(f"{prefix}.{key}" if prefix else key, inner)
        else:
            yield prefix, value

    return dict(walk("", config.model_dump(mode="json")))


@dataclass(frozen=True)
class Layout:
    """Paths of a data set's outputs. Every path contains its name, so data sets do not overwrite each other's files."""

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

    def run_names(self) -> list[str]:
        """Names of the trainings on this data set: variants, and variants with a seed."""
        return sorted(path.name for path in (Path("runs") / self.name).glob("*") if path.is_dir())

    def predictions(self, variant: str) -> Path:
        return Path("predictions") / self.name / variant / "val"

    def results(self, variant: str) -> Path:
        return Path("results") / self.name / variant / "val.json"

    def objects(self, variant: str) -> Path:
        return self.results(variant).with_name("objects.csv")

    def frame_scores(self, variant: str) -> Path:
        return self.results(variant).with_name("frames.csv")

    def speed(self, variant: str) -> Path:
        return self.results(variant).with_name("speed.json")

    @property
    def page(self) -> Path:
        return Path("reports") / f"{self.name}.html"

    @property
    def baselines(self) -> Path:
        return Path("results") / self.name / "baselines.json"

    @property
    def baseline_frames(self) -> Path:
        return self.baselines.with_name("baselines-frames.csv")

    @property
    def tables(self) -> Path:
        return Path("tables") / self.name

    @property
    def tables_page(self) -> Path:
        return Path("reports") / f"{self.name}-tables.html"

    def roots(self, config: Config) -> dict[str, Path]:
        """Root folder of each source, by its name."""
        return source_roots(config, self.frames / "embedded")


def nested(dotted: dict[str, object]) -> dict:
    """The reverse of `flatten`: {'loss.beta': 1.0} -> {'loss': {'beta': 1.0}}."""
    result: dict = {}
    for key, value in dotted.items():
        *path, leaf = key.split(".")
        table = result
        for part in path:
            table = table.setdefault(part, {})
        table[leaf] = value
    return result


def write_json(path: Path, content: dict) -> None:
    import json

    write_text(path, json.dumps(content, indent=2, sort_keys=False, allow_nan=False) + "\n")


def write_yaml(path: Path, content: dict) -> None:
    from io import StringIO

    from ruamel.yaml import YAML

    text, yaml = StringIO(), YAML()
    yaml.default_flow_style = False
    yaml.dump(content, text)
    write_text(path, text.getvalue())


def typed(config: Config, values: dict[str, object]) -> dict[str, Value]:
    """Convert values to the types of their parameters; files and libraries return 8.0 or "True" for 8 or True."""
    current = flatten(config)
    return {key: typed_value(value, current[key]) for key, value in values.items()}


def typed_value(value: object, current: object) -> Value:
    """Convert a value to the type of the parameter's current value."""
    if isinstance(current, bool):
        return value == "True" if isinstance(value, str) else value
    if isinstance(current, int) and isinstance(value, float) and value.is_integer():
        return int(value)
    return float(value) if isinstance(current, float) and isinstance(value, int) else value
