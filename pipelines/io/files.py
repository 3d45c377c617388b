"""Writing files atomically."""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from pipelines.errors import CannotSave


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees either the old file or the new one, never a part of it.

    Missing folders are made. CannotSave when the disk is full or the folder may not be written; the old file is then
    unchanged, and no temporary file remains.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}-", suffix=".part")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files for its owner only
        os.replace(temporary, path)
    except OSError as error:
        raise CannotSave(cannot_save(path, error)) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)


def home_path(source: str | Path) -> Path:
    """The path with a leading ~ or ~user replaced by the home folder. Unchanged when there is no such home."""
    try:
        return Path(source).expanduser()
    except RuntimeError:
        return Path(source)


def cannot_save(path: str | Path, error: OSError) -> str:
    """One sentence for the user on why `path` could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{Path(path).name} was not saved: the disk is full; free some space and run it again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"{Path(path).name} was not saved: {Path(path).parent} may not be written; choose another folder"
        )
    return f"{Path(path).name} was not saved: {(error.strerror or str(error)).lower()}; choose another folder"


@cache
def _umask() -> int:
    """The process's file mask. It can only be read by setting it, so this is done once."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
