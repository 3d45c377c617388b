"""Looking at a folder before anything is learned from it, in a thread, so that whoever asks sees how far it is."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.core.explain import explain
from pipelines.errors import BadInput, CannotSave, Message, Stopped
from pipelines.training.data.folder import Check, check

MOST_KEPT = 4  # folders whose data files are kept; one of another folder is made again when it is needed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checking:
    """How far a look at a folder is: files done of all, then what was found or why nothing can be learned from it."""

    folder: str
    licence: str = ""
    done: int = 0
    total: int = 0
    found: Check | None = None
    problem: Message | None = None

    @property
    def is_over(self) -> bool:
        return self.found is not None or self.problem is not None


class Checks:
    """One folder at a time; data files of folders are kept in `cache`. A look at another folder ends the one before.

    `needed` tells the folder whose data file a training still reads, "" for none.
    """

    def __init__(self, cache: Path, needed: Callable[[], str] = str) -> None:
        self.cache, self._needed = cache, needed
        self._lock = threading.Lock()
        self._now: Checking | None = None
        self._stop = threading.Event()

    def ask(self, folder: str, licence: str = "", again: bool = False) -> Checking:
        """How the look at a folder stands; it is begun when there is none, and with `again` when it is over."""
        with self._lock:
            now = self._now
            other = now is None or (now.folder, now.licence) != (folder, licence)
            if now is None or other or (again and now.is_over):
                self._stop.set()
                self._stop = threading.Event()
                self._now = now = Checking(folder, licence)
                args = (now, self._stop)
                threading.Thread(target=self._look, args=args, daemon=True, name="checking").start()
            return now

    def close(self) -> None:
        """End what is being looked at."""
        self._stop.set()

    def _look(self, begun: Checking, stop: threading.Event) -> None:
        def tell(done: int, total: int) -> None:
            if stop.is_set():
                raise Stopped
            self._say(stop, replace(begun, done=done, total=total))

        try:
            ended = replace(begun, found=check(begun.folder, self.cache, tell, begun.licence))
        except Stopped:
            return
        except (BadInput, CannotSave) as problem:
            ended = replace(begun, problem=problem.message)
        except Exception as problem:
            log.exception("the look at a folder broke")
            ended = replace(begun, problem=explain(problem))
        self._trim()
        self._say(stop, ended)

    def _trim(self) -> None:
        """Delete the data files, sheets and facts of folders that were read longest ago and are not needed."""
        with suppress(OSError, ValueError, LookupError):
            read = sorted(self.cache.glob("*.json"), key=lambda file: file.stat().st_mtime)
            for facts in read[:-MOST_KEPT]:
                if json.loads(facts.read_text("utf-8"))["folder"] == self._needed():
                    continue
                for file in (facts, *(facts.with_suffix(ending) for ending in (".png", ".safetensors"))):
                    file.unlink(missing_ok=True)

    def _say(self, stop: threading.Event, checking: Checking) -> None:
        with self._lock:
            if not stop.is_set():
                self._now = checking
