"""How jobs stand: what a page, a program or another job asks of the queue, which changes nothing."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import replace
from pathlib import Path

from PIL import Image

from app.jobs.job import ActiveJob, Job
from app.jobs.order import running_order
from app.jobs.store import JobStore
from app.jobs.timing import placed, remaining_seconds
from pipelines.core.journal import Journal
from pipelines.errors import BadInput

JOB_ID = re.compile("[A-Za-z0-9-]{1,80}")


class Looking:
    """The jobs of a queue: those that this process knows, and those in the file. Any thread may ask."""

    folder: Path
    _lock: threading.RLock
    _store: JobStore
    _live: dict[str, ActiveJob]
    _running: list[ActiveJob]  # one a lane at most
    _lanes: int
    _paused: set[str]  # sessions whose jobs wait until they are let go on
    _turns: dict[str, int]  # who -> number of his last turn, for the round robin
    _expected: dict[str, float | None]  # job -> how long such jobs took; until another one is done

    def job(self, job_id: str) -> Job:
        """How the job stands now; BadInput when nothing is known of it."""
        with self._lock:
            live = self._live.get(job_id)
            if live is None:
                return self._store.whole(self._finished(job_id)).with_files()
            job = self._snapshot(live)
            return self._store.whole(job) if job.is_over else job

    def jobs(self, session: str | None = None, count: int = 50) -> list[Job]:
        """The newest `count` jobs of a session, or of all, newest first; `job` also gives the pictures they were given."""
        with self._lock:
            past = self._store.recent(session, count)
            live = [
                active for active in self._live.values() if session is None or active.job.session == session
            ]
            by_id = {job.id: (sequence, job.with_files()) for sequence, job in past}
            by_id |= {active.job.id: (active.sequence, self._snapshot(active)) for active in live}
            newest = sorted(by_id.values(), key=lambda pair: pair[0], reverse=True)
            return [job for _, job in newest[:count]]

    @staticmethod
    def unknown(job_id: str) -> BadInput:
        """What is said of a job that nothing is known of."""
        return BadInput("jobs.job_unknown", job=job_id[:40])

    @property
    def busy(self) -> bool:
        """Whether a job runs or waits, whosever it is."""
        with self._lock:
            return bool(self._running or self._order())

    def waiting(self) -> list[str]:
        """The ids of waiting jobs in the order in which they will run."""
        with self._lock:
            return [live.job.id for live in self._order()]

    def line(self, session: str) -> list[Job]:
        """The jobs of a session that run or wait, in the order in which they run, those of a paused session too."""
        with self._lock:
            own = [*self._running, *self._order()]
            own += [live for live in self._waiting() if live.job.session in self._paused]
            return [self._snapshot(live) for live in own if live.job.session == session]

    def is_paused(self, session: str) -> bool:
        """Whether the jobs of a session wait until they are let go on."""
        return session in self._paused

    def seconds_each(self, pipeline: str) -> float | None:
        """Seconds that one run of a pipeline takes, by the last ones; None where there was none yet."""
        with self._lock:
            return self._store.seconds_each(pipeline)

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
        if not JOB_ID.fullmatch(job_id):
            raise BadInput("jobs.no_job", job=job_id[:40])
        return self.folder / "runs" / job_id

    # -------------------------------------------------------------------------------------- under the lock

    def _finished(self, job_id: str) -> Job:
        job = self._store.find(job_id)
        if job is None:
            raise self.unknown(job_id)
        return job

    def _order(self) -> list[ActiveJob]:
        return running_order(
            (live for live in self._live.values() if live.job.session not in self._paused), self._turns
        )

    def _waiting(self) -> list[ActiveJob]:
        """All waiting jobs in the order of their arrival, those that are paused too."""
        waiting = [live for live in self._live.values() if live.job.state == "queued"]
        return sorted(waiting, key=lambda live: live.sequence)

    def _snapshot(self, live: ActiveJob) -> Job:
        """The job with what only the queue knows: its place and when it will be finished."""
        expected = self._mean_seconds
        if live.job.state == "running":
            left = remaining_seconds(live, expected(live.job))
            return replace(live.job, eta_seconds=left).with_files()
        if live.job.state == "queued" and live.job.session not in self._paused:
            return placed(live, self._order(), self._running, expected, self._lanes)
        return live.job.with_files()

    def _mean_seconds(self, job: Job) -> float | None:
        """As the file says; asked once a job until another one is over."""
        if job.id not in self._expected:
            self._expected[job.id] = self._store.mean_seconds(job)
        return self._expected[job.id]
