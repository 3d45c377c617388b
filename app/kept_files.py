"""Small safetensors files that a user kept: one folder a kind, and names made of words and of what is in them."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path

from pipelines.io.files import write_atomically

NAME = re.compile(r"[\w-]{1,60}\.safetensors")


def keep(folder: Path, data: bytes, words: str) -> str:
    """Save a file under a name made of `words`, which is returned; the same bytes twice are one file."""
    stem = re.sub(r"[^\w]+", "-", words).strip("-")[:40] or "kept"
    name = f"{stem}-{hashlib.sha256(data).hexdigest()[:6]}.safetensors"
    write_atomically(folder / name, data)
    return name


def kept_file(folder: Path, name: str) -> Path | None:
    """The file behind a name that comes from a browser; None when there is none that `keep` could have saved."""
    return folder / name if NAME.fullmatch(name) and (folder / name).is_file() else None


def newest(folder: Path, most: int) -> list[tuple[Path, os.stat_result]]:
    """The newest files, at most `most`, newest first, and what the system says of each. Other files are passed over."""
    files: list[tuple[Path, os.stat_result]] = []
    for path in folder.glob("*.safetensors"):
        with suppress(OSError):  # deleted just now, or a link to nowhere
            if kept_file(folder, path.name):
                files.append((path, path.stat()))
    return sorted(files, key=lambda pair: -pair[1].st_mtime_ns)[:most]
