"""Model work in threads that do not outlive it."""

from __future__ import annotations

import contextvars
import ctypes
import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def run_in_own_thread(work: Callable[P, R]) -> Callable[P, R]:
    """Decorator: do `work` in a thread of its own, which ends with it, and wait for that.

    A thread that computes with torch on the CPU keeps a team of OpenMP workers until it ends. As soon as all teams
    together have more members than there are cores, libgomp lets waiting members sleep instead of spin, and every one
    of a run's many small operations pays for being woken: the queue ran at half its speed for as long as a worker of the
    web server lived that had computed once.
    """

    @functools.wraps(work)
    def call(*args: P.args, **named: P.kwargs) -> R:
        with ThreadPoolExecutor(1, threading.current_thread().name) as thread:
            context = contextvars.copy_context()  # what it asks of may depend on who is asking
            return thread.submit(context.run, functools.partial(work, *args, **named)).result()

    return call


def give_back_memory() -> None:
    """Return to the system what a run has freed; glibc keeps it in the heap of each thread that there was."""
    with suppress(OSError, AttributeError):  # another C library has no such function
        ctypes.CDLL("libc.so.6").malloc_trim(0)
