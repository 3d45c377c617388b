"""Downloads belong to the server, as jobs do: one at a time, watched by any page, lost by none that closes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Literal

from pipelines.core.pipeline import Step
from pipelines.errors import BadInput, CannotSave, Message
from pipelines.weights.checkpoint import Checkpoint
from pipelines.weights.install import install, published
from pipelines.weights.open_weights import OPEN_WEIGHTS

Installing = Callable[[Checkpoint], Generator[Step, None, list[str]]]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Download:
    """How it stands at one moment: the model, what it is at, megabytes, and why it ended when it ended badly."""

    name: str
    waiting: tuple[str, ...] = ()  # models that come after this one
    state: Literal["running", "done", "stopped", "failed"] = "running"
    stage: str = ""  # the file that comes, or "converting"
    done: int = 0  # MB of this file
    total: int = 1
    rate: float = 0.0  # MB a second; 0 while it is not known
    problem: Message | None = None  # when it failed

    @property
    def error(self) -> str:
        """The problem in English; "" without one."""
        return str(self.problem or "")

    @property
    def is_over(self) -> bool:
        return self.state != "running"


class Downloads:
    """Models that are fetched one after another. The last download stays visible until the next."""

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

    @property
    def stopping(self) -> bool:
        """Whether the running download was asked to stop and has not come to its next step yet."""
        return self._stopped.is_set() and self._now is not None and not self._now.is_over

    def start(self, names: Sequence[str]) -> None:
        """Begin to fetch models of the full pack, in this order; those that are here already are left out.

        BadInput for an unknown name, when all are here, or when a download runs.
        """
        wanted = [name for name in dict.fromkeys(names) if not published(name).present]
        with self._lock:
            if self._now is not None and not self._now.is_over:
                raise BadInput("app.download_running", model=self._now.name)
            if not names:
                raise BadInput("app.nothing_to_fetch")
            if not wanted:
                raise BadInput("app.models_here", models=", ".join(names))
            self._now = Download(wanted[0], tuple(wanted[1:]))
            self._stopped.clear()
            self._thread = threading.Thread(target=self._run, name="download", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the running download at its next step; what came is kept for the next time."""
        self._stopped.set()

    def wait(self, seconds: float | None = None) -> None:
        """Until the running download is over, or for so many seconds."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        now = self._now
        assert now is not None
        try:
            names = (now.name, *now.waiting)
            for count, name in enumerate(names, start=1):
                self._now = now = Download(name, names[count:])
                with closing(self._install(OPEN_WEIGHTS[name])) as steps:
                    for step in steps:
                        rate = step.metrics.get("MB/s", 0.0)
                        now = replace(now, stage=step.stage, done=step.done, total=step.total, rate=rate)
                        self._now = now
                        if self._stopped.is_set() and not OPEN_WEIGHTS[name].present:
                            self._now = replace(now, state="stopped")
                            return
            self._now = replace(now, state="done")
        except (BadInput, CannotSave) as problem:
            self._now = replace(now, state="failed", problem=problem.message)
        except Exception:
            log.exception("the download of %s broke", now.name)
            self._now = replace(now, state="failed", problem=Message("app.download_broke"))
