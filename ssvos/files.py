"""Atomic writing of files, and errors that explain why a file cannot be written."""

import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A context manager that yields a temporary path and renames it to `path` when the block ends without an error.

    A reader never sees a partly written file, and an error leaves the previous file unchanged. The temporary file has
    the suffix of `path`, because image and Parquet writers choose the format by the suffix.
    Raises OSError for a path that cannot be written, or a disk that is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=f".tmp{path.suffix}", dir=path.parent)
    except OSError:
        require_writable(path)  # its message is more specific than the system's
        raise
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp creates 0600, which other users cannot read
        if path.is_dir():
            require_writable(path)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OSError(
            f"{path}: cannot be written completely ({error.strerror}), the previous file is unchanged; free some space"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A context manager that yields a temporary folder and renames it to `path` when the block ends without an error.

    An error removes the temporary folder.
    Raises FileExistsError if `path` exists.
    """
    if path.exists():
        raise FileExistsError(f"{path}: already exists; name a new folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", suffix=".tmp", dir=path.parent) as temporary:
        folder = Path(temporary) / path.name
        folder.mkdir()
        yield folder
        os.rename(folder, path)


def require_writable(path: Path) -> None:
    """Check that `path` can be written without creating anything, so that a command can fail before it does any work.

    Missing parent folders are not an error: the check applies to the lowest folder that exists.
    Raises OSError with the reason if `path` cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; give the name of a file")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise NotADirectoryError(f"{path}: cannot be written, {folder} is a file; move it away or choose another place")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise PermissionError(
            f"{path}: cannot be written in {folder} ({error.strerror}); choose another place"
        ) from error


def explain(error: Exception) -> str:
    """An error message in one line; an OSError of the system is reworded so that it begins with the file."""
    faults: Sequence[str] = getattr(error, "faults", ())
    if len(faults) > 1:
        return f"{faults[0]} (1 of {len(faults)} faults)"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}; check the path"
    return " ".join(str(error).split())


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
