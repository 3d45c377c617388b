"""Writing files atomically, and small ones as data URIs."""

from __future__ import annotations

import base64
import errno
import os
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from pipelines.errors import BadInput, CannotSave, reason_of

FILE_URI_HEAD = "data:application/octet-stream;base64,"


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
        raise cannot_save(path, error) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)


def bytes_to_uri(data: bytes) -> str:
    """A file's bytes as a data URI, which `read_file_or_uri` takes."""
    return FILE_URI_HEAD + base64.b64encode(data).decode("ascii")


def read_file_or_uri(
    source: str | Path, most: int, *, missing: BadInput, too_large: BadInput, damaged: BadInput
) -> bytes:
    """The bytes of a file by its path, or of a data URI, either from a stranger.

    Raises `missing` when there is no such file, `too_large` when there are more than `most` bytes, `damaged` when a URI is
    no base64, and a BadInput of its own when the file cannot be read.
    """
    if isinstance(source, str) and source.startswith("data:"):
        body = source.partition(",")[2]
        if len(body) > most * 4 // 3 + 4:
            raise too_large
        try:
            return base64.b64decode(body, validate=True)
        except ValueError:
            raise damaged from None
    path = home_path(source)
    try:
        if not path.is_file():
            raise missing
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise BadInput("io.file_unreadable", path=str(source)[:80], reason=reason_of(error)) from None
    if len(data) > most:
        raise too_large
    return data


def remove_leftovers(folder: Path) -> None:
    """Delete what a process that was killed in `write_atomically` has left in a folder where nobody else writes."""
    for file in folder.glob(".*.part"):
        with suppress(OSError):
            file.unlink()


def home_path(source: str | Path) -> Path:
    """The path with a leading ~ or ~user replaced by the home folder. Unchanged when there is no such home."""
    try:
        return Path(source).expanduser()
    except RuntimeError:
        return Path(source)


def path_to_write(source: str | Path) -> Path:
    """The absolute path that a user named, for writing. BadInput when it begins with the home of nobody known here."""
    try:
        return Path(source).expanduser().absolute()
    except RuntimeError:
        raise BadInput("io.no_home", path=str(source)[:80]) from None


def check_writable(source: str | Path) -> Path:
    """The path of a file that a long run is to write at its end, tried out before it: its folder is made when missing.

    BadInput when nothing can be written there, and as `path_to_write` raises it.
    """
    path = path_to_write(source)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".try-", suffix=".part"):
            pass
    except (OSError, ValueError) as error:
        raise BadInput("io.not_writable", path=str(path)[:80], reason=reason_of(error)) from None
    return path


def shown_name(name: str) -> str:
    """A file's name as text that can be shown and sent: bytes that are not UTF-8 become U+F780 to U+F7FF.

    Control characters become U+F701 to U+F77F. `named` takes it back. UnicodeError for a name that holds half of a
    surrogate pair, as Windows allows.
    """
    shown = "".join(
        chr(ord(character) + 0x1B00)
        if 0xDC80 <= ord(character) <= 0xDCFF
        else chr(ord(character) + 0xF700)
        if ord(character) < 32 or ord(character) == 127
        else character
        for character in name
    )
    shown.encode("utf-8")
    return shown


def named(folder: Path, name: str) -> Path:
    """The file in `folder` that `shown_name` gave `name` to."""
    path = folder / name
    if not any("\uf701" <= character <= "\uf7ff" for character in name) or path.exists():
        return path
    return folder / "".join(
        chr(ord(character) - (0x1B00 if character >= "\uf780" else 0xF700))
        if "\uf701" <= character <= "\uf7ff"
        else character
        for character in name
    )


def cannot_save(path: str | Path, error: OSError) -> CannotSave:
    """The error to raise when `path` could not be written."""
    file = Path(path).name
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CannotSave("io.disk_full", file=file)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return CannotSave("io.folder_forbidden", file=file, folder=Path(path).parent)
    return CannotSave("io.not_saved", file=file, reason=reason_of(error))


@cache
def _umask() -> int:
    """The process's file mask. It can only be read by setting it, so this is done once."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
