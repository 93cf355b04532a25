"""The contents of one MLflow run, as plain values; `mlflow_client` writes them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from PIL import Image

EXPERIMENT = "ssvos"
SEARCHES = "ssvos-tune"


@dataclass(frozen=True)
class DataUse:
    """A data set that a run used.

    name: of the data set.
    digest: of all its files, see `data_digest`.
    source: path of its index.
    context: purpose, for example "training".
    profile: counts of frames and sequences.
    """

    name: str
    digest: str
    source: str
    context: str
    profile: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """The contents of one run. Its tags identify it: two records with equal tags are the same run.

    params: all parameters; the run shows those in effect at its stage (`param_lineage`).
    history: a row per epoch; its key `epoch` is the step.
    tables: rows by file name.
    files: paths by artifact folder.
    pictures: by name; MLflow shows pictures of one name next to each other.
    model: a checkpoint to log as a model with the variant's name.
    """

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, object]
    data: DataUse | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: Sequence[Mapping[str, float]] = ()
    tables: Mapping[str, Sequence[Mapping[str, object]]] = field(default_factory=dict)
    files: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)
    model: Path | None = None
    experiment: str = EXPERIMENT


def data_digest(index: pa.Table) -> str:
    """Return 16 hex digits over the split and fingerprint of every frame of an index."""
    rows = index.select(["split", "fingerprint"]).to_pylist()
    return hashlib.sha256("".join(f"{r['split']}{r['fingerprint']}" for r in rows).encode()).hexdigest()[:16]


def numbers(nested: Mapping, prefix: str = "") -> dict[str, float]:
    """Return the numeric leaves of a nested table, by dotted names that MLflow accepts."""
    flat: dict[str, float] = {}
    for key, value in nested.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            flat |= numbers(value, name)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[name.replace("&", "_and_")] = float(value)
    return flat
