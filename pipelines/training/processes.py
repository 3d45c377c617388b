"""Training on several processes of this machine: they are started and watched here, and end together.

When one is lost, by the system for want of memory for instance, the others could only wait for it. They are ended, and a
sentence says what happened. What was saved last stays, and fewer processes go on from it.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from pipelines.errors import BadInput

MODULE = ("-m", "pipelines.training.cli")
LOST = 75  # exit code of a process that lost the others
UNSAVED = 74  # exit code of one that could not save, which it told; 1 is Python's own, with a traceback
WATCHED = "ATELIER_WATCHED"  # in the environment of those that `run` starts
LOOK_SECONDS = 0.2
GRACE_SECONDS = 10.0  # that the others have to end
OTHERS_GONE = re.compile(r"(?i)connection (closed|reset|refused)|broken pipe|nccl|timed out|peer")


def is_first() -> bool:
    """Whether this process is alone, or the first of several: the one that writes and tells."""
    return int(os.environ.get("RANK", "0")) == 0


def lost_the_others(error: RuntimeError) -> bool:
    """Whether an error of one of several processes says no more than that another one is gone."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and bool(OTHERS_GONE.search(str(error)))


def watched() -> bool:
    """Whether `run` started this process and tells what became of the others; else torchrun or the like did."""
    return WATCHED in os.environ


def end_with_watcher() -> None:
    """In a process that `run` started: end it once the one that watches is gone, which was killed without ending it."""
    watcher = os.getppid()

    def look() -> None:
        while os.getppid() == watcher and psutil.pid_exists(watcher):
            time.sleep(LOOK_SECONDS)
        os._exit(LOST)

    threading.Thread(target=look, daemon=True, name="watcher").start()


@contextmanager
def _ended_by_keyboard() -> Generator[None]:
    """Inside, the system's request to end is a KeyboardInterrupt; in the main thread, as Python has it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(arguments: Sequence[str], count: int, state: Path, command: Sequence[str] = MODULE) -> int:
    """Train on `count` processes with the same arguments; 2 or 1 when one of them told why it ended so, else 0.

    BadInput when a process is lost; `state` is where the trainings keep their state.
    """
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // count))
    shared = {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        WATCHED: "1",
    }
    children: list[subprocess.Popen[bytes]] = []
    with _ended_by_keyboard():
        try:
            for rank in range(count):
                environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                children.append(subprocess.Popen([sys.executable, *command, *arguments], env=environment))
            return _watched(children, state)
        finally:
            end(children)


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


def end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """End what still runs, and wait for it."""
    for child in children:
        if child.poll() is None:
            child.terminate()
    until = time.monotonic() + GRACE_SECONDS
    for child in children:
        with suppress(subprocess.TimeoutExpired):
            child.wait(max(0.1, until - time.monotonic()))
        if child.poll() is None:
            child.kill()
            child.wait()


def _watched(children: Sequence[subprocess.Popen[bytes]], state: Path) -> int:
    """Wait for all of them; for the others only a moment once one has ended badly."""
    while True:
        codes = [child.poll() for child in children]
        if any(codes):
            break
        if all(code == 0 for code in codes):
            return 0
        time.sleep(LOOK_SECONDS)
    time.sleep(LOOK_SECONDS)  # the one that is lost may be told after those that lost it
    codes = [child.poll() for child in children]
    if told := [code for code in codes if code in (2, UNSAVED)]:
        return 1 if told[0] == UNSAVED else 2  # and why the others ended
    lost = [rank for rank, code in enumerate(codes) if code not in (None, 0, LOST)]
    rank = lost[0] if lost else next(rank for rank, code in enumerate(codes) if code)
    raise BadInput(
        "training.process_lost",
        number=rank + 1,
        count=len(children),
        code=codes[rank],
        folder=state,
        fewer=max(1, len(children) - 1),
    )
