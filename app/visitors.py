"""What one visitor sees where visitors are apart: of the queue his own jobs, of the library his own pictures."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from app.jobs.queue import PROGRAM, Job, JobQueue
from app.library import (
    Act,
    Broken,
    ClipLike,
    Entry,
    Library,
    Lineage,
    Page,
    Progress,
    Query,
)
from pipelines.core.journal import Journal
from pipelines.core.settings import Settings
from pipelines.errors import BadInput
from pipelines.io.images import URI_HEAD

KEPT_LIBRARIES = 16  # that stay open


class OwnQueue:
    """The queue as whoever asks sees it: his own jobs. Those of others are as unknown as those that never were.

    `asking` tells who asks, as `owner_of` gives it. What is not of one visitor (folder, pipelines, queue) is the queue's.
    """

    def __init__(self, queue: JobQueue, asking: Callable[[], str]) -> None:
        self._queue, self._asking = queue, asking

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    def submit(
        self,
        pipeline: str,
        settings: dict[str, Any] | Settings,
        session: str = "",
        after: tuple[str, int] | None = None,
    ) -> str:
        if after is not None:
            self.job(after[0])
        program = session.startswith(PROGRAM)
        return self._queue.submit(pipeline, settings, self._asking(), after, program=program)

    def job(self, job_id: str) -> Job:
        job = self._queue.job(job_id)
        if job.session != self._asking():
            raise self._queue.unknown(job_id)
        return job

    def jobs(self, session: str | None = None, count: int = 50) -> list[Job]:
        return self._queue.jobs(self._asking(), count)

    def preview(self, job_id: str) -> list[Image.Image] | None:
        self.job(job_id)
        return self._queue.preview(job_id)

    def journal(self, job_id: str) -> Journal:
        self.job(job_id)
        return self._queue.journal(job_id)

    def stop_soon(self, job_id: str) -> None:
        self._queue.stop_soon(job_id, self._asking())

    def stop(self, job_id: str) -> Job:
        self.job(job_id)
        return self._queue.stop(job_id)

    def cancel(self, job_id: str) -> bool:
        self.job(job_id)
        return self._queue.cancel(job_id)

    def move(self, job_id: str, by: int) -> bool:
        self.job(job_id)
        return self._queue.move(job_id, by)

    def clear(self, session: str) -> int:
        return self._queue.clear(self._asking())

    def pause(self, session: str, paused: bool) -> None:
        self._queue.pause(self._asking(), paused)

    def line(self, session: str) -> list[Job]:
        return self._queue.line(self._asking())

    def is_paused(self, session: str) -> bool:
        return self._queue.is_paused(self._asking())

    def resume(self, job_id: str) -> str:
        self.job(job_id)
        return self._queue.resume(job_id)


class OwnLibrary:
    """The library of whoever asks: `home` tells his folder. One that has made nothing yet has no folder.

    The last KEPT_LIBRARIES that were asked stay open, and those that are filling their index.
    """

    def __init__(self, home: Callable[[], Path]) -> None:
        self._home, self._closing = home, threading.Event()
        self._lock = threading.Lock()
        self._open: dict[Path, Library] = {}  # those asked last at the end
        self._asked: Counter[Path] = Counter()  # questions that are being answered

    def recent(self, count: int = 50, skip: int = 0) -> list[Entry]:
        return self._ask(lambda library: library.recent(count, skip), [])

    def count(self) -> int:
        return self._ask(lambda library: library.count(), 0)

    def find(self, picture_id: str) -> Entry:
        entry = self._ask(lambda library: library.find(picture_id), None)
        if entry is None:
            raise BadInput("app.picture_not_in_library", picture=picture_id[:40])
        return entry

    def search(self, clip: ClipLike, text: str, count: int = 24) -> list[tuple[Entry, float]]:
        return self._ask(lambda library: library.search(clip, text, count), [])

    def similar(self, clip: ClipLike, path: str | Path, count: int = 24) -> list[tuple[Entry, float]]:
        return self._ask(lambda library: library.similar(clip, path, count), [])

    def page(self, query: Query, skip: int = 0, count: int = 48, clip: ClipLike | None = None) -> Page:
        if not all(source.startswith(URI_HEAD) for source in query.given):  # a visitor names no files
            raise BadInput("app.picture_not_here", picture="")
        nothing = Page([], 0, False, Progress())
        return self._ask(lambda library: library.page(query, skip, count, clip), nothing)

    def choices(self) -> dict[str, dict[str, int]]:
        return self._ask(lambda library: library.choices(), {"tool": {}, "model": {}, "tag": {}})

    def star(self, ids: Sequence[str], on: bool = True) -> None:
        self._own(ids, lambda library: library.star(ids, on))

    def tag(self, ids: Sequence[str], add: Sequence[str] = (), remove: Sequence[str] = ()) -> None:
        self._own(ids, lambda library: library.tag(ids, add, remove))

    def note(self, ids: Sequence[str], text: str) -> None:
        self._own(ids, lambda library: library.note(ids, text))

    def bin(self, ids: Sequence[str]) -> None:
        self._own(ids, lambda library: library.bin(ids))

    def restore(self, ids: Sequence[str]) -> None:
        self._own(ids, lambda library: library.restore(ids))

    def empty_bin(self) -> int:
        return self._ask(lambda library: library.empty_bin(), 0)

    def undo(self) -> Act | None:
        return self._ask(lambda library: library.undo(), None)

    def acts(self, count: int = 20) -> list[Act]:
        return self._ask(lambda library: library.acts(count), [])

    def lineage(self, picture_id: str) -> Lineage:
        return self._own([picture_id], lambda library: library.lineage(picture_id))

    def thumbnail(self, picture_id: str) -> Path:
        return self._own([picture_id], lambda library: library.thumbnail(picture_id))

    def zip_of(self, ids: Sequence[str]) -> Path:
        return self._own(ids, lambda library: library.zip_of(ids))

    def zip_place(self) -> Path:
        return self._own([""], lambda library: library.zip_place())

    @property
    def own(self) -> bool:
        return True

    def start_index(self, clip: ClipLike | None = None) -> None:
        self._ask(lambda library: library.start_index(clip), None)

    def stop_index(self) -> None:
        self._ask(lambda library: library.stop_index(), None)

    def fill(self, clip: ClipLike | None = None, tell: Callable[[Progress], object] | None = None) -> None:
        self._ask(lambda library: library.fill(clip, tell), None)

    def progress(self) -> Progress:
        return self._ask(lambda library: library.progress(), Progress())

    def broken(self) -> list[Broken]:
        return self._ask(lambda library: library.broken(), [])

    def _own(self, ids: Sequence[str], question: Callable[[Library], Any]) -> Any:
        """The answer of the visitor's own library; who has none has no picture of any id."""
        answer = self._ask(lambda library: (question(library),), None)
        if answer is None:
            raise BadInput("app.picture_not_in_library", picture=str(next(iter(ids), ""))[:40])
        return answer[0]

    def _ask(self, question: Callable[[Library], Any], nothing: Any) -> Any:
        home = self._home()
        if not home.is_dir():
            return nothing
        with self._lock:
            library = self._open.pop(home, None)
            if library is None or not library.folder.is_dir():
                library = Library(home, self._closing)
            self._open[home] = library
            self._asked[home] += 1
        try:
            return question(library)
        finally:
            with self._lock:
                self._asked[home] -= 1
                self._close_old()

    def _close_old(self) -> None:
        """Close the libraries that were asked longest ago."""
        for home, library in list(self._open.items()):
            if len(self._open) <= KEPT_LIBRARIES:
                break
            if not self._asked[home] and not library.progress().running:
                del self._open[home], self._asked[home]
                library.done()

    def close(self) -> None:
        """End what is being asked."""
        self._closing.set()
        with self._lock:
            for library in self._open.values():
                library.close()
            self._open.clear()
