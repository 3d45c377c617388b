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
from starlette.formparsers import MultiPartException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.serving import Serving
from app.ui.addresses import is_upload
from app.ui.door import in_both
from pipelines.io.files import cannot_save

PREFIX = "atelier-uploads-"
MOST_BYTES = 100_000_000  # of all files together; the oldest go first
MOST_SECONDS = 43_200  # that a file is kept after it came
FRESH_SECONDS = 60  # files younger than this may be in use, and stay
LEFT_SECONDS = 86_400  # after which the folder of a process that was killed is deleted
EVERY_SECONDS = 600  # between two looks at the age of files
CLOSED = "/process_recording"  # Gradio keeps what it is sent there for ever, and runs a program over it


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
    """Delete files that are too old, and the oldest until the rest is within the limit. The bytes that remain.

    A file from the future was written before the clock was put back. Where something has cleaned the folder away, it is
    made again.
    """
    with suppress(OSError):
        folder.mkdir(mode=0o700)
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
        fresh = -FRESH_SECONDS < age <= FRESH_SECONDS
        if abs(age) > MOST_SECONDS or (total > most_bytes and not fresh):
            with suppress(OSError):
                os.unlink(path)
                total -= size
                os.rmdir(os.path.dirname(path))  # Gradio makes a folder for each file
    with suppress(OSError):
        os.utime(folder)
    return total


class UploadLimits:
    """ASGI middleware: makes room for an upload before it comes, and ends it where there is none left.

    What comes is counted as it comes, whatever its length was said to be, together with all else that comes just now.
    """

    def __init__(self, app: ASGIApp, serving: Serving, clock: Callable[[], float] = time.time) -> None:
        self.app, self._clock = app, clock
        self._looked = 0.0
        self._kept = self._coming = 0  # bytes: of files at the last look and since; of what is being sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        headers, now = Headers(scope=scope), self._clock()
        sends_files = is_upload(headers)
        if scope["path"].rstrip("/").endswith(CLOSED):
            await Response(status_code=404)(scope, receive, send)
            return
        if sends_files or abs(now - self._looked) > EVERY_SECONDS:
            self._looked = now
            announced = headers.get("content-length", "")
            coming = int(announced) if sends_files and announced.isdecimal() else 0
            room = max(MOST_BYTES - self._coming - coming, 0)
            self._kept = await asyncio.to_thread(trim, upload_folder(), now, room)
            if sends_files and self._kept + self._coming + coming > MOST_BYTES:
                await _too_much()(scope, receive, send)
                return
        await (self._counted(scope, receive, send) if sends_files else self.app(scope, receive, send))

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        own, begun = 0, False

        async def counted() -> Message:
            nonlocal own
            message = await receive()
            size = len(message.get("body", b""))
            own, self._coming = own + size, self._coming + size
            if self._kept + self._coming > MOST_BYTES:
                raise MultiPartException(_full())  # which has Gradio delete what came of it
            return message

        async def sent(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, counted, sent)
        except MultiPartException:
            if begun:
                raise
            await _too_much()(scope, receive, send)
        finally:
            self._coming -= own
            self._kept += own


def _full() -> str:
    return in_both("uploads_full", megabytes=MOST_BYTES // 1_000_000)


def _too_much() -> Response:
    return JSONResponse({"error": _full(), "detail": _full()}, 507)
