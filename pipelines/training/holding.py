"""Which process holds a folder: its number and when it was begun, in a file. One that was killed holds nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from pipelines.errors import BadInput
from pipelines.io.files import write_atomically

HOLDER = "process.json"


def holder(folder: Path) -> psutil.Process | None:
    """The process that holds the folder, when it is alive."""
    with suppress(OSError, ValueError, TypeError, psutil.Error):
        number, begun = json.loads((folder / HOLDER).read_text("utf-8"))
        process = psutil.Process(number)
        if abs(process.create_time() - begun) < 1.0 and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def _training_runs(folder: Path, number: int) -> BadInput:
    return BadInput("training.runs_already", folder=folder, pid=number)


@contextmanager
def held(folder: Path, refusal: Callable[[Path, int], BadInput] = _training_runs) -> Generator[None]:
    """This process alone works in the folder, which is made when missing.

    BadInput, by `refusal` of the folder and the other's number, when another process that is alive holds it. CannotSave
    when the folder cannot be written.
    """
    other = holder(folder)
    if other is not None and other.pid != os.getpid():
        raise refusal(folder, other.pid)
    process = psutil.Process()
    write_atomically(folder / HOLDER, json.dumps([process.pid, process.create_time()]).encode())
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / HOLDER).unlink()
