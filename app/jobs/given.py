"""Pictures that jobs were given: files beside the list of jobs, which names them, within a limit."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipelines.errors import BadInput, CannotSave
from pipelines.io.files import write_atomically
from pipelines.io.images import read_bytes

MOST_BYTES = 200_000_000  # of all together; the ones used longest ago go first
URI = re.compile(r"data:image/(png|jpeg|webp);base64,[A-Za-z0-9+/]+={0,2}")
NAME = re.compile(r"given/[0-9a-f]{32}\.(png|jpeg|webp)")

log = logging.getLogger(__name__)


class GivenPictures:
    """The folder `given`: each picture once, named by its hash. Called under the queue's lock only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def apart(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Settings with the names of files in the place of the pictures in them. CannotSave when one cannot be written."""
        return _changed(settings, URI, lambda found: self._keep(found[0], found[1]))

    def whole(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Settings with their pictures again, the empty text for each one that is gone."""
        return _changed(settings, NAME, lambda found: self._read(found[0], found[1]))

    def are_here(self, settings: dict[str, Any]) -> bool:
        """Whether all pictures of settings from `apart` are still there."""
        names = [
            found[0]
            for value in settings.values()
            if isinstance(value, str)
            for found in NAME.finditer(value)
        ]
        return all((self.folder / name).is_file() for name in names)

    def _keep(self, uri: str, kind: str) -> str:
        try:
            data = read_bytes(uri)
        except BadInput:  # a text that only begins like a picture
            return uri
        name = f"given/{hashlib.sha256(data).hexdigest()[:32]}.{kind}"
        path = self.folder / name
        if path.is_file():
            with suppress(OSError):
                os.utime(path)  # used just now
        else:
            write_atomically(path, data)
            self._trim(path)
        return name

    def _read(self, name: str, kind: str) -> str:
        try:
            data = (self.folder / name).read_bytes()
        except OSError:
            return ""
        return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"

    def _trim(self, newest: Path) -> None:
        """Delete the pictures used longest ago, until the rest is within the limit."""
        total = 0
        for path, size in by_last_use(newest.parent.iterdir()):
            total += size
            if total > MOST_BYTES and path != newest:
                with suppress(OSError):
                    path.unlink()


def by_last_use(paths: Any) -> list[tuple[Path, int]]:
    """Files that are there, each with its bytes, the one changed last first."""
    found: list[tuple[float, Path, int]] = []
    for path in paths:
        with suppress(OSError):
            state = path.stat()
            found.append((state.st_mtime, path, state.st_size))
    return [(path, size) for _, path, size in sorted(found, reverse=True)]


def _changed(
    settings: dict[str, Any], pattern: re.Pattern[str], change: Callable[[re.Match[str]], str]
) -> dict[str, Any]:
    return {
        name: pattern.sub(change, value) if isinstance(value, str) and pattern.search(value) else value
        for name, value in settings.items()
    }


def move_out(given: GivenPictures, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Settings of an earlier version with their pictures in files; None when that does not work."""
    try:
        return given.apart(settings)
    except CannotSave as problem:
        log.warning("pictures of an earlier job stay in the list: %s", problem)
        return None
