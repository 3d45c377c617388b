"""The lane: jobs belong to the server, one runs at a time on a device, and a page only watches.

A job lives from `submit` on in memory and in one SQLite file beside the pictures. A tab may close, the server may
restart: queued jobs stay queued, finished ones are found by their id, and one that was running when the server went
away is `interrupted` and offered again.
"""

from __future__ import annotations

import base64
import contextvars
import hashlib
import json
import logging
import secrets
import shutil
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import torch
from PIL import Image

from app.jobs.threads import aside
from app.owners import home_of
from pipelines.core.journal import Journal
from pipelines.core.pipeline import Pipeline, Result, Resumable, Settings, Step, run
from pipelines.core.record import write_pictures
from pipelines.errors import BadInput, CannotSave, Stopped
from pipelines.io.files import cannot_save
from pipelines.io.images import open_picture, picture_format, read_bytes

State = Literal["queued", "running", "done", "stopped", "failed", "interrupted"]
FINISHED = ("done", "stopped", "failed", "interrupted")

WATCHED_SECONDS = 2.0  # a preview is drawn for this long after somebody asked for one
PREVIEW_SECONDS = 0.25  # the least time between two previews
PREVIEW_SHARE = 0.2  # of the running time that drawing previews may take
MAX_PICTURE_BYTES = 8_000_000  # of a picture given as a setting: it is kept inside the job
KEPT_JOBS = 2_000  # finished ones in the file; their pictures stay when the jobs are forgotten
KEPT_JOURNALS = 200  # of the newest runs that can be resumed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """How a job stands at one moment."""

    id: str
    session: str
    pipeline: str
    settings: dict[str, Any]
    state: State
    position: int = 0  # in the queue: 1 is next; 0 when it is not waiting
    eta_seconds: float | None = None  # until it is finished; None when nothing is known or nothing remains
    stage: str = ""
    done: int = 0  # steps of this stage
    total: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    pictures: list[dict[str, Any]] = field(default_factory=list)  # best first: path, score, seed, rank, facts
    error: str = ""  # one sentence, when it failed
    created: float = 0.0  # seconds since 1970, as are the next two
    started: float | None = None
    finished: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)  # {"load", "run"} once done
    preview_version: int = 0  # grows with each preview drawn

    @property
    def is_over(self) -> bool:
        return self.state in FINISHED


class StudioLike(Protocol):
    """What the lane needs of a Studio."""

    pack: str
    device: str

    def pipeline(self, name: str) -> Pipeline[Any]: ...

    def models(self, name: str) -> dict[str, dict[str, str]]: ...


@dataclass
class _Live:
    """What a job has besides its snapshot while this process knows it. Touched under the lane's lock."""

    job: Job
    ticket: int  # order of arrival
    context: contextvars.Context = field(default_factory=contextvars.copy_context)  # of who asked for it
    stop: bool = False
    asked: float = -1e9  # when somebody last asked for a preview, monotonic seconds
    preview: list[Image.Image] | None = None
    draw_next: float = 0.0  # the earliest time for the next preview, monotonic seconds
    step_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=24))  # of the present stage
    last_step: float = 0.0  # monotonic


class Lane:
    """One device's jobs: one at a time, fair between sessions, kept in `folder`/jobs.sqlite.

    Any thread may call the methods; they answer at once. Pipelines run and draw previews on the lane's one thread only.
    `pipelines` is what names are looked up in, PIPELINES unless given. `run` gives the events of a run, here and now
    unless given; it is called in the context (contextvars) in which the job was asked for.
    """

    def __init__(
        self,
        studio: StudioLike,
        folder: str | Path = "outputs",
        pipelines: Mapping[str, type[Pipeline[Any]]] | None = None,
        *,
        session_cap: int = 8,
        total_cap: int = 64,
        run: Callable[..., Generator[Step | Result, None, None]] = run,
    ) -> None:
        if pipelines is None:
            from pipelines.studio import PIPELINES as pipelines
        self.studio = studio
        self.folder = Path(folder).absolute()
        self.pipelines = pipelines
        self._events = run
        self.session_cap = session_cap
        self.total_cap = total_cap
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._closing = False
        self._live: dict[str, _Live] = {}
        self._running: _Live | None = None
        self._turns: dict[str, int] = {}  # session -> number of its last turn, for the round robin
        self._store = _Store(self.folder)
        self._ticket = self._store.last_ticket()
        _forget_journals(self.folder / "runs")
        for ticket, job in self._store.unfinished():
            if job.state == "running":
                job = replace(job, state="interrupted", finished=time.time(), stage="", done=0, total=0)
                self._store.save(job, ticket, self._shape(job))
            else:
                self._live[job.id] = _Live(job, ticket)
        self._thread = threading.Thread(target=self._work, name="lane", daemon=True)
        self._thread.start()

    # ---------------------------------------------------------------------------------------------------- asking

    def submit(
        self,
        pipeline: str,
        settings: dict[str, Any] | Settings,
        session: str = "",
        after: tuple[str, int] | None = None,
    ) -> str:
        """Queue a run and give its id. BadInput when the settings are wrong or the queue is full.

        Pictures named in the settings are read in at once: the files may be gone when the job's turn comes.
        `after` names another job and one of its snapshots, at which this one goes on (a fork).
        """
        if pipeline not in self.pipelines:
            raise BadInput(f"the pipeline {pipeline!r} is not known; known: {', '.join(self.pipelines)}")
        values = settings.to_dict() if isinstance(settings, Settings) else dict(settings)
        kind = self.pipelines[pipeline].Settings
        checked = kind.from_dict(values).map_pictures(_picture_inside)
        job_id = f"{time.strftime('%H%M%S')}-{secrets.token_hex(16)}"
        with self._wake:
            self._check_room(session)
            if after is not None:
                self.journal(after[0]).fork(self._run_folder(job_id), after[1])
            self._ticket += 1
            job = Job(
                id=job_id,
                session=session,
                pipeline=pipeline,
                settings=checked.to_dict(),
                state="queued",
                created=time.time(),
            )
            live = _Live(job, self._ticket)
            self._store.save(job, live.ticket, self._shape(job))
            self._live[job.id] = live
            self._wake.notify_all()
            return job.id

    def job(self, job_id: str) -> Job:
        """How the job stands now; BadInput when nothing is known of it."""
        with self._lock:
            live = self._live.get(job_id)
            if live is None:
                return self._with_files(self._finished(job_id))
            return self._snapshot(live)

    def jobs(self, session: str | None = None, count: int = 50) -> list[Job]:
        """The newest `count` jobs of a session, or of all, newest first."""
        with self._lock:
            past = self._store.recent(session, count)
            live = [one for one in self._live.values() if session is None or one.job.session == session]
            found = {job.id: (ticket, self._with_files(job)) for ticket, job in past}
            found |= {one.job.id: (one.ticket, self._snapshot(one)) for one in live}
            newest = sorted(found.values(), key=lambda pair: pair[0], reverse=True)
            return [job for _, job in newest[:count]]

    @staticmethod
    def unknown(job_id: str) -> BadInput:
        """What is said of a job that nothing is known of."""
        return BadInput(f"no job {job_id[:40]!r} is known here; its pictures, if any, are in the library")

    @property
    def busy(self) -> bool:
        """Whether a job runs or waits, whosever it is."""
        with self._lock:
            return self._running is not None or bool(self._order())

    def queue(self) -> list[str]:
        """The ids of waiting jobs in the order in which they will run."""
        with self._lock:
            return [one.job.id for one in self._order()]

    def preview(self, job_id: str) -> list[Image.Image] | None:
        """The latest preview, None when there is none yet. Asking keeps previews coming for two seconds."""
        with self._lock:
            live = self._live.get(job_id)
            if live is None:
                return None
            live.asked = time.monotonic()
            return live.preview

    def journal(self, job_id: str) -> Journal:
        """What a run that can be resumed has left on disk; an empty one for other runs."""
        return Journal(self._run_folder(job_id))

    def _run_folder(self, job_id: str) -> Path:
        if not job_id.replace("-", "").isalnum():
            raise BadInput(f"no job {job_id[:40]!r} is known here")
        return self.folder / "runs" / job_id

    # -------------------------------------------------------------------------------------------------- steering

    def stop(self, job_id: str) -> Job:
        """Stop a running job within one step, or take a waiting one out of the queue. Finished ones stay as they are."""
        with self._wake:
            live = self._live.get(job_id)
            if live is None:
                return self._with_files(self._finished(job_id))
            live.stop = True
            if live.job.state == "queued":
                self._finish(live, "stopped")
            return self._snapshot(live)

    def cancel(self, job_id: str) -> bool:
        """Take a waiting job out of the queue; False when it is not waiting any more (use `stop` then)."""
        with self._wake:
            live = self._live.get(job_id)
            if live is None or live.job.state != "queued":
                return False
            self._finish(live, "stopped")
            return True

    def resume(self, job_id: str) -> str:
        """Queue a job again that was interrupted, stopped or failed; it keeps its id.

        It goes on where its journal ends, and starts from its beginning when it keeps none.
        """
        with self._wake:
            job = self._live[job_id].job if job_id in self._live else self._finished(job_id)
            if job.state in ("queued", "running"):
                return job_id
            if job.state == "done":
                raise BadInput(f"the job {job_id} is done; run its settings again instead")
            if job.pipeline not in self.pipelines:
                raise BadInput(f"the pipeline {job.pipeline!r} of the job is not known any more")
            self.pipelines[job.pipeline].Settings.from_dict(job.settings)
            self._check_room(job.session)
            self._ticket += 1
            fresh = Job(job.id, job.session, job.pipeline, job.settings, "queued", created=time.time())
            self._store.save(fresh, self._ticket, self._shape(fresh))
            self._live[job_id] = _Live(fresh, self._ticket)
            self._wake.notify_all()
            return job_id

    def close(self, timeout: float = 30.0) -> None:
        """Stop working. The running job becomes `interrupted` at its next step; waiting ones wait for the next start."""
        with self._wake:
            if self._closing:
                return
            self._closing = True
            self._wake.notify_all()
        self._thread.join(timeout)
        with self._lock:
            self._store.close()

    # ----------------------------------------------------------------------------------------------- the one thread

    def _work(self) -> None:
        """Take the next job, run it, and so on, whatever a job does."""
        while True:
            with self._wake:
                while not self._closing and not (waiting := self._order()):
                    self._wake.wait()
                if self._closing:
                    return
                live = waiting[0]
                self._turns[live.job.session] = max(self._turns.values(), default=0) + 1
                self._running = live
                self._update(live, state="running", started=time.time(), stage="loading")
            state: State = "failed"
            error = ""
            try:
                aside(live.context.run)(self._run, live)
                state = "done"
            except Stopped:
                state = "interrupted" if self._closing and not live.stop else "stopped"
            except BaseException as problem:  # even an exit asked for by a library must not end the lane
                error = explain(problem)
                if not isinstance(problem, (BadInput, CannotSave)):
                    log.exception("job %s failed", live.job.id)
            with self._wake:
                self._running = None
                self._finish(live, state, error)

    def _run(self, live: _Live) -> None:
        """One job from loading to its files. Raises Stopped between two steps when asked to."""
        job = live.job
        if job.pipeline not in self.pipelines:  # queued before a restart with another version
            raise BadInput(
                f"the pipeline {job.pipeline!r} is not known any more; known: {', '.join(self.pipelines)}"
            )
        settings = self.pipelines[job.pipeline].Settings.from_dict(job.settings)
        begun = time.perf_counter()
        pipeline = self.studio.pipeline(job.pipeline)
        loaded = time.perf_counter() - begun
        if live.stop or self._closing:
            raise Stopped
        journal = self.journal(job.id) if isinstance(pipeline, Resumable) else None
        if journal is not None and (old := journal.identity()):  # begun before, perhaps on another machine
            settings = type(settings).from_dict(old["settings"])
        events = self._events(pipeline, settings, journal)
        try:
            for event in events:
                if isinstance(event, Result):
                    self._save(live, event)
                    self._update(live, keep=False, seconds={"load": loaded, "run": event.seconds})
                    return
                self._note(live, event)
                if live.stop or self._closing:
                    if (
                        journal is not None
                        and isinstance(kept := events.throw(Stopped()), Result)
                        and live.stop
                    ):
                        self._save(live, kept)
                    raise Stopped
        finally:
            events.close()

    def _note(self, live: _Live, step: Step) -> None:
        """Make a step visible: its numbers, its measured time, and its preview when somebody watches."""
        now = time.monotonic()
        with self._lock:
            if live.last_step and live.job.stage == step.stage and step.done > live.job.done:
                live.step_seconds.append((now - live.last_step) / (step.done - live.job.done))
            elif live.job.stage != step.stage:
                live.step_seconds.clear()
            metrics = {name: float(value) for name, value in step.metrics.items()}
            changes = {"stage": step.stage, "done": step.done, "total": step.total, "metrics": metrics}
            self._update(live, keep=False, **changes)
            watched = now - live.asked < WATCHED_SECONDS
        if watched and step.draw is not None and now >= live.draw_next:
            self._draw(live, step)
        live.last_step = time.monotonic()  # drawing is not the step's own time

    def _draw(self, live: _Live, step: Step) -> None:
        """Draw a preview here, before the next step changes what it shows. A failing one costs the job nothing."""
        begun = time.monotonic()
        try:
            with torch.no_grad():
                pictures = step.preview()
        except Exception:
            log.exception("the preview of job %s failed", live.job.id)
            pictures = None
        ended = time.monotonic()
        live.draw_next = ended + max(PREVIEW_SECONDS, (ended - begun) / PREVIEW_SHARE)
        if pictures:
            with self._lock:
                live.preview = pictures
                self._update(live, keep=False, preview_version=live.job.preview_version + 1)

    def _save(self, live: _Live, result: Result) -> None:
        """Write the pictures; each one is in the job as soon as its file is whole."""
        job = live.job
        day = home_of(self.folder, job.session) / date.today().isoformat()
        stem = f"{job.id}-{time.strftime('%H%M%S')}" if live.stop else job.id  # a stopped run may be resumed
        for entry, _ in write_pictures(day, stem, pipeline=job.pipeline, studio=self.studio, result=result):
            with self._lock:
                self._update(live, keep=False, pictures=[*live.job.pictures, entry])

    # -------------------------------------------------------------------------------------- under the lock

    def _update(self, live: _Live, *, keep: bool = True, **changes: Any) -> None:
        """Change a job; `keep` also writes it to the file."""
        with self._lock:
            live.job = replace(live.job, **changes)
            if keep:
                try:
                    self._store.save(live.job, live.ticket, self._shape(live.job))
                except CannotSave as problem:  # the disk is full: memory still knows
                    log.error("%s", problem)

    def _finish(self, live: _Live, state: State, error: str = "") -> None:
        self._update(live, state=state, error=error, finished=time.time())
        live.preview = None if state == "done" else live.preview
        over = [one for one in self._live.values() if one.job.is_over]
        for one in sorted(over, key=lambda one: one.job.finished or 0)[:-100]:
            del self._live[one.job.id]

    def _finished(self, job_id: str) -> Job:
        job = self._store.find(job_id)
        if job is None:
            raise self.unknown(job_id)
        return job

    def _check_room(self, session: str) -> None:
        waiting = [one for one in self._live.values() if one.job.state == "queued"]
        own = sum(one.job.session == session for one in waiting)
        if own >= self.session_cap:
            raise BadInput(
                f"{own} of your jobs are waiting already, which is the most; wait for one or cancel one"
            )
        if len(waiting) >= self.total_cap:
            raise BadInput(f"the queue is full with {len(waiting)} jobs; try again in a few minutes")

    def _order(self) -> list[_Live]:
        """Waiting jobs as they will run: sessions take turns, and who had a turn longest ago comes first."""
        own: dict[str, list[_Live]] = {}
        for live in sorted(self._live.values(), key=lambda one: one.ticket):
            if live.job.state == "queued":
                own.setdefault(live.job.session, []).append(live)
        sessions = sorted(own, key=lambda name: (self._turns.get(name, 0), own[name][0].ticket))
        rounds = zip_longest(*(own[name] for name in sessions))
        return [live for turn in rounds for live in turn if live is not None]

    def _snapshot(self, live: _Live) -> Job:
        """The job with what only the lane knows: its place in the queue and when it will be finished."""
        if live.job.state == "running":
            return self._with_files(replace(live.job, eta_seconds=self._remaining(live)))
        if live.job.state == "queued":
            order = self._order()
            place = order.index(live)
            ahead = [self._remaining(self._running)] if self._running else []
            ahead += [self._expected(one.job) for one in order[: place + 1]]
            known = [one for one in ahead if one is not None]
            return replace(
                live.job, position=place + 1, eta_seconds=sum(known) if len(known) == len(ahead) else None
            )
        return self._with_files(live.job)

    def _remaining(self, live: _Live) -> float | None:
        """Seconds until the running job ends: by its own steps, or by how long such jobs took, whichever is more."""
        job, guesses = live.job, []
        since_step = time.monotonic() - live.last_step if live.last_step else 0.0
        if live.step_seconds and job.total:
            mean = sum(live.step_seconds) / len(live.step_seconds)
            guesses.append(max(0.0, (job.total - job.done) * mean - since_step))
        if (expected := self._expected(job)) is not None:
            guesses.append(max(0.0, expected - (time.time() - (job.started or time.time()))))
        return max(guesses, default=None)

    def _expected(self, job: Job) -> float | None:
        """Seconds that recent jobs with the same settings took, prompt, seed and pictures aside; else of its kind."""
        return self._store.mean_seconds(job.pipeline, self._shape(job))

    def _shape(self, job: Job) -> str:
        """What of the settings decides how long a run takes, as a short hash."""
        kind = self.pipelines.get(job.pipeline)
        free = {one.name for one in kind.Settings.knobs() if one.kind} if kind else set()
        sized = {name: value for name, value in job.settings.items() if name not in free}
        return hashlib.sha256(json.dumps(sized, sort_keys=True).encode()).hexdigest()[:12]

    def _with_files(self, job: Job) -> Job:
        """The job without pictures whose files somebody has deleted."""
        return replace(job, pictures=[one for one in job.pictures if Path(one["path"]).is_file()])


def explain(problem: BaseException) -> str:
    """One sentence for the user on why a run failed. What is not foreseen stays general; its traceback is for the log."""
    if isinstance(problem, (BadInput, CannotSave)):
        return str(problem)
    text = str(problem).lower()
    if isinstance(problem, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text:
        return "there was not enough memory; ask for fewer or smaller pictures"
    if isinstance(problem, OSError) and problem.errno is not None and problem.filename:
        return cannot_save(problem.filename, problem)
    return f"the run failed inside ({type(problem).__name__}); the server's log says where"


def _forget_journals(folder: Path) -> None:
    """Delete all but the newest journals; their pictures stay."""
    journals = sorted(folder.glob("*/"), key=lambda one: one.stat().st_mtime, reverse=True)
    for one in journals[KEPT_JOURNALS:]:
        shutil.rmtree(one, ignore_errors=True)


def _picture_inside(source: str) -> str:
    """A picture named by its path as a data URI of the same file, opened once to be sure."""
    data = read_bytes(source, max_bytes=MAX_PICTURE_BYTES)
    open_picture(data)
    kind = picture_format(data).lower()
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


class _Store:
    """The file: one row a job. Called under the lane's lock only."""

    COLUMNS = (
        "id, session, pipeline, settings, state, metrics, pictures, error, created, started, finished, seconds,"
        " ticket, shape"
    )

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "jobs.sqlite"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._guard = self._claim(folder)
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, session TEXT, pipeline TEXT, settings TEXT,"
                " state TEXT, metrics TEXT, pictures TEXT, error TEXT, created REAL, started REAL, finished REAL,"
                " seconds TEXT, ticket INTEGER, shape TEXT)"
            )
            self._db.execute("CREATE INDEX IF NOT EXISTS by_ticket ON jobs (ticket)")
            self._db.execute("CREATE INDEX IF NOT EXISTS by_pace ON jobs (pipeline, state, finished)")
        except sqlite3.DatabaseError as error:
            raise CannotSave(
                f"the job list {path} cannot be used ({error}); move it away and start again"
            ) from None
        except OSError as error:
            raise CannotSave(cannot_save(path, error)) from None

    @staticmethod
    def _claim(folder: Path) -> sqlite3.Connection:
        """Hold the folder for this process: two studios would run each other's jobs. A crash lets go of it by itself."""
        guard = sqlite3.connect(
            folder / "jobs.lock", check_same_thread=False, isolation_level=None, timeout=0
        )
        try:
            guard.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            guard.close()
            raise BadInput(
                f"another studio already works in {folder}; close it or choose another --out"
            ) from None
        return guard

    def save(self, job: Job, ticket: int, shape: str) -> None:
        pictures = json.dumps([{**one, "path": self._relative(one["path"])} for one in job.pictures])
        settings, metrics, seconds = (
            json.dumps(job.settings),
            json.dumps(job.metrics),
            json.dumps(job.seconds),
        )
        row = (
            *(job.id, job.session, job.pipeline, settings, job.state, metrics, pictures, job.error),
            *(job.created, job.started, job.finished, seconds, ticket, shape),
        )
        try:
            marks = ", ".join("?" * len(row))
            self._db.execute(f"INSERT OR REPLACE INTO jobs ({self.COLUMNS}) VALUES ({marks})", row)
            if job.is_over:
                self._db.execute(
                    "DELETE FROM jobs WHERE finished IS NOT NULL AND ticket <= ?", (ticket - KEPT_JOBS,)
                )
        except sqlite3.DatabaseError as error:
            raise CannotSave(
                f"the job could not be noted ({error}); free some disk space and try again"
            ) from None

    def find(self, job_id: str) -> Job | None:
        rows = self._rows("WHERE id = ?", (job_id,))
        return rows[0][1] if rows else None

    def recent(self, session: str | None, count: int) -> list[tuple[int, Job]]:
        if session is None:
            return self._rows("ORDER BY ticket DESC LIMIT ?", (count,))
        return self._rows("WHERE session = ? ORDER BY ticket DESC LIMIT ?", (session, count))

    def unfinished(self) -> list[tuple[int, Job]]:
        return self._rows("WHERE state IN ('queued', 'running') ORDER BY ticket", ())

    def last_ticket(self) -> int:
        return self._db.execute("SELECT coalesce(max(ticket), 0) FROM jobs").fetchone()[0]

    def mean_seconds(self, pipeline: str, shape: str) -> float | None:
        """Mean of the last eight done jobs, of the same shape when there are any."""
        for more, values in ((" AND shape = ?", (pipeline, shape)), ("", (pipeline,))):
            mean = self._db.execute(
                "SELECT avg(finished - started) FROM (SELECT started, finished FROM jobs WHERE pipeline = ?"
                f"{more} AND state = 'done' ORDER BY finished DESC LIMIT 8)",
                values,
            ).fetchone()[0]
            if mean is not None:
                return mean
        return None

    def close(self) -> None:
        self._db.close()
        self._guard.close()

    def _rows(self, clause: str, values: tuple[Any, ...]) -> list[tuple[int, Job]]:
        return [
            self._read(row) for row in self._db.execute(f"SELECT {self.COLUMNS} FROM jobs {clause}", values)
        ]

    def _read(self, row: tuple[Any, ...]) -> tuple[int, Job]:
        names = [name.strip() for name in self.COLUMNS.split(",")]
        values = dict(zip(names, row, strict=True))
        ticket, _ = values.pop("ticket"), values.pop("shape")
        for name in ("settings", "metrics", "pictures", "seconds"):
            values[name] = json.loads(values[name])
        values["pictures"] = [{**one, "path": str(self.folder / one["path"])} for one in values["pictures"]]
        if values["state"] not in get_args(State):
            values["state"] = "failed"
        return ticket, Job(**values)

    def _relative(self, path: str) -> str:
        """Paths are kept relative to the folder, so that it can be moved."""
        try:
            return str(Path(path).relative_to(self.folder))
        except ValueError:
            return path
