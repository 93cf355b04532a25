"""Carrying a stage's inputs to workers: by path where they see the project's folder, else as objects or by URL."""

import hashlib
import io
import os
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.cluster.ray_cluster import joined
from pipelines.cluster.storage import Place, put, storage
from pipelines.params import Layout
from ssvos.config import Config


@dataclass(frozen=True)
class WorkerInputs:
    """What workers read, as paths on their own node."""

    index: Path
    scribbles: Path
    roots: dict[str, Path]
    checkpoint: Path | None = None
    weights: Path | None = None

    def here(self, config: Config) -> Config:
        """The parameters with the backbone's weights where they lie on this node."""
        if self.weights is None:
            return config
        backbone = config.model.backbone.model_copy(update={"weights": str(self.weights)})
        return config.model_copy(update={"model": config.model.model_copy(update={"backbone": backbone})})


@dataclass(frozen=True)
class PackedInputs:
    """WorkerInputs on their way: a path that every node sees, or (digest, name, where the bytes are)."""

    files: dict[str, object]
    roots: dict[str, object] = field(default_factory=dict)


def pack(config: Config, layout: Layout, scribbles: bool = True, checkpoint: Path | None = None) -> PackedInputs:
    """On the driver, inside `cluster()`. A joined cluster may not see this folder, so what lies in it travels along.

    Data sets elsewhere are never copied: every node must see them under the path that `data.sources` gives.
    """
    weights = config.model.backbone.weights
    # a checkpoint holds all weights; the backbone's published ones begin a network that has none
    wanted = {"index": layout.index, "checkpoint": checkpoint, "weights": Path(weights) if weights else None}
    if checkpoint:
        wanted["weights"] = None
    if scribbles:
        wanted["scribbles"] = layout.scribbles / "scribbles.parquet"
    files = {name: path for name, path in wanted.items() if path}
    roots = layout.roots(config)
    if not joined():
        absolute = {name: str(path.absolute()) for name, path in files.items()}
        return PackedInputs(absolute, {name: str(root.absolute()) for name, root in roots.items()})
    here = Path.cwd()
    return PackedInputs(
        {name: _put(path.name, path.read_bytes()) for name, path in files.items()},
        {
            name: _put(f"{name}.tar", _tar(root)) if root.absolute().is_relative_to(here) else str(root)
            for name, root in roots.items()
        },
    )


def unpack(parcel: PackedInputs) -> WorkerInputs:
    """On a worker: the inputs as local paths. ValueError names a data set that this node does not see."""
    files = {name: _arrive(item) for name, item in parcel.files.items()}
    roots = {name: _arrive(item) for name, item in parcel.roots.items()}
    for name, root in roots.items():
        if not root.is_dir():
            raise ValueError(
                f"{root}: not on node {os.uname().nodename}; data set {name} must be seen by every node under this path"
            )
    return WorkerInputs(
        files["index"], files.get("scribbles", Path()), roots, files.get("checkpoint"), files.get("weights")
    )


def _put(name: str, content: bytes) -> tuple[str, str, object]:
    """(digest, name, where): a file of SSVOS_STORAGE under the digest of its bytes, else in Ray's object store."""
    import ray

    digest, shared = hashlib.sha256(content).hexdigest()[:16], storage()
    if shared is None:
        return digest, name, ray.put(content)
    place = shared / "inputs" / f"{digest}-{name}"
    if not place.is_file():
        put(place, content)
    return digest, name, place


def _tar(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.add(path, path.relative_to(folder).as_posix(), recursive=False)
    return buffer.getvalue()


def _arrive(item: object) -> Path:
    """The local path of an item; the first process of a node that asks for it writes it, whole or not at all."""
    if isinstance(item, str):
        return Path(item)
    digest, name, place = item
    target = _node_folder() / f"{digest}-{name}"
    if not target.exists():
        content = place.read_bytes() if isinstance(place, Path | Place) else _from_ray(place)
        with tempfile.TemporaryDirectory(dir=_node_folder()) as folder:
            making = Path(folder) / name
            if name.endswith(".tar"):
                with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                    archive.extractall(making, filter="data")
            else:
                making.write_bytes(content)
            try:
                making.rename(target)
            except OSError:  # another process of this node was first
                if not target.exists():
                    raise
    return target


def _from_ray(reference) -> bytes:
    import ray

    return ray.get(reference)


def _node_folder() -> Path:
    """A folder of this user alone; in a shared /tmp somebody else could have made it before."""
    folder = Path(tempfile.gettempdir()) / f"ssvos-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder}: belongs to another user; set TMPDIR to a folder of your own")
    return folder
