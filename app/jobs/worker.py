"""Running jobs: one after the other, in the one thread that computes; previews are drawn there too."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Protocol

import torch

from app.jobs.job import ActiveJob, State
from app.jobs.threads import give_back_memory, run_in_own_thread
from app.lanes.lane import LaneDied
from app.owners import home_of
from pipelines.core.execute import Events, follow
from pipelines.core.explain import explain
from pipelines.core.journal import Journal
from pipelines.core.pipeline import Pipeline, Result, Resumable, Step, StudioLike
from pipelines.core.record import write_pictures
from pipelines.errors import BadInput, CannotSave, Message, Stopped

WATCHED_SECONDS = 2.0  # a preview is drawn for this long after somebody asked for one
PREVIEW_SECONDS = 0.25  # the least time between two previews
PREVIEW_SHARE = 0.2  # of the running time that drawing previews may take
PATIENCE_SECONDS = 0.05  # that a step waits for those who ask how it stands

log = logging.getLogger(__name__)


class JobSource(Protocol):
    """What the worker needs of the queue."""

    studio: StudioLike
    folder: Path
    pipelines: Mapping[str, type[Pipeline[Any]]]
    closing: bool

    def take(self) -> ActiveJob | None: ...

    def finish(self, live: ActiveJob, state: State, problem: Message | None) -> None: ...

    def give_back(self, live: ActiveJob) -> bool: ...

    def update(self, live: ActiveJob, *, keep: bool = True, **changes: Any) -> bool: ...

    def journal(self, job_id: str) -> Journal: ...


class Worker:
    """Runs what `queue` gives, until it closes. `lock` is the queue's; `run` gives the events of a run."""

    def __init__(
        self,
        queue: JobSource,
        lock: threading.RLock,
        run: Callable[..., Events],
    ) -> None:
        self._queue = queue
        self._lock = lock
        self._events = run

    def work(self) -> None:
        """Take the next job, run it, and so on, whatever a job does."""
        while (live := self._queue.take()) is not None:
            state: State = "failed"
            message: Message | None = None
            try:
                run_in_own_thread(live.context.run)(self._run, live)
                state = "done"
            except LaneDied:
                if self._queue.give_back(live):
                    continue
                if live.stop or self._queue.closing:
                    state = self._unfinished(live)
                else:
                    message = Message("jobs.lane_died")
            except Stopped:
                state = self._unfinished(live)
            except BaseException as problem:  # even an exit asked for by a library must not end the queue
                message = explain(problem)
                if not isinstance(problem, (BadInput, CannotSave)):
                    log.exception("job %s failed", live.job.id)
            self._queue.finish(live, state, message)
            give_back_memory()

    def _unfinished(self, live: ActiveJob) -> State:
        return "interrupted" if self._queue.closing and not live.stop else "stopped"

    def _run(self, live: ActiveJob) -> None:
        """One job from loading to its files. Raises Stopped between two steps when asked to."""
        job = live.job
        if job.pipeline not in self._queue.pipelines:  # queued before a restart with another version
            known = ", ".join(self._queue.pipelines)
            raise BadInput("jobs.pipeline_gone_known", pipeline=job.pipeline, known=known)
        settings = self._queue.pipelines[job.pipeline].Settings.from_dict(job.settings)
        begun = time.perf_counter()
        pipeline = self._queue.studio.pipeline(job.pipeline)
        loaded = time.perf_counter() - begun
        if live.stop or self._queue.closing:
            raise Stopped
        journal = self._queue.journal(job.id) if isinstance(pipeline, Resumable) else None
        if journal is not None and (old := journal.identity()):  # begun before, perhaps on another machine
            settings = type(settings).from_dict(old["settings"])
        events = self._events(pipeline, settings, journal)

        def shall_stop(step: Step) -> bool:
            if not (live.stop or self._queue.closing):  # else it is not shown first
                self._publish_step(live, step)
            return live.stop or self._queue.closing

        result, stopped = follow(events, shall_stop, resumable=journal is not None)
        if not stopped or live.stop:
            self._save(live, result)
        if stopped:
            raise Stopped
        self._queue.update(live, keep=False, seconds={"load": loaded, "run": result.seconds})

    def _publish_step(self, live: ActiveJob, step: Step) -> None:
        """Make a step visible: its numbers, its measured time, and its preview when somebody watches."""
        now = time.monotonic()
        if not self._lock.acquire(timeout=PATIENCE_SECONDS):
            return  # many ask at once: the next step is shown, and none waits for them
        try:
            if live.last_step and live.job.stage == step.stage and step.done > live.job.done:
                live.step_seconds.append((now - live.last_step) / (step.done - live.job.done))
            elif live.job.stage != step.stage:
                live.step_seconds.clear()
            metrics = {name: float(value) for name, value in step.metrics.items()}
            changes = {"stage": step.stage, "done": step.done, "total": step.total, "metrics": metrics}
            self._queue.update(live, keep=False, **changes)
            watched = now - live.asked < WATCHED_SECONDS
        finally:
            self._lock.release()
        if watched and step.draw is not None and now >= live.draw_next:
            self._draw(live, step)
        live.last_step = time.monotonic()  # drawing is not the step's own time

    def _draw(self, live: ActiveJob, step: Step) -> None:
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
                self._queue.update(live, keep=False, preview_version=live.job.preview_version + 1)

    def _save(self, live: ActiveJob, result: Result) -> None:
        """Write the pictures; each one is in the job as soon as its file is whole."""
        job = live.job
        day = home_of(self._queue.folder, job.session) / date.today().isoformat()
        stem = f"{job.id}-{time.strftime('%H%M%S')}" if live.stop else job.id  # a stopped run may be resumed
        for entry, _ in write_pictures(
            day, stem, pipeline=job.pipeline, studio=self._queue.studio, result=result
        ):
            with self._lock:
                self._queue.update(live, keep=False, pictures=[*live.job.pictures, entry])
