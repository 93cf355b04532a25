"""SSVOS_STORAGE: a place that every machine reaches by URL, for states to go on from and for what workers read.

Without it, states lie in resume/ of the project's folder, and inputs travel through Ray's object store. It decides
where bytes lie and no result, so that it is no parameter.
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

_REMEDY = "give s3://BUCKET/FOLDER, or a folder that every machine sees"


@dataclass(frozen=True)
class Place:
    """A name in an object store, with what is asked of a `pathlib.Path` here; written whole or not at all.

    url: of the store, as SSVOS_STORAGE gives it; every machine opens it with the credentials of its own environment.
    """

    url: str
    name: str

    def __str__(self) -> str:
        return f"{self.url.partition('://')[0]}://{self.path}"  # not the URL: a password may be in it

    def __truediv__(self, part: str) -> "Place":
        return Place(self.url, f"{self.name}/{part}")

    @property
    def filesystem(self):
        return _opened(self.url)[0]

    @property
    def path(self) -> str:
        """As the file system has it."""
        return f"{_opened(self.url)[1].rstrip('/')}/{self.name}"

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    def with_name(self, name: str) -> "Place":
        return Place(self.url, str(PurePosixPath(self.name).with_name(name)))

    def is_file(self) -> bool:
        return self.filesystem.get_file_info(self.path).is_file

    def glob(self, pattern: str) -> Iterator["Place"]:
        from pyarrow.fs import FileSelector

        for found in self.filesystem.get_file_info(FileSelector(self.path, allow_not_found=True)):
            if fnmatch.fnmatchcase(found.base_name, pattern):
                yield self / found.base_name

    def read_bytes(self) -> bytes:
        with self.filesystem.open_input_stream(self.path) as stream:
            return stream.read()

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> None:
        with self.filesystem.open_output_stream(self.path) as stream:  # an object is there when its stream is closed
            stream.write(content)

    def replace(self, target: "Place") -> None:
        self.filesystem.move(self.path, target.path)

    def unlink(self) -> None:
        self.filesystem.delete_file(self.path)


def storage() -> Path | Place | None:
    """What SSVOS_STORAGE names: a folder, an object store, or nothing. ValueError for what is neither."""
    given = os.environ.get("SSVOS_STORAGE", "")
    if not given:
        return None
    scheme, _, rest = given.rpartition("://")
    if scheme in ("", "file"):
        folder = Path(rest)
        if not folder.is_absolute():
            raise ValueError(f"SSVOS_STORAGE {given}: the path of a folder begins with /; {_REMEDY}")
        return folder
    return Place(given, "ssvos")


def require_storage() -> None:
    """ValueError, before any work, for a storage that takes nothing; not asked for is no fault."""
    place = storage()
    try:
        if isinstance(place, Path):
            place.mkdir(parents=True, exist_ok=True)
            require_writable(place / "probe")
        elif place:
            probe = place / f"probe-{uuid.uuid4().hex}"
            put(probe, b"probe")
            probe.unlink()
    except (OSError, ValueError) as error:
        where = place if isinstance(place, Path) else place.url.partition("?")[0].rpartition("@")[2]
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"SSVOS_STORAGE {where}: not usable ({reason}); {_REMEDY}") from error


def resume_folder(name: str) -> Path | Place:
    """Where what is interrupted is kept, under a name that carries its digest."""
    return (storage() or Path()) / "resume" / name


def put(path: Path | Place, content: bytes) -> None:
    """Write whole or not at all; folders are made."""
    path.write_bytes(content) if isinstance(path, Place) else write_bytes(path, content)


def remove_folder(folder: Path | Place) -> None:
    """With all that is in it."""
    if isinstance(folder, Place):
        folder.filesystem.delete_dir(folder.path)
    else:
        shutil.rmtree(folder)


@cache
def _opened(url: str):
    """(file system, path in it); waits for seconds, not for minutes, where nobody answers."""
    from pyarrow.fs import FileSystem

    return FileSystem.from_uri(url)
