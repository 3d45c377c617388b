"""The queue: jobs belong to the server, one runs at a time on a lane, and a page only watches.

A job lives from `submit` on in memory and in one SQLite file beside the pictures. A tab may close, the server may
restart: queued jobs stay queued, finished ones are found by their id, and one that was running when the server went
away is `interrupted` and offered again.
"""

from __future__ import annotations

import base64
import contextvars
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.jobs.job import ActiveJob, Job, State
from app.jobs.journals import forget_journals
from app.jobs.looking import Looking
from app.jobs.order import check_room, party_of, take_turn, turn_of
from app.jobs.store import JobStore
from app.jobs.worker import Worker
from pipelines.core.execute import Events, run
from pipelines.core.pipeline import Pipeline, StudioLike
from pipelines.core.settings import Settings
from pipelines.errors import BadInput, CannotSave, Message
from pipelines.io.formats import picture_format
from pipelines.io.images import read_bytes
from pipelines.io.metadata import without_metadata

__all__ = ["MAX_PICTURE_BYTES", "Job", "JobQueue"]

MAX_PICTURE_BYTES = 8_000_000  # of a picture given as a setting: it is kept with the job
MOST_GIVEN_BACK = 2
KEPT_LIVE = 100  # jobs that are over and stay in memory
KEPT_PREVIEWS = 8  # of those that were stopped or failed
KEPT_TURNS = 1_000  # of those who had a turn last
PROGRAM = "api-"  # how the sessions of programs begin

log = logging.getLogger(__name__)


class JobQueue(Looking):
    """A studio's jobs: one at a time on each of its lanes, fair between sessions, kept in `folder`/jobs.sqlite.

    Any thread may call the methods; they answer at once. Pipelines run and draw previews on the lane's one thread only.
    `pipelines` is what names are looked up in, PIPELINES unless given. `run` gives the events of a run, here and now
    unless given; it is called in the context (contextvars) in which the job was asked for. `lanes` are several such
    functions, which may run at the same time; one lane calls `run` when there are none.
    """

    def __init__(
        self,
        studio: StudioLike,
        folder: str | Path = "outputs",
        pipelines: Mapping[str, type[Pipeline[Any]]] | None = None,
        *,
        session_cap: int = 32,
        total_cap: int = 64,
        run: Callable[..., Events] = run,
        lanes: Sequence[Callable[..., Events]] = (),
    ) -> None:
        if pipelines is None:
            from pipelines.studio import PIPELINES as pipelines
        self.studio = studio
        self.folder = Path(folder).absolute()
        self.pipelines = pipelines
        self.session_cap = session_cap
        self.total_cap = total_cap
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self.closing = False  # running jobs are to end at their next step
        self._live = {}
        self._running, self._lanes = [], len(lanes) or 1
        self._turns, self._expected = {}, {}
        self.address: Callable[[], str] = str  # the network address of whoever asks; the page sets it
        self._store = JobStore(self.folder, pipelines)
        self._paused = self._store.paused()
        self._sequence = self._store.last_sequence()
        self._live |= {job.id: ActiveJob(job, sequence) for sequence, job in self._store.reopen()}
        forget_journals(self.folder / "runs", self._live)
        workers = [Worker(self, self._lock, events) for events in lanes or (run,)]
        self._threads = [threading.Thread(target=one.work, name="queue", daemon=True) for one in workers]
        for thread in self._threads:
            thread.start()

    # ---------------------------------------------------------------------------------------------------- asking

    def submit(
        self,
        pipeline: str,
        settings: dict[str, Any] | Settings,
        session: str = "",
        after: tuple[str, int] | None = None,
        *,
        program: bool = False,
    ) -> str:
        """Queue a run and give its id. BadInput when the settings are wrong or the queue is full.

        Pictures named in the settings are read in at once: the files may be gone when the job's turn comes. `program`
        tells that no page asks; the sessions of programs tell it by their beginning, too.
        `after` names another job and one of its snapshots, at which this one goes on (a fork).
        """
        if pipeline not in self.pipelines:
            raise BadInput("jobs.pipeline_unknown", pipeline=pipeline, known=", ".join(self.pipelines))
        values = settings.to_dict() if isinstance(settings, Settings) else dict(settings)
        kind = self.pipelines[pipeline].Settings
        checked = kind.from_dict(values).map_pictures(_picture_inside)
        job_id = f"{time.strftime('%H%M%S')}-{secrets.token_hex(16)}"
        program = program or session.startswith(PROGRAM)
        party = party_of(self.address(), program)
        with self._wake:
            self._check_room(session, party)
            if after is not None:
                self.journal(after[0]).fork(self._run_folder(job_id), after[1])
            self._sequence += 1
            job = Job(
                id=job_id,
                session=session,
                pipeline=pipeline,
                settings=checked.to_dict(),
                state="queued",
                created=time.time(),
            )
            live = ActiveJob(job, self._sequence, party if program else "", party)
            self._store.save(job, live.sequence)
            self._live[job.id] = live
            self._wake.notify_all()
            return job.id

    # -------------------------------------------------------------------------------------------------- steering

    def stop_soon(self, job_id: str, session: str | None = None) -> None:
        """Have the running job end at its next step, without waiting for anybody: no lock is taken.

        `stop` does the rest for jobs that wait. With a `session`, the job of another one goes on.
        """
        live = self._live.get(job_id)
        if live is not None and live.job.state == "running" and session in (None, live.job.session):
            live.stop = True

    def stop(self, job_id: str) -> Job:
        """Stop a running job within one step, or take a waiting one out of the queue. Finished ones stay as they are."""
        with self._wake:
            live = self._live.get(job_id)
            if live is None:
                return self._finished(job_id).with_files()
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

    def move(self, job_id: str, by: int) -> bool:
        """Let a waiting job change places with the one of the same visitor before (-1) or after (1) it.

        False when there is no such one.
        """
        with self._wake:
            live = self._live.get(job_id)
            if live is None or live.job.state != "queued":
                return False
            own = [job for job in self._waiting() if turn_of(job) == turn_of(live)]
            place = own.index(live) + by
            if 0 <= place < len(own):
                other = own[place]
                live.sequence, other.sequence = other.sequence, live.sequence
                self.update(live)
                self.update(other)
            return 0 <= place < len(own)

    def clear(self, session: str) -> int:
        """Take all waiting jobs of a session out of the queue; says how many they were."""
        with self._wake:
            return sum(self.cancel(live.job.id) for live in self._waiting() if live.job.session == session)

    def pause(self, session: str, paused: bool) -> None:
        """Let the waiting jobs of a session wait until this is taken back, over restarts too. The running one goes on."""
        with self._wake:
            (self._paused.add if paused else self._paused.discard)(session)
            self._store.note_pause(session, paused)
            self._wake.notify_all()

    def resume(self, job_id: str) -> str:
        """Queue a job again that was interrupted, stopped or failed; it keeps its id.

        It goes on where its journal ends, and starts from its beginning when it keeps none.
        """
        with self._wake:
            job = self._live[job_id].job if job_id in self._live else self._finished(job_id)
            if job.state in ("queued", "running"):
                return job_id
            if job.state == "done":
                raise BadInput("jobs.job_done", job=job_id)
            if job.pipeline not in self.pipelines:
                raise BadInput("jobs.pipeline_gone", pipeline=job.pipeline)
            if not self._store.is_whole(job):
                raise BadInput("jobs.picture_gone", job=job_id)
            job = self._store.whole(job)
            self.pipelines[job.pipeline].Settings.from_dict(job.settings)
            party = party_of(self.address(), program=False)
            self._check_room(job.session, party)
            self._sequence += 1
            fresh = Job(job.id, job.session, job.pipeline, job.settings, "queued", created=time.time())
            self._store.save(fresh, self._sequence)
            self._live[job_id] = ActiveJob(fresh, self._sequence, party=party)
            self._wake.notify_all()
            return job_id

    def close(self, timeout: float = 30.0) -> None:
        """Stop working. Running jobs become `interrupted` at their next step; waiting ones wait for the next start."""
        self.begin_closing()
        for thread in self._threads:
            thread.join(timeout)
        with self._lock:
            self._store.close()

    def begin_closing(self) -> None:
        """Have the running job end at its next step and begin no other."""
        with self._wake:
            self.closing = True
            self._wake.notify_all()

    # ---------------------------------------------------------------------------------------------- for the worker

    def take(self) -> ActiveJob | None:
        """Wait for the next job and make it the running one. None when the queue closes."""
        with self._wake:
            while not self.closing and not (waiting := self._order()):
                self._wake.wait()
            if self.closing:
                return None
            live = waiting[0]
            take_turn(self._turns, live, KEPT_TURNS)
            self._running.append(live)
            self.update(live, state="running", started=time.time(), stage="loading")
            return live

    def finish(self, live: ActiveJob, state: State, problem: Message | None) -> None:
        """The running job is over."""
        with self._wake:
            self._running.remove(live)
            self._expected.clear()
            self._finish(live, state, problem)
            spared = {job_id for job_id, active in self._live.items() if not active.job.is_over}
        forget_journals(self.folder / "runs", {*spared, live.job.id})

    def give_back(self, live: ActiveJob) -> bool:
        """The lane of a running job died: the job waits again. False when it is to end, or this came too often before."""
        with self._wake:
            if live.stop or self.closing or live.given_back >= MOST_GIVEN_BACK:
                return False
            live.given_back += 1
            self._running.remove(live)
            self._turns.pop(turn_of(live), None)
            live.last_step = 0.0
            self.update(live, state="queued", started=None, stage="", done=0, total=0, pictures=[])
            self._wake.notify_all()
            return True

    def update(self, live: ActiveJob, *, keep: bool = True, **changes: Any) -> bool:
        """Change a job; `keep` also writes it to the file. False when that did not work."""
        with self._lock:
            live.job = replace(live.job, **changes)
            if keep:
                try:
                    self._store.save(live.job, live.sequence)
                except (CannotSave, BadInput) as problem:  # the disk is full: memory still knows
                    log.error("%s", problem)
                    return False
        return True

    # -------------------------------------------------------------------------------------- under the lock

    def _finish(self, live: ActiveJob, state: State, problem: Message | None = None) -> None:
        """A job is over. Memory keeps little of it: no given pictures, and previews of the newest only."""
        if self.update(live, state=state, problem=problem, finished=time.time()):
            live.job = self._store.without_pictures(live.job)
        live.context = contextvars.Context()
        live.preview = None if state == "done" else live.preview
        _forget(self._live)

    def _check_room(self, session: str, party: str) -> None:
        check_room(self._live.values(), session, self.session_cap, self.total_cap, party)


def _forget(jobs: dict[str, ActiveJob]) -> None:
    """Of jobs that are over keep the newest in memory, and the previews of fewer."""
    over = [active for active in jobs.values() if active.job.is_over]
    over.sort(key=lambda active: active.job.finished or 0)
    for active in over[:-KEPT_PREVIEWS]:
        active.preview = None
    for active in over[:-KEPT_LIVE]:
        del jobs[active.job.id]


def _picture_inside(source: str) -> str:
    """A picture named by its path as a data URI of the same file, without what it says of its maker.

    BadInput when it cannot be opened.
    """
    data = without_metadata(read_bytes(source, max_bytes=MAX_PICTURE_BYTES))
    kind = picture_format(data).lower()
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
