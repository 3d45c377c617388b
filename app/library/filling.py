"""Filling the index: a job in the background that reads files, looks at pictures and asks CLIP, and can be stopped.

Decoding and CLIP overlap: threads decode the next pictures while this one's vectors are computed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from app.library.entry import Progress
from app.library.index import Index
from app.library.reading import Look, look_at
from app.library.seeing import ClipLike, fingerprint, picture_vectors
from app.library.thumbnails import clear, is_whole, thumbnail_file, write_thumbnail
from pipelines.errors import BadInput, CannotSave

BATCH = 32  # pictures that CLIP sees at once, at most
BATCH_SECONDS = 0.3  # that a batch is to take: the job stops between two
DECODERS = 2  # threads
AHEAD = 3 * BATCH  # pictures that are decoded before CLIP has time for them
Tell = Callable[[Progress], object]

log = logging.getLogger(__name__)


class Filling:
    """The job that fills one index. One at a time; whoever asks while it runs is answered by the one that runs."""

    def __init__(self, index: Index, finished: Callable[[str], object]) -> None:
        """`finished` is called with the mark of a CLIP whose vectors are all there."""
        self.index, self._finished = index, finished
        self.stopped = False  # by the user: it does not begin again by itself
        self._turn = threading.Lock()  # held while pictures are seen
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._wanted: ClipLike | None = None
        self._state = Progress()
        self._lock = threading.Lock()

    @property
    def progress(self) -> Progress:
        return self._state

    def start(self, clip: ClipLike | None = None) -> None:
        """Begin in the background. While it runs, it goes on with this CLIP when it is through with what it does."""
        with self._lock:
            self.stopped = False
            self._wanted = clip or self._wanted
            if self._thread is not None and self._thread.is_alive():
                return
            self._stop.clear()
            self._state = Progress("read")
            self._thread = threading.Thread(target=self._work, daemon=True, name="library-index")
            self._thread.start()

    def stop(self, wait: float = 0.0) -> None:
        """Stop after the batch, and stay stopped. Waits for it as many seconds."""
        self.stopped = True
        self._stop.set()
        thread = self._thread
        if thread is not None and wait and thread is not threading.current_thread():
            thread.join(wait)

    def _work(self) -> None:
        stage = "stopped"
        try:
            while not self._stop.is_set():
                clip, self._wanted = self._wanted, None
                self.index.refresh(tell=lambda done, total: self._tell(Progress("read", done, total)))
                if self.see(clip, tell=self._tell):
                    continue
                if clip is not None:
                    self._finished(fingerprint(clip))
                clear(self.index.places.thumbnails, self.index.contents())  # of files that were deleted
                with self._lock:
                    if self._wanted is None:
                        stage = "done"
                        self._thread = None
                        break
        except (BadInput, CannotSave) as problem:
            log.info("the index is not filled: %s", problem)
        except Exception:
            log.exception("the index is not filled")
        state = self._state
        self._state = Progress(stage, state.done, state.total, state.broken)

    def see(self, clip: ClipLike | None, until: float | None = None, tell: Tell | None = None) -> int:
        """Look at pictures that were not looked at, with a CLIP also for their vectors; in this thread.

        It ends at the time `until` (of time.monotonic), or with BadInput when the studio closes or `tell` raises it. Waits
        for another that looks just now. Returns how many pictures are left.
        """
        mark = None if clip is None else fingerprint(clip)
        while not self._turn.acquire(timeout=0.1):
            self.index.check_open()
            if until is not None and time.monotonic() > until:
                return len(self.index.unseen(mark))
        try:
            if mark is not None:
                self.index.check_vectors(mark)
            missing = self.index.unseen(mark)
            done = broken = 0
            for looks in self._batches(clip, mark, missing):
                done += len(looks)
                broken += sum(look.problem is not None and not look.gone for look in looks)
                if tell is not None:
                    tell(Progress("see", done, len(missing), broken))
                if until is not None and time.monotonic() > until:
                    break
            return len(missing) - done
        finally:
            self._turn.release()

    def _batches(
        self, clip: ClipLike | None, mark: str | None, missing: list[tuple[bytes, str]]
    ) -> Iterator[list[Look]]:
        """Batches that were seen and kept. Batches grow while they are quick."""
        todo = deque(missing)
        ahead: deque[Future[Look]] = deque()
        size = 1
        with ThreadPoolExecutor(DECODERS, "library-decode") as pool:
            try:
                while todo or ahead:
                    self.index.check_open()
                    while todo and len(ahead) < max(2 * size, min(AHEAD, len(missing))):
                        content, name = todo.popleft()
                        ahead.append(pool.submit(self._decode, content, name))
                    looks = [self._decoded(ahead.popleft()) for _ in range(min(size, len(ahead)))]
                    begun = time.monotonic()
                    good = [look.picture for look in looks if look.picture is not None]
                    vectors = picture_vectors(clip, good) if clip is not None and good else None
                    self.index.keep(looks, mark, vectors)
                    seconds = time.monotonic() - begun
                    size = min(2 * size, BATCH) if seconds < BATCH_SECONDS / 2 else max(1, size // 2)
                    yield looks
            finally:
                for waiting in ahead:
                    waiting.cancel()

    def _decoded(self, ahead: Future[Look]) -> Look:
        self.index.check_open()
        return ahead.result()

    def _decode(self, content: bytes, name: str) -> Look:
        file = thumbnail_file(self.index.places.thumbnails, content)
        look = look_at(self.index.file(name), content, thumbnail=not is_whole(file))
        if look.small:
            try:
                write_thumbnail(file, look.small)
            except CannotSave as problem:  # the wall makes it when it is asked for it
                log.info("%s", problem)
        return look

    def _tell(self, state: Progress) -> None:
        self._state = state
        if self._stop.is_set():
            raise BadInput("library.stopped")
