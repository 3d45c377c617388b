"""What the library remembers of the picture files: a database that nothing depends on.

It lies beside the pictures. A damaged one is made anew. Where the file cannot be used (locked, a full or read-only disk, a
folder in its place), a database in memory takes its place until the next start.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

R = TypeVar("R")

LOCKED_SECONDS = 2.0  # that another process may hold the file for
COLUMNS = "path, modified, bytes, record, clip, vector"

log = logging.getLogger(__name__)


class PictureIndex:
    """One row a file: `pictures` with COLUMNS. Its callers take turns; each `work` may be run again."""

    def __init__(self, file: Path) -> None:
        self._file, self._in_memory = file, False
        try:
            self._db = _open(file)
        except (sqlite3.Error, OSError) as problem:
            self._db = self._another(problem)

    def run(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """What `work` gives of the database; after a failure it is run once more on one that works."""
        while True:
            try:
                return work(self._db)
            except sqlite3.ProgrammingError:  # it was closed, or `work` is wrong
                raise
            except sqlite3.Error as problem:
                if self._in_memory:
                    raise
                with suppress(sqlite3.Error):
                    self._db.close()
                self._db = self._another(problem)

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._db.close()

    def _another(self, problem: Exception) -> sqlite3.Connection:
        """A new file in the place of a damaged one, else a database in memory."""
        log.warning("the index %s cannot be used (%s); the pictures are read again", self._file, problem)
        if _is_damaged(problem):
            with suppress(sqlite3.Error, OSError):
                for ending in ("", "-wal", "-shm"):
                    self._file.with_name(self._file.name + ending).unlink(missing_ok=True)
                return _open(self._file)
        self._in_memory = True
        return _prepared(sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None))


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
    db.execute(
        "CREATE TABLE IF NOT EXISTS pictures (path TEXT PRIMARY KEY, modified INTEGER, bytes INTEGER,"
        " record TEXT, clip TEXT, vector BLOB)"  # record: empty when the file has none of ours
    )
    db.execute(f"SELECT {COLUMNS} FROM pictures LIMIT 0")  # another version may have made it
    return db


def _is_damaged(problem: Exception) -> bool:
    """Whether the file is no database, or not one of ours; it then holds nothing that the pictures do not."""
    if isinstance(problem, sqlite3.OperationalError):
        return any(word in str(problem) for word in ("no such", "has no column"))
    return isinstance(problem, sqlite3.DatabaseError)
