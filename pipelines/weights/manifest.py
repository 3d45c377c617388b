"""The manifest of a shipped pack: size and SHA-256 of each of its files, compared before any of them is loaded.

`seal` writes it, after a training has replaced a file. Whoever seals has loaded every network, so a file that is as it was
sealed has a good header, the right shapes and no NaN.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pipelines.errors import BadInput
from pipelines.io.files import write_atomically
from pipelines.io.tensors import open_tensors
from pipelines.models.checkpoint import check_finite, file_hash

MANIFEST = "manifest.json"
UNSEALED = (MANIFEST, "README.md")  # in the folder of a pack

_lock = threading.Lock()
_good: set[tuple[Any, ...]] = set()  # what was found to be as it should be: path, size, time of change, entry


def check_pack(files: Iterable[Path]) -> None:
    """Check the files of a pack: those in the manifests of their folders, and `files` where a folder has none.

    Files that have not changed since the last call are not read again. BadInput, naming the file, when one is missing,
    damaged, or not as it was sealed, or when it holds NaN.
    """
    wanted: dict[Path, tuple[int, str] | None] = dict.fromkeys(files)
    for folder in sorted({path.parent for path in wanted}):
        wanted |= {folder / name: entry for name, entry in entries(folder).items()}
    with _lock:
        for path, entry in sorted(wanted.items()):
            if not path.is_file():
                raise BadInput("models.weights_missing", file=path.name)
            facts = path.stat()
            key = (path, facts.st_size, facts.st_mtime_ns, *(entry or ()))
            if key not in _good:
                _check(path, entry)
                _good.add(key)


def entries(folder: Path) -> dict[str, tuple[int, str]]:
    """What the manifest of a folder says: a file's name -> its bytes and its SHA-256. Empty without a manifest.

    BadInput when the manifest is damaged.
    """
    try:
        files: Any = json.loads((folder / MANIFEST).read_text("utf-8"))["files"]
        return {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput("models.weights_damaged", file=MANIFEST, reason=type(error).__name__) from None


def seal(folder: Path, try_out: Callable[[], None]) -> int:
    """Write the manifest of a folder's files as they are now, and return their number.

    `try_out` loads them. When it raises, the old manifest is put back. BadInput when a file is damaged or holds NaN.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and _is_sealed(path.name))
    for path in files:
        _check(path, None)
    table = {path.name: {"bytes": path.stat().st_size, "sha256": file_hash(path)} for path in files}
    manifest = folder / MANIFEST
    before = manifest.read_bytes() if manifest.is_file() else b""
    write_atomically(manifest, json.dumps({"files": table}, indent=1).encode() + b"\n")
    try:
        try_out()
    except BaseException:
        if before:
            write_atomically(manifest, before)
        else:
            manifest.unlink()
        raise
    return len(files)


def _is_sealed(name: str) -> bool:
    return name not in UNSEALED and not name.startswith(".")


def _check(path: Path, entry: tuple[int, str] | None) -> None:
    if entry is not None and path.stat().st_size == entry[0] and file_hash(path) == entry[1]:
        return
    if path.suffix == ".safetensors":  # damaged is said first: that it differs helps less
        try:
            with open_tensors(path) as file:
                check_finite({name: file.get_tensor(name) for name in file.keys()}, path.name)  # noqa: SIM118
        except (SafetensorError, OSError, ValueError, LookupError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput("models.weights_damaged", file=path.name, reason=error) from None
    if entry is not None:
        raise BadInput("weights.pack_changed", file=path.name)
