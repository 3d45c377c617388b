"""The index: facts, vectors and thumbnails of the files, brought up to them, and read as one table."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.library.facts import SHOWN, FactsIndex, FileFacts, clip_number, transaction
from app.library.files import BIN, Places, State
from app.library.reading import Look, read_file
from app.library.thumbnails import thumbnail_file
from app.library.vectors import Vectors
from pipelines.errors import BadInput

READ_AT_ONCE = 64  # files whose facts are written together
SLOW_WALK = 0.1  # seconds; folders that take longer are not walked again within WALK_AGAIN seconds
WALK_AGAIN = 5.0
ANY_CLIP = ""  # the mark of whichever CLIP was used last


@dataclass(frozen=True)
class Table:
    """All pictures that are shown, as columns of n: what searching and sorting need of them.

    `number` is their number in the index, `row` that of their vector (-1: none). Equal prompts have equal
    `wording`. `score` is nan where there is none. `contents` are those of the files.
    """

    version: tuple[int, ...]
    number: np.ndarray
    modified: np.ndarray
    wording: np.ndarray
    score: np.ndarray
    row: np.ndarray
    binned: np.ndarray
    contents: list[bytes]
    vectors: Vectors | None

    def __len__(self) -> int:
        return len(self.number)


class Index:
    """The index of one folder of pictures. Any thread may call it; once `closing` is set, it raises BadInput."""

    def __init__(self, places: Places, closing: threading.Event) -> None:
        self.places, self.closing = places, closing
        self.facts = FactsIndex(places.facts)
        self._stores: dict[tuple[str, int], Vectors] = {}
        self._renewed = 0
        self._checked: set[tuple[str, int]] = set()
        self._tables: dict[str, Table] = {}
        self._unseen: dict[str | None, tuple[tuple[int, ...], list[tuple[bytes, str]]]] = {}
        self._walked: tuple[float, float] = (-1e9, 0.0)  # when, and how long it took
        self._unread = 0
        self._known: tuple[tuple[int, ...], dict[str, State]] = ((), {})
        self._lock = threading.RLock()

    def check_open(self) -> None:
        if self.closing.is_set():
            raise BadInput("app.closing")

    def close(self) -> None:
        self.facts.close()

    # ----------------------------------------------------------------------------------------------- files and facts

    def refresh(
        self, until: float | None = None, tell: Callable[[int, int], object] = lambda done, total: None
    ) -> int:
        """Bring the facts up to the files: read new and changed ones, newest first, and forget deleted ones.

        It stops at the time `until` (of time.monotonic) and tells how many files it has read, of how many. Without a time
        it looks at all files. Returns the number of files that are not read yet.
        """
        self.check_open()
        begun, renewed = time.monotonic(), self.facts.renewed
        when, lasted = self._walked
        if until is not None and lasted > SLOW_WALK and begun - when < WALK_AGAIN and not self._unread:
            return 0
        there = dict(self.places.pictures(self.check_open))
        self._walked = (time.monotonic(), time.monotonic() - begun)
        known = self._known_files()
        self.facts.forget(known.keys() - there.keys())
        fresh = sorted(
            (name for name, state in there.items() if known.get(name) != state),
            key=lambda name: there[name],
            reverse=True,
        )
        done = 0
        while done < len(fresh):
            rows: list[FileFacts] = []
            for name in fresh[done : done + READ_AT_ONCE]:
                self.check_open()
                rows.append(read_file(self.places.file(name), name, there[name], self.places.own))
                if until is not None and time.monotonic() > until:
                    break
            self.facts.put(rows)
            done += len(rows)
            tell(done, len(fresh))
            if until is not None and time.monotonic() > until:
                break
        if self.facts.renewed != renewed:  # the database is another now, and empty
            return self.refresh(until, tell)
        self._unread = len(fresh) - done
        return self._unread

    def forget_walk(self) -> None:
        """The next refresh looks at all files."""
        self._walked = (-1e9, 0.0)

    def _known_files(self) -> dict[str, State]:
        version = self.facts.version()
        if self._known[0] != version:
            self._known = (version, self.facts.known())
        return self._known[1]

    # -------------------------------------------------------------------------------------------------- what was seen

    def unseen(self, mark: str | None) -> list[tuple[bytes, str]]:
        """(content, one of its paths) of pictures that nobody has looked at, newest first.

        With the mark of a CLIP also of those without a vector by it.
        """
        version = self.facts.version()
        if mark in self._unseen and self._unseen[mark][0] == version:
            return self._unseen[mark][1]
        missing = "content NOT IN (SELECT content FROM seen)"
        if mark is not None:
            missing = f"({missing} OR content NOT IN (SELECT content FROM vectors JOIN clips USING (clip) WHERE mark = ?))"
        words = f"SELECT content, path, max(modified) FROM files WHERE {SHOWN} AND {missing} GROUP BY content"
        rows = self.facts.query(f"{words} ORDER BY 3 DESC", () if mark is None else (mark,))
        self._unseen[mark] = (version, [(content, path) for content, path, _ in rows])
        return self._unseen[mark][1]

    def keep(self, looks: Sequence[Look], mark: str | None = None, vectors: np.ndarray | None = None) -> None:
        """Remember what was seen, all of it or nothing: `vectors` (k, d) are those of the k looks without a problem."""
        good = [look for look in looks if look.problem is None]
        lasting = [look for look in looks if not look.gone]

        def work(db: sqlite3.Connection) -> None:
            with transaction(db):
                if mark is not None and vectors is not None and len(good):
                    self._keep_vectors(db, mark, [look.content for look in good], vectors)
                rows = [
                    (
                        look.content,
                        look.look,
                        None if look.problem is None else look.problem.message.to_text(),
                    )
                    for look in lasting
                ]
                db.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", rows)
                given = [(look.content, *pair) for look in good for pair in look.given]
                db.executemany("INSERT OR REPLACE INTO given VALUES (?, ?, ?)", given)

        self.check_open()
        self.facts.run(work)

    def _keep_vectors(
        self, db: sqlite3.Connection, mark: str, contents: list[bytes], vectors: np.ndarray
    ) -> None:
        """Write rows behind those that are known, then which picture each is of."""
        store = self.store(mark, vectors.shape[1])
        clip = clip_number(db, mark, vectors.shape[1])
        (last,) = db.execute("SELECT max(row) FROM vectors WHERE clip = ?", (clip,)).fetchone()
        marks = ", ".join("?" * len(contents))
        words = f"SELECT content FROM vectors WHERE clip = ? AND content IN ({marks})"
        there = {content for (content,) in db.execute(words, (clip, *contents))}
        new = [k for k, content in enumerate(contents) if content not in there]
        if new:
            first = -1 if last is None else last
            store.write(first + 1, vectors[new])
            rows = [(clip, contents[k], first + 1 + place) for place, k in enumerate(new)]
            db.executemany("INSERT INTO vectors VALUES (?, ?, ?)", rows)

    def store(self, mark: str, size: int) -> Vectors:
        """The vectors of a CLIP."""
        with self._lock:
            if self._renewed != self.facts.renewed:
                self._stores.clear()
                self._renewed = self.facts.renewed
            if (mark, size) not in self._stores:
                file = None if self.facts.in_memory else self.places.index / f"vectors-{mark}-{size}.f16"
                self._stores[mark, size] = Vectors(file, size)
            return self._stores[mark, size]

    def check_vectors(self, mark: str) -> None:
        """Forget rows of a CLIP's vectors that are not in the file any more, or are no vectors: they are seen again.

        Once for each CLIP.
        """
        if (mark, self.facts.renewed) in self._checked:
            return
        self._checked.add((mark, self.facts.renewed))
        for clip, size in self.facts.query("SELECT clip, size FROM clips WHERE mark = ?", (mark,)):
            words = "SELECT max(row) + 1 FROM vectors WHERE clip = ?"
            bad = self.store(mark, size).bad(self.facts.query(words, (clip,))[0][0] or 0)
            if len(bad):
                rows = [(clip, int(row)) for row in bad]
                self._write("DELETE FROM vectors WHERE clip = ? AND row = ?", rows)

    def _write(self, words: str, rows: Sequence[tuple[object, ...]]) -> None:
        def work(db: sqlite3.Connection) -> None:
            with transaction(db):
                db.executemany(words, rows)

        self.facts.run(work)

    def forget_contents(self, contents: Sequence[bytes]) -> None:
        """Forget what was seen of files that were deleted on purpose, their thumbnails too."""
        left = {content for (content,) in self.facts.query("SELECT DISTINCT content FROM files")}
        gone = [(content,) for content in contents if content not in left]
        for table in ("seen", "given", "vectors"):
            self._write(f"DELETE FROM {table} WHERE content = ?", gone)
        for (content,) in gone:
            with suppress(OSError):
                thumbnail_file(self.places.thumbnails, content).unlink(missing_ok=True)

    # -------------------------------------------------------------------------------------------------------- reading

    def table(self, mark: str = ANY_CLIP) -> Table:
        """The pictures that are shown, with their vectors by the CLIP of this mark, or by the one used last."""
        version = self.facts.version()
        with self._lock:
            table = self._tables.get(mark)
            if table is not None and table.version == version:
                return table
        words = "mark = ?" if mark else "? = ''"
        clips = self.facts.query(
            f"SELECT clip, mark, size FROM clips WHERE {words} ORDER BY used DESC LIMIT 1", (mark,)
        )
        clip, named, size = clips[0] if clips else (-1, "", 0)
        rows = self.facts.query(
            f"SELECT number, modified, wording, score, coalesce(row, -1), substr(path, 1, {len(BIN)}) = '{BIN}', content"
            f" FROM files LEFT JOIN (SELECT content, row FROM vectors WHERE clip = ?) USING (content) WHERE {SHOWN}",
            (clip,),
        )
        columns = list(zip(*rows, strict=True)) if rows else [()] * 7
        kinds = (np.int64, np.int64, np.int64, np.float64, np.int64, np.bool_)
        arrays = [np.array(column, kind) for column, kind in zip(columns, kinds, strict=False)]
        vectors = self.store(named, size) if clips else None
        if vectors is not None and len(rows):  # a file that was cut since it was checked
            arrays[4][arrays[4] >= vectors.count()] = -1
        table = Table(version, *arrays, contents=list(columns[6]), vectors=vectors)
        with self._lock:
            self._tables = {**({} if len(self._tables) > 3 else self._tables), mark: table}
        return table

    def paths(self, numbers: Sequence[int]) -> dict[int, tuple[str, int, bytes]]:
        """Number -> name, nanoseconds of the last change, content."""
        found: dict[int, tuple[str, int, bytes]] = {}
        for start in range(0, len(numbers), 500):
            part = [int(number) for number in numbers[start : start + 500]]
            marks = ", ".join("?" * len(part))
            words = f"SELECT number, path, modified, content FROM files WHERE number IN ({marks})"
            found |= {number: tuple(rest) for number, *rest in self.facts.query(words, part)}
        return found

    def contents(self) -> set[str]:
        """The contents of all files, as hex."""
        return {content.hex() for (content,) in self.facts.query("SELECT DISTINCT content FROM files")}

    def file(self, name: str) -> Path:
        return self.places.file(name)
