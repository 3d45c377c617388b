"""The index of facts: what was read of the picture files, in a database that nothing depends on.

A damaged one is made anew. Where the file cannot be used (locked, a full or read-only disk, a folder in its place), a
database in memory takes its place until the next start. Pictures are known by their content, so that a renamed file is
neither read nor seen again.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipelines.errors import BadInput

R = TypeVar("R")

LOCKED_SECONDS = 2.0  # that another process may hold the file for
VERSION = 1
SCHEMA = """
CREATE TABLE files (number INTEGER PRIMARY KEY, path TEXT UNIQUE NOT NULL, modified INTEGER, bytes INTEGER, content BLOB,
  kind TEXT, tool TEXT, seed TEXT, model TEXT, text TEXT, wording INTEGER, score REAL, run BLOB, problem TEXT);
CREATE INDEX by_content ON files (content);
CREATE TABLE seen (content BLOB PRIMARY KEY, look BLOB, problem TEXT) WITHOUT ROWID;
CREATE INDEX broken ON seen (content) WHERE problem IS NOT NULL;
CREATE TABLE given (content BLOB, setting TEXT, look BLOB, PRIMARY KEY (content, setting)) WITHOUT ROWID;
CREATE TABLE clips (clip INTEGER PRIMARY KEY, mark TEXT UNIQUE NOT NULL, size INTEGER NOT NULL, used INTEGER);
CREATE TABLE vectors (clip INTEGER, content BLOB, row INTEGER NOT NULL, PRIMARY KEY (clip, content)) WITHOUT ROWID;
"""
SHOWN = "kind != '' AND content NOT IN (SELECT content FROM seen WHERE problem IS NOT NULL)"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FileFacts:
    """What was read of one file without decoding its pixels: a row of `files`.

    `kind` is "made" (here), "foreign" (with another program's record), "plain", or empty for what is not shown: broken
    files, and strangers in the folder of the pictures made here. `text` is casefolded, for the search. `wording` tells
    whether two prompts are the same. `run` is the same for all pictures of one run. `problem` is a Message as text.
    """

    path: str
    modified: int  # nanoseconds
    bytes: int
    content: bytes
    kind: str = ""
    tool: str = ""
    seed: str = ""
    model: str = ""
    text: str = ""
    wording: int = 0
    score: float | None = None
    run: bytes | None = None
    problem: str | None = None


class FactsIndex:
    """The database. Its callers take turns; each `work` may be run again on a new one that is empty."""

    def __init__(self, file: Path) -> None:
        self._file, self.in_memory = file, False
        self._lock, self._closed = threading.RLock(), False
        self.renewed = 0  # how often it was made anew: what was remembered of the old one holds no more
        try:
            self._db = _open(file)
        except (sqlite3.Error, OSError) as problem:
            self._db = self._another(problem)

    def run(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """What `work` gives of the database; after a failure it is run once more on one that works."""
        with self._lock:
            while True:
                try:
                    return work(self._db)
                except sqlite3.ProgrammingError:  # it was closed, or `work` is wrong
                    if self._closed:
                        raise BadInput("app.closing") from None
                    raise
                except sqlite3.Error as problem:
                    if self.in_memory:
                        raise
                    with suppress(sqlite3.Error):
                        self._db.close()
                    self._db = self._another(problem)

    def query(self, words: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self.run(lambda db: db.execute(words, values).fetchall())

    def version(self) -> tuple[int, ...]:
        """Another value after every change, whoever made it."""

        def state(db: sqlite3.Connection) -> tuple[int, int]:
            return db.execute("PRAGMA data_version").fetchone()[0], db.total_changes

        return (self.renewed, *self.run(state))

    def close(self) -> None:
        with self._lock, suppress(sqlite3.Error):
            self._closed = True
            self._db.close()

    def _another(self, problem: Exception) -> sqlite3.Connection:
        """A new file in the place of a damaged one, else a database in memory."""
        log.warning("the index %s cannot be used (%s); the pictures are read again", self._file, problem)
        self.renewed += 1
        if _is_damaged(problem):
            with suppress(sqlite3.Error, OSError):
                for ending in ("", "-wal", "-shm"):
                    self._file.with_name(self._file.name + ending).unlink(missing_ok=True)
                return _open(self._file)
        self.in_memory = True
        return _prepared(sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None))

    # ------------------------------------------------------------------------------------------------------- files

    def known(self) -> dict[str, tuple[int, int]]:
        """Path -> (nanoseconds of the last change, bytes)."""
        rows = self.query("SELECT path, modified, bytes FROM files")
        return {path: (modified, size) for path, modified, size in rows}

    def put(self, rows: Iterable[FileFacts]) -> None:
        """Remember files; what was known of the same paths is forgotten."""
        values = [astuple(row) for row in rows]
        marks = ", ".join("?" * 13)

        def work(db: sqlite3.Connection) -> None:
            with transaction(db):
                db.executemany("DELETE FROM files WHERE path = ?", [(value[0],) for value in values])
                db.executemany(
                    "INSERT INTO files (path, modified, bytes, content, kind, tool, seed, model, text, wording, score,"
                    f" run, problem) VALUES ({marks})",
                    values,
                )

        if values:
            self.run(work)

    def forget(self, paths: Iterable[str]) -> None:
        gone = [(path,) for path in paths]

        def work(db: sqlite3.Connection) -> None:
            with transaction(db):
                db.executemany("DELETE FROM files WHERE path = ?", gone)

        if gone:
            self.run(work)

    def move(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Files were renamed: (old path, new path)."""
        moved = [(new, old) for old, new in pairs]

        def work(db: sqlite3.Connection) -> None:
            with transaction(db):
                db.executemany("UPDATE OR REPLACE files SET path = ? WHERE path = ?", moved)

        self.run(work)


def clip_number(db: sqlite3.Connection, mark: str, size: int) -> int:
    """The number of the CLIP of this fingerprint, whose vectors have `size` numbers. Asked within a transaction."""
    found = db.execute("SELECT clip, size FROM clips WHERE mark = ?", (mark,)).fetchone()
    if found and found[1] != size:
        db.execute("DELETE FROM vectors WHERE clip = ?", (found[0],))
        db.execute("UPDATE clips SET size = ? WHERE clip = ?", (size, found[0]))
    if not found:
        db.execute("INSERT INTO clips (mark, size, used) VALUES (?, ?, 0)", (mark, size))
    db.execute(
        "UPDATE clips SET used = (SELECT max(used) FROM clips) + 1"
        " WHERE mark = ? AND used <= (SELECT max(used) FROM clips WHERE mark != ?)",
        (mark, mark),
    )
    return db.execute("SELECT clip FROM clips WHERE mark = ?", (mark,)).fetchone()[0]


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All that is written within is written at once, or nothing of it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def _open(file: Path) -> sqlite3.Connection:
    file.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(file, check_same_thread=False, isolation_level=None, timeout=LOCKED_SECONDS)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        return _prepared(db)
    except sqlite3.Error:
        db.close()
        raise


def _prepared(db: sqlite3.Connection) -> sqlite3.Connection:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == VERSION:
        return db
    with transaction(db):
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == VERSION:  # another process made it meanwhile
            return db
        if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise sqlite3.DatabaseError(f"made by another version ({version})")
        for words in SCHEMA.split(";"):
            db.execute(words)
        db.execute(f"PRAGMA user_version = {VERSION}")
    return db


def _is_damaged(problem: Exception) -> bool:
    """Whether the file is no database, or not one of ours; it then holds nothing that the pictures do not."""
    if isinstance(problem, sqlite3.OperationalError):
        return any(word in str(problem) for word in ("no such", "has no column"))
    return isinstance(problem, sqlite3.DatabaseError)
