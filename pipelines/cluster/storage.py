"""SSVOS_STORAGE: a folder or object store that every machine can reach, for saved states and for workers' inputs.

If it is unset, saved states are in resume/ of the project's folder, and inputs travel through Ray's object store. It
decides where files are stored and changes no result, so it is not a parameter.
"""

import fnmatch
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from ssvos.files import require_writable, write_bytes

_REMEDY = "use s3://BUCKET/FOLDER, or a folder that every machine can reach"


@dataclass(frozen=True)
class StorageLocation:
    """A name in an object store, with the methods of `pathlib.Path` that the pipeline uses.

    A write is complete or leaves nothing.

    url: the store's URL as in SSVOS_STORAGE; each machine opens it with the credentials of its own environment.
    name: path of the object below that URL.
    """

    url: str
    name: str

    def __str__(self) -> str:
        return f"{self.url.partition('://')[0]}://{self.path}"  # not the URL: it may contain a password

    def __truediv__(self, part: str) -> "StorageLocation":
        return StorageLocation(self.url, f"{self.name}/{part}")

    @property
    def filesystem(self):
        return _open_filesystem(self.url)[0]

    @property
    def path(self) -> str:
        """The path within the file system."""
        return f"{_open_filesystem(self.url)[1].rstrip('/')}/{self.name}"

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    def with_name(self, name: str) -> "StorageLocation":
        return StorageLocation(self.url, str(PurePosixPath(self.name).with_name(name)))

    def is_file(self) -> bool:
        return self.filesystem.get_file_info(self.path).is_file

    def glob(self, pattern: str) -> Iterator["StorageLocation"]:
        from pyarrow.fs import FileSelector

        for info in self.filesystem.get_file_info(FileSelector(self.path, allow_not_found=True)):
            if fnmatch.fnmatchcase(info.base_name, pattern):
                yield self / info.base_name

    def read_bytes(self) -> bytes:
        with self.filesystem.open_input_stream(self.path) as stream:
            return stream.read()

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> None:
        with self.filesystem.open_output_stream(self.path) as stream:  # the object appears when the stream closes
            stream.write(content)

    def replace(self, target: "StorageLocation") -> None:
        self.filesystem.move(self.path, target.path)

    def unlink(self) -> None:
        self.filesystem.delete_file(self.path)


def storage() -> Path | StorageLocation | None:
    """Return the folder or object store that SSVOS_STORAGE names, or None if it is unset.

    Raises ValueError for a relative folder.
    """
    value = os.environ.get("SSVOS_STORAGE", "")
    if not value:
        return None
    scheme, _, rest = value.rpartition("://")
    if scheme in ("", "file"):
        folder = Path(rest)
        if not folder.is_absolute():
            raise ValueError(f"SSVOS_STORAGE {value}: a folder needs an absolute path; {_REMEDY}")
        return folder
    return StorageLocation(value, "ssvos")


def require_storage() -> None:
    """Write and delete a probe file if SSVOS_STORAGE is set; call before any work.

    Raises ValueError if the storage cannot be written.
    """
    location = storage()
    try:
        if isinstance(location, Path):
            location.mkdir(parents=True, exist_ok=True)
            require_writable(location / "probe")
        elif location:
            probe = location / f"probe-{uuid.uuid4().hex}"
            put(probe, b"probe")
            probe.unlink()
    except (OSError, ValueError) as error:
        where = location if isinstance(location, Path) else location.url.partition("?")[0].rpartition("@")[2]
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"SSVOS_STORAGE {where}: not usable ({reason}); {_REMEDY}") from error


def resume_folder(name: str) -> Path | StorageLocation:
    """Return the folder for saved states of an interrupted run; `name` contains the run's digest."""
    return (storage() or Path()) / "resume" / name


def put(path: Path | StorageLocation, content: bytes) -> None:
    """Write a file completely or not at all; missing folders are created."""
    path.write_bytes(content) if isinstance(path, StorageLocation) else write_bytes(path, content)


def remove_folder(folder: Path | StorageLocation) -> None:
    """Delete a folder and all its files."""
    if isinstance(folder, StorageLocation):
        folder.filesystem.delete_dir(folder.path)
    else:
        shutil.rmtree(folder)


@cache
def _open_filesystem(url: str):
    """Return (file system, path in it); it gives up on a server that does not answer after seconds, not minutes."""
    from pyarrow.fs import FileSystem

    return FileSystem.from_uri(url)
