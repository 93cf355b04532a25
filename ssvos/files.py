"""Writing a file whole or not at all, and saying why where it cannot be."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; it takes the name `path` when the block ends without an error.

    A reader never sees a half-written file, and an error leaves what stood there before. The temporary name
    keeps the suffix, because image and Parquet writers choose their format by it.
    Raises OSError for a path that cannot be written, or not to its end.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=f".tmp{path.suffix}", dir=path.parent)
    except OSError:
        require_writable(path)  # says what the system's own words leave open
        raise
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes 0600, which no colleague could read
        if path.is_dir():
            require_writable(path)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OSError(
            f"{path}: cannot be written to its end ({error.strerror}), what stood there before remains; make room"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that becomes `path` once it is whole; after an error nothing of it is left.

    Raises FileExistsError if `path` is there already.
    """
    if path.exists():
        raise FileExistsError(f"{path}: is there already; name a new folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", suffix=".tmp", dir=path.parent) as temporary:
        folder = Path(temporary) / path.name
        folder.mkdir()
        yield folder
        os.rename(folder, path)


def require_writable(path: Path) -> None:
    """OSError that says why `path` could not be written; nothing is made, so that work may be refused before it begins.

    Folders that are missing above it may be made later: the lowest one that is there is tried.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; give the name of a file")
    place = next(parent for parent in path.absolute().parents if parent.exists())
    if not place.is_dir():
        raise NotADirectoryError(f"{path}: cannot be written, {place} is a file; move it away or choose another place")
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise PermissionError(
            f"{path}: cannot be written in {place} ({error.strerror}); choose another place"
        ) from error


def explain(error: Exception) -> str:
    """An error as one line; the system's own names its file first, like ours."""
    faults = getattr(error, "faults", ())
    if len(faults) > 1:
        return f"{faults[0]} (1 of {len(faults)} faults)"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}; check the path"
    return " ".join(str(error).split())


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
