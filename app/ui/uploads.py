"""Uploads: in a temporary folder of this process alone, within limits of size and age.

Gradio keeps there what browsers send, and the files that it hands out. On a machine that others use, its usual folder
would be theirs to read, or theirs altogether.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.serving import Serving
from app.ui.door import in_both
from pipelines.io.files import cannot_save

PREFIX = "atelier-uploads-"
MOST_BYTES = 100_000_000  # of all files together; the oldest go first
MOST_SECONDS = 43_200  # that a file is kept after it came
FRESH_SECONDS = 60  # files younger than this may be in use, and stay
LEFT_SECONDS = 86_400  # after which the folder of a process that was killed is deleted
EVERY_SECONDS = 600  # between two looks at the age of files


@cache
def upload_folder() -> Path:
    """The folder of this process, which nobody else may read; Gradio is told of it. It is deleted at the end.

    It lies where GRADIO_TEMP_DIR says, else where the system keeps temporary files. CannotSave when none can be made.
    """
    parent = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir()).absolute()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _forget_left(parent)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))  # with rights for its owner only
    except OSError as error:
        raise cannot_save(parent / PREFIX, error) from None
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    atexit.register(_delete, folder, os.getpid())
    return folder


def _delete(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a process that was forked
        shutil.rmtree(folder, ignore_errors=True)


def _forget_left(parent: Path) -> None:
    """Delete folders of processes that were killed: the folders of living ones are touched again and again."""
    for folder in parent.glob(PREFIX + "*"):
        with suppress(OSError):
            state = folder.lstat()
            mine = not hasattr(os, "getuid") or state.st_uid == os.getuid()
            if mine and time.time() - state.st_mtime > LEFT_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def trim(folder: Path, now: float, most_bytes: int = MOST_BYTES) -> int:
    """Delete files that are too old, and the oldest until the rest is within the limit. The bytes that remain."""
    files: list[tuple[float, int, str]] = []
    for top, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                path = os.path.join(top, name)
                state = os.lstat(path)
                files.append((state.st_mtime, state.st_size, path))
    total = sum(size for _, size, _ in files)
    for changed, size, path in sorted(files):
        age = now - changed
        if age > MOST_SECONDS or (total > most_bytes and age > FRESH_SECONDS):
            with suppress(OSError):
                os.unlink(path)
                total -= size
                os.rmdir(os.path.dirname(path))  # Gradio makes a folder for each file
    with suppress(OSError):
        os.utime(folder)
    return total


class UploadLimits:
    """ASGI middleware: makes room for an upload before it comes, and refuses it where there is none."""

    def __init__(self, app: ASGIApp, serving: Serving, clock: Callable[[], float] = time.time) -> None:
        self.app, self._clock = app, clock
        self._looked = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        headers, now = Headers(scope=scope), self._clock()
        is_upload = scope["path"].rstrip("/").endswith("/upload")
        if is_upload or now - self._looked > EVERY_SECONDS:
            self._looked = now
            announced = headers.get("content-length", "")
            coming = int(announced) if is_upload and announced.isdecimal() else 0
            kept = await asyncio.to_thread(trim, upload_folder(), now, max(MOST_BYTES - coming, 0))
            if is_upload and kept + coming > MOST_BYTES:
                sentence = in_both("uploads_full", megabytes=MOST_BYTES // 1_000_000)
                await JSONResponse({"error": sentence, "detail": sentence}, 507)(scope, receive, send)
                return
        await self.app(scope, receive, send)
