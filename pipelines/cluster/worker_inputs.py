"""Sends a stage's inputs to workers: as paths where they see the project's folder, else as objects or by URL."""

import hashlib
import io
import os
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.cluster.ray_cluster import is_connected, uses_existing_cluster
from pipelines.cluster.storage import StorageLocation, put, storage
from pipelines.params import Layout
from ssvos.config import Config


@dataclass(frozen=True)
class WorkerInputs:
    """The files that workers read, as paths on their own node.

    roots: root folder of each data source.
    checkpoint: weights to start from.
    weights: the file of the backbone's published weights; None if they come from a package, which every node has.
    """

    index: Path
    scribbles: Path
    roots: dict[str, Path]
    checkpoint: Path | None = None
    weights: Path | None = None

    def local_config(self, config: Config) -> Config:
        """Return the parameters with this node's path of the backbone's weights."""
        if self.weights is None:
            return config
        backbone = config.model.backbone.model_copy(update={"weights": str(self.weights)})
        return config.model_copy(update={"model": config.model.model_copy(update={"backbone": backbone})})


@dataclass(frozen=True)
class PackedInputs:
    """WorkerInputs to send: each item is a path that every node sees, or (digest, name, location of the bytes)."""

    files: dict[str, object]
    roots: dict[str, object] = field(default_factory=dict)


def pack(config: Config, layout: Layout, scribbles: bool = True, checkpoint: Path | None = None) -> PackedInputs:
    """Pack the inputs on the driver, inside `cluster()` or `cluster_or_process()`.

    Nodes of an existing cluster may not see the project's folder, so the files in it are sent along. Data sets outside
    of it are never copied: every node must see them under the path in `data.sources`.

    scribbles: whether the workers need the scribble store.
    checkpoint: weights to start from, if any.
    """
    weights = config.model.backbone.weights_file
    # a checkpoint contains all weights; the backbone's published weights initialize a network without one
    paths = {"index": layout.index, "checkpoint": checkpoint, "weights": Path(weights) if weights else None}
    if checkpoint:
        paths["weights"] = None
    if scribbles:
        paths["scribbles"] = layout.scribbles / "scribbles.parquet"
    files = {name: path for name, path in paths.items() if path}
    roots = layout.roots(config)
    if not (uses_existing_cluster() and is_connected()):
        absolute = {name: str(path.absolute()) for name, path in files.items()}
        return PackedInputs(absolute, {name: str(root.absolute()) for name, root in roots.items()})
    project = Path.cwd()
    return PackedInputs(
        {name: _send(path.name, path.read_bytes()) for name, path in files.items()},
        {
            name: _send(f"{name}.tar", _tar(root)) if root.absolute().is_relative_to(project) else str(root)
            for name, root in roots.items()
        },
    )


def unpack(packed_inputs: PackedInputs) -> WorkerInputs:
    """Return the inputs as local paths, on a worker. Raises ValueError for a data set that this node does not see."""
    files = {name: _fetch(item) for name, item in packed_inputs.files.items()}
    roots = {name: _fetch(item) for name, item in packed_inputs.roots.items()}
    for name, root in roots.items():
        if not root.is_dir():
            raise ValueError(
                f"{root}: no such folder on node {os.uname().nodename}; make data set {name} available under this path "
                "on every node"
            )
    return WorkerInputs(
        files["index"], files.get("scribbles", Path()), roots, files.get("checkpoint"), files.get("weights")
    )


def _send(name: str, content: bytes) -> tuple[str, str, object]:
    """Store a file in SSVOS_STORAGE under its digest, else in Ray's object store -> (digest, name, location)."""
    import ray

    digest, shared = hashlib.sha256(content).hexdigest()[:16], storage()
    if shared is None:
        return digest, name, ray.put(content)
    location = shared / "inputs" / f"{digest}-{name}"
    if not location.is_file():
        put(location, content)
    return digest, name, location


def _tar(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.add(path, path.relative_to(folder).as_posix(), recursive=False)
    return buffer.getvalue()


def _fetch(item: object) -> Path:
    """Return an item's local path; a node's first process to need it writes the file, completely or not at all."""
    if isinstance(item, str):
        return Path(item)
    digest, name, location = item
    target = _node_folder() / f"{digest}-{name}"
    if not target.exists():
        content = location.read_bytes() if isinstance(location, Path | StorageLocation) else _from_ray(location)
        with tempfile.TemporaryDirectory(dir=_node_folder()) as folder:
            incomplete = Path(folder) / name
            if name.endswith(".tar"):
                with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                    archive.extractall(incomplete, filter="data")
            else:
                incomplete.write_bytes(content)
            try:
                incomplete.rename(target)
            except OSError:  # another process of this node was first
                if not target.exists():
                    raise
    return target


def _from_ray(reference) -> bytes:
    import ray

    return ray.get(reference)


def _node_folder() -> Path:
    """Return a folder of this user alone; in a shared /tmp another user could have created it before."""
    folder = Path(tempfile.gettempdir()) / f"ssvos-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder}: belongs to another user; set TMPDIR to a folder of your own")
    return folder
