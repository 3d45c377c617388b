"""Downloads belong to the server, as jobs do: one at a time, watched by any page, lost by none that closes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from pipelines.base import Step
from pipelines.errors import BadInput, CannotSave
from pipelines.full_pack import Entry
from pipelines.install import entry_of, install

Installing = Callable[[Entry], Generator[Step, None, list[str]]]


@dataclass(frozen=True)
class Download:
    """How a download stands: its model, what it is at, megabytes, and why it ended, when it ended badly."""

    name: str
    stage: str = ""
    done: int = 0
    total: int = 1
    error: str = ""
    is_over: bool = False


class Downloads:
    """At most one download; the last one stays visible until the next."""

    def __init__(self, install: Installing = install):
        self._install = install
        self._lock = threading.Lock()
        self._now: Download | None = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def now(self) -> Download | None:
        """The download that runs, or the last one; None before the first."""
        return self._now

    def start(self, name: str) -> None:
        """Begin to download a model of the full pack. BadInput when there is none, it is there, or another one runs."""
        entry = entry_of(name)
        with self._lock:
            if self._now is not None and not self._now.is_over:
                raise BadInput(f"{self._now.name} is being downloaded; wait for it, or stop it")
            if entry.present:
                raise BadInput(f"{name} is here already")
            self._now = Download(name)
            self._stopped.clear()
            self._thread = threading.Thread(target=self._run, args=(entry,), name="download", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the running download; what came is kept for the next time."""
        self._stopped.set()

    def wait(self, seconds: float | None = None) -> None:
        """Until the running download is over."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self, entry: Entry) -> None:
        facts: dict[str, Any] = {}
        steps = self._install(entry)
        try:
            for step in steps:
                facts = {"stage": step.stage, "done": step.done, "total": step.total}
                self._now = Download(entry.name, **facts)
                if self._stopped.is_set():
                    facts["error"] = "stopped; the next time goes on from there"
                    return
        except (BadInput, CannotSave) as problem:
            facts["error"] = str(problem)
        except Exception:
            facts["error"] = "the download broke for a reason that nobody foresaw; the log has it"
            raise
        finally:
            steps.close()
            self._now = Download(entry.name, **facts, is_over=True)
