"""The file of jobs: SQLite, one row a job. It outlives the server. Pictures that jobs were given lie beside it."""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from app.jobs.given import GivenPictures, move_out
from app.jobs.job import Job, State
from app.jobs.timing import cells_of, timing_key
from pipelines.core.pipeline import Pipeline
from pipelines.errors import BadInput, CannotSave, Message
from pipelines.io.files import cannot_save

NO_ROOM = 64 * 1024  # bytes that are free: on a full disk SQLite may only say that writing failed
KEPT_JOBS = 2_000  # finished ones in the file; their pictures stay when the jobs are forgotten
KEPT_PAUSES = 1_000  # the newest
LONG_SETTINGS = 20_000  # characters that earlier versions wrote only where they kept pictures in the list

log = logging.getLogger(__name__)


SCHEMA = """
PRAGMA journal_mode=WAL;
PRAGMA synchronous=NORMAL;
CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, session TEXT, pipeline TEXT, settings TEXT, state TEXT, metrics TEXT,
  pictures TEXT, error TEXT, created REAL, started REAL, finished REAL, seconds TEXT, ticket INTEGER, shape TEXT);
CREATE TABLE IF NOT EXISTS paused (session TEXT PRIMARY KEY, since REAL);
CREATE INDEX IF NOT EXISTS by_ticket ON jobs (ticket);
CREATE INDEX IF NOT EXISTS by_pace ON jobs (pipeline, state, finished)
"""


class JobStore:
    """The file: one row a job. Called under the queue's lock only."""

    COLUMNS = (
        "id, session, pipeline, settings, state, metrics, pictures, error, created, started, finished, seconds,"
        " ticket, shape"
    )

    def __init__(self, folder: Path, pipelines: Mapping[str, type[Pipeline[Any]]]) -> None:
        self.folder, self.pipelines = folder, pipelines
        self.given = GivenPictures(folder)
        self._written: dict[str, str] = {}  # the settings of jobs that are not over, as they are written
        self._path, self._closed = folder / "jobs.sqlite", False
        self._guard, self._db = self._open()

    def _open(self) -> tuple[sqlite3.Connection, sqlite3.Connection]:
        """The lock of the folder, and the list in it, made where it is missing. Raises as `claim` does."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            guard = claim(self.folder / "jobs.lock")
            db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None, timeout=10)
            db.executescript(SCHEMA)
            self._move_pictures_out(db)
        except sqlite3.DatabaseError as error:
            raise _problem(error, self._path) from None
        except OSError as error:
            raise cannot_save(self._path, error) from None
        return guard, db

    def _list(self) -> sqlite3.Connection:
        """The list; a new one where the folder was deleted while the studio runs."""
        if not self._closed and not self._path.exists():
            self._let_go()
            self._guard, self._db = self._open()
        return self._db

    def _let_go(self) -> None:
        self._db.close()
        self._guard.close()

    def _move_pictures_out(self, db: sqlite3.Connection) -> None:
        """Earlier versions kept the pictures that jobs were given inside the list."""
        long = db.execute("SELECT id FROM jobs WHERE length(settings) > ?", (LONG_SETTINGS,)).fetchall()
        moved = 0
        for (job_id,) in long:
            (text,) = db.execute("SELECT settings FROM jobs WHERE id = ?", (job_id,)).fetchone()
            with suppress(ValueError, AttributeError):  # the row is damaged
                settings = json.loads(text)
                if (apart := move_out(self.given, settings)) not in (None, settings):
                    row = (json.dumps(apart), job_id)
                    moved += db.execute("UPDATE jobs SET settings = ? WHERE id = ?", row).rowcount
        if moved:
            db.execute("VACUUM")

    def save(self, job: Job, sequence: int) -> None:
        """Write a job. CannotSave when that does not work."""
        pictures = json.dumps(
            [{**picture, "path": self._relative(picture["path"])} for picture in job.pictures]
        )
        if job.id not in self._written:
            self._written[job.id] = json.dumps(self.given.apart(job.settings))
        settings = self._written.pop(job.id) if job.is_over else self._written[job.id]
        metrics, seconds = json.dumps(job.metrics), json.dumps(job.seconds)
        problem = job.problem.to_text() if job.problem else ""
        row = (
            *(job.id, job.session, job.pipeline, settings, job.state, metrics, pictures, problem),
            *(job.created, job.started, job.finished, seconds, sequence, timing_key(self.pipelines, job)),
        )
        try:
            db, marks = self._list(), ", ".join("?" * len(row))
            db.execute(f"INSERT OR REPLACE INTO jobs ({self.COLUMNS}) VALUES ({marks})", row)
            if job.is_over:
                db.execute(
                    "DELETE FROM jobs WHERE finished IS NOT NULL AND ticket <= ?", (sequence - KEPT_JOBS,)
                )
        except sqlite3.DatabaseError as error:
            raise CannotSave("jobs.not_noted", reason=error) from None

    def find(self, job_id: str) -> Job | None:
        """A job, with the names of given pictures in the place of the pictures: `whole` gives them back."""
        rows = self._rows("WHERE id = ?", (job_id,))
        return rows[0][1] if rows else None

    def is_whole(self, job: Job) -> bool:
        """Whether the pictures that a job was given are still there."""
        return self.given.are_here(job.settings)

    def whole(self, job: Job) -> Job:
        """A job with the pictures that it was given, as far as they are still there."""
        settings = self.given.whole(job.settings)
        return job if settings == job.settings else replace(job, settings=settings)

    def without_pictures(self, job: Job) -> Job:
        """A job that was saved, with the names of given pictures in the place of the pictures."""
        return replace(job, settings=self.given.apart(job.settings))

    def recent(self, session: str | None, count: int) -> list[tuple[int, Job]]:
        """The newest jobs, with the names of given pictures in the place of the pictures."""
        if session is None:
            return self._rows("ORDER BY ticket DESC LIMIT ?", (count,))
        return self._rows("WHERE session = ? ORDER BY ticket DESC LIMIT ?", (session, count))

    def reopen(self) -> list[tuple[int, Job]]:
        """What waits from before, in order.

        What was running then is interrupted. What has lost a picture that it was given fails: without it, it would be
        another run.
        """
        waiting: list[tuple[int, Job]] = []
        for sequence, job in self._rows("WHERE state IN ('queued', 'running') ORDER BY ticket", ()):
            over = replace(job, finished=time.time(), stage="", done=0, total=0)
            if job.state == "running":
                self.save(replace(over, state="interrupted"), sequence)
            elif not self.is_whole(job):
                gone = Message("jobs.picture_gone", {"job": job.id})
                self.save(replace(over, state="failed", problem=gone), sequence)
            else:
                waiting.append((sequence, self.whole(job)))
        return waiting

    def paused(self) -> set[str]:
        """The sessions whose jobs wait until they are let go on."""
        return {session for (session,) in self._ask("SELECT session FROM paused")}

    def note_pause(self, session: str, paused: bool) -> None:
        """Keep that a session is paused, or is no more. Where that cannot be written it holds until the next start."""
        try:
            db = self._list()
            db.execute("DELETE FROM paused WHERE session = ?", (session,))
            if paused:
                db.execute("INSERT INTO paused VALUES (?, ?)", (session, time.time()))
                db.execute(
                    "DELETE FROM paused WHERE session NOT IN (SELECT session FROM paused ORDER BY since DESC LIMIT ?)",
                    (KEPT_PAUSES,),
                )
        except (sqlite3.DatabaseError, BadInput, CannotSave) as problem:
            log.error("a pause could not be kept: %s", problem)

    def last_sequence(self) -> int:
        rows = self._ask("SELECT coalesce(max(ticket), 0) FROM jobs")
        return rows[0][0] if rows else 0

    def mean_seconds(self, job: Job) -> float | None:
        """Seconds that recent jobs with the same settings took, prompt, seed and pictures aside; else of its kind.

        It is the mean of the last eight done jobs.
        """
        pipeline, shape = job.pipeline, timing_key(self.pipelines, job)
        for more, values in ((" AND shape = ?", (pipeline, shape)), ("", (pipeline,))):
            mean = self._ask(
                "SELECT avg(finished - started) FROM (SELECT started, finished FROM jobs WHERE pipeline = ?"
                f"{more} AND state = 'done' AND finished > started ORDER BY finished DESC LIMIT 8)",
                values,
            )
            if mean and mean[0][0] is not None:
                return mean[0][0]
        return None

    def seconds_each(self, pipeline: str) -> float | None:
        """Seconds that one run of a pipeline took, those of sheets each by itself: the mean of the last eight jobs."""
        rows = self._rows(
            "WHERE pipeline = ? AND state = 'done' AND finished > started ORDER BY finished DESC LIMIT 8",
            (pipeline,),
        )
        each = [((job.finished or 0) - (job.started or 0)) / cells_of(job) for _, job in rows]
        return sum(each) / len(each) if each else None

    def close(self) -> None:
        self._closed = True
        self._let_go()

    def _rows(self, clause: str, values: tuple[Any, ...]) -> list[tuple[int, Job]]:
        """Jobs with their tickets; rows that are damaged are passed over."""
        found: list[tuple[int, Job]] = []
        for row in self._ask(f"SELECT {self.COLUMNS} FROM jobs {clause}", values):
            try:
                found.append(self._read(row))
            except (ValueError, TypeError, AttributeError, KeyError):
                log.warning("the list of jobs is damaged at %r", row[0])
        return found

    def _ask(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Rows of the list; none when it cannot be read any more: what is in memory is still known."""
        try:
            return self._list().execute(query, values).fetchall()
        except (sqlite3.DatabaseError, BadInput, CannotSave) as problem:
            log.error("the list of jobs cannot be read: %s", problem)
            return []

    def _read(self, row: tuple[Any, ...]) -> tuple[int, Job]:
        names = [name.strip() for name in self.COLUMNS.split(",")]
        values = dict(zip(names, row, strict=True))
        sequence, _ = values.pop("ticket"), values.pop("shape")
        for name in ("settings", "metrics", "pictures", "seconds"):
            values[name] = json.loads(values[name])
        if values["pipeline"] in self.pipelines:  # an earlier version may have written former names
            current_names = self.pipelines[values["pipeline"]].Settings.current_names
            values["settings"] = current_names(values["settings"])
        values["pictures"] = [
            {**picture, "path": str(self.folder / picture["path"])} for picture in values["pictures"]
        ]
        values["problem"] = Message.from_text(values.pop("error"))
        if values["state"] not in get_args(State):
            values["state"] = "failed"
        return sequence, Job(**values)

    def _relative(self, path: str) -> str:
        """Paths are kept relative to the folder, so that it can be moved."""
        try:
            return str(Path(path).relative_to(self.folder))
        except ValueError:
            return path


def claim(lock: Path) -> sqlite3.Connection:
    """Hold the folder of a file for this process, until what is returned is closed; a crash lets go of it by itself.

    Two studios would run each other's jobs. BadInput when another process holds it, CannotSave when it cannot be written.
    """
    guard = sqlite3.connect(lock, check_same_thread=False, isolation_level=None, timeout=0)
    try:
        guard.execute("BEGIN EXCLUSIVE")
    except sqlite3.DatabaseError as error:
        guard.close()
        raise _problem(error, lock) from None
    return guard


def _problem(error: sqlite3.DatabaseError, path: Path) -> BadInput | CannotSave:
    """Why SQLite could not use a file of the folder, by SQLite's own code; a lock alone means another studio."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the details in its upper bits
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return BadInput("jobs.folder_in_use", folder=path.parent)
    full = code == sqlite3.SQLITE_IOERR and shutil.disk_usage(path.parent).free < NO_ROOM
    if full or code == sqlite3.SQLITE_FULL:
        return CannotSave("io.disk_full", file=path.name)
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return CannotSave("io.folder_forbidden", file=path.name, folder=path.parent)
    return CannotSave("jobs.list_unusable", file=path, reason=error)
