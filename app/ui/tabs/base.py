"""What the tabs that run a pipeline share: watching a job, stopping it, showing the last runs, pictures of other tabs.

A tab's functions answer Gradio with an Update: components and what they become. What is not named stays as it is.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import gradio as gr

from app.jobs.queue import Job
from app.recipe import Recipe
from app.ui.context import QUIET, PageContext, Update
from app.ui.html import common
from app.ui.html.common import Trace
from app.ui.html.page import queue_status
from app.ui.link import opened
from pipelines.core.journal import Journal
from pipelines.errors import BadInput, CannotSave
from pipelines.weights.checkpoint import Checkpoint

WATCH_SECONDS = 0.3  # between two looks at a running job
LIES = (
    "empty",
    "ready",
)  # what was seen when no job was: nothing, or a picture to start from, which stay there
LAST_RUNS = 12  # that are shown below a tab
AGAIN = {
    "settings": "loaded_again",
    "remix": "remixed",
}  # how settings of a record are handed over -> what is said


@dataclass(frozen=True)
class Change:
    """What is new of a job since it was looked at last."""

    state: bool  # which job it is, its state, or the number of its pictures
    trace: bool  # the same, or what its journal holds
    first_snapshot: bool  # it has snapshots now and had none, or the other way round


class RunTab(ABC):
    """One tab over one pipeline: its components and the functions behind them. Holds nothing of a visitor's.

    A subclass lays out the components and says what they show: `show` of a job, `show_empty` of none, `fill` of a job's
    settings in the form. `receive` takes a picture that another tab hands over.
    """

    unlisted: ClassVar[tuple[str, ...]] = (
        "done",
        "stopped",
    )  # a run that ended so without pictures is not shown again

    job: Any  # hidden: the id of the job that is looked at
    seen: Any  # hidden: the version of what is shown
    refresh: Any  # hidden: a change of it makes the tab look
    timer: Any
    note: Any
    earlier: Any
    announce: Any = None  # for those who hear the page

    def __init__(self, context: PageContext, pipeline: str, hidden: Sequence[str] = ()):
        self.context, self.queue, self.pictures = context, context.queue, context.pictures
        self.pipeline = self.name = pipeline
        self.shown: tuple[str, ...] = (pipeline,)  # whose jobs it shows
        self.Settings: Any = context.queue.pipelines[pipeline].Settings
        self.knobs = {knob.name: knob for knob in self.Settings.knobs() if knob.name not in hidden}

    # ----------------------------------------------------------------------------------------- what subclasses say

    @abstractmethod
    def show(self, job: Job, change: Change, trace: Trace) -> Update:
        """What the tab's own components show of a job."""

    @abstractmethod
    def show_empty(self) -> Update:
        """What they show when there is no job to look at."""

    def fill(self, job: Job) -> Update:
        """The form as a job's settings say."""
        return self.fill_settings(job.settings)

    @abstractmethod
    def fill_settings(self, settings: dict[str, Any]) -> Update:
        """The form with settings of this pipeline."""

    def fill_recipe(self, recipe: Recipe) -> Update:
        """The form with the settings of a link."""
        return self.fill_settings(recipe.settings.to_dict())

    @abstractmethod
    def receive(self, kind: str, name: str, job_id: str) -> Update:
        """A picture that another tab hands over: to "start" from, or for its "settings"."""

    def trace(self, job: Job) -> Trace:
        """What the job's journal tells."""
        return Trace()

    # ------------------------------------------------------------------------------------------------------- wiring

    def add_hidden(self) -> None:
        """The components that nobody sees."""
        self.seen, self.refresh = (gr.Textbox(visible=False) for _ in range(2))
        self.timer = gr.Timer(WATCH_SECONDS, active=False)

    def connect_watching(self, tab: gr.Tab, shown: Sequence[Any], filled: Sequence[Any]) -> None:
        """Look when asked to, while a job runs, and when the tab is opened: what was missing may be here by now.

        `shown` are the components of `show`, `filled` those of `fill`; both are answered to when the page opens.
        """
        context = self.context
        heard = [] if self.announce is None else [self.announce]
        view = [*shown, self.earlier, *heard, self.seen, self.timer, context.queue_status]
        watched = [self.job, context.visitor, self.seen]
        context.watch(self.watch, watched, view, self.refresh.change, self.timer.tick, tab.select)
        arrived = dict.fromkeys([self.job, self.note, *filled, *view, context.tabs])
        self.connect_arrival([context.job, context.visitor, context.link], list(arrived))

    def connect_arrival(self, inputs: list[Any], outputs: list[Any]) -> None:
        """Answer to the opening of the page, before Generate does, which makes the page's job one of its own."""
        self.context.arrivals.insert(0, (self.on_load, inputs, outputs, self.refresh))

    def connect_handover(self, outputs: Sequence[Any]) -> None:
        """Take pictures that other tabs hand over."""
        handover = self.context.handover
        handover.change(
            self.on_handover,
            [handover, self.job],
            list(dict.fromkeys([handover, self.note, *outputs])),
            **QUIET,
        )

    # ------------------------------------------------------------------------------------------------------ looking

    def on_load(self, address: str, visitor: str, link: str) -> Update:
        """The first look: the link's recipe, the run of the address, else the visitor's last one, else nothing yet.

        Without a run the answer names none: the visitor may have begun one before it came, and the next look shows that.
        """
        with suppress(BadInput):  # Generate says it
            if recipe := self.context.recipe(link, *self.shown):
                filled = self.fill_recipe(recipe)
                opening = {self.note: opened(recipe), self.context.tabs: gr.Tabs(selected=self.name)}
                return {**self.watch("", visitor, ""), **filled, **opening}
        answer: Update = {}
        job = self.find_job(address)
        if job is not None:
            answer[self.context.tabs] = gr.Tabs(selected=self.name)
        if job is None and (last := next(iter(self.last_runs(visitor)), None)):
            job = self.find_job(last.id)  # with the pictures that it was given
        if job is not None:
            answer |= {**self.fill(job), self.job: job.id}
        return {**answer, **self.watch(job.id if job else "", visitor, "")}

    def watch(self, job_id: str, visitor: str, seen: str) -> Update:
        """What changed since `seen` for all that shows a run; the timer runs while the run is not over."""
        waiting = len(self.queue.waiting())
        job = self.find_job(job_id)
        busy = job is not None and not job.is_over
        line, paused = self.queue.line(visitor), self.queue.is_paused(visitor)
        answer: Update = {self.context.queue_status: queue_status(busy or waiting > 0, waiting, line, paused)}
        if job is None:
            answer[self.timer] = gr.Timer(active=False)
            return answer if seen in LIES else {**answer, **self._nothing(visitor)}
        trace = self.trace(job)
        version, change = _compared(job, trace, seen)
        if version == seen:
            return gr.skip()
        answer |= {self.seen: version, **self.show(job, change, trace)}
        if change.state:
            answer[self.timer] = gr.Timer(active=busy)
            answer[self.earlier] = common.earlier(self.last_runs(visitor), self.pictures, job.id)
            if self.announce is not None:
                answer[self.announce] = common.announcement(job)
        return answer

    def _nothing(self, visitor: str) -> Update:
        answer = {
            **self.show_empty(),
            self.seen: "missing" if self.missing() else "empty",
            self.earlier: common.earlier(self.last_runs(visitor), self.pictures, ""),
        }
        return answer if self.announce is None else {**answer, self.announce: ""}

    def missing_or(self, empty: Callable[[], str]) -> str:
        """What is shown before there is a job: what `empty` gives, or which models have to be fetched first."""
        if missing := self.missing():
            return common.missing(self.context.studio.pack, missing)
        return empty()

    def missing(self) -> list[Checkpoint]:
        """Models that are not here and without which nothing can be run."""
        return self.context.missing(self.pipeline)

    def find_job(self, job_id: str) -> Job | None:
        """The job when it is one that the tab shows and there is something to show of it."""
        try:
            job = self.queue.job(job_id) if job_id else None
        except BadInput:
            return None
        if job is None or job.pipeline not in self.shown or (job.state == "done" and not job.pictures):
            return None
        return job

    def settings_of(self, job: Job) -> Any:
        """The settings of a job, checked."""
        return self.queue.pipelines[job.pipeline].Settings.from_dict(job.settings)

    def running_job(self, job_id: str) -> Job | None:
        """The job that is looked at, when it is not over."""
        job = self.find_job(job_id)
        return None if job is None or job.is_over else job

    def last_runs(self, visitor: str) -> list[Job]:
        """The visitor's last runs that the tab shows, newest first; those that left nothing to see aside."""
        jobs = [job for job in self.queue.jobs(visitor, 60) if job.pipeline in self.shown] if visitor else []
        return [job for job in jobs if job.pictures or job.state not in self.unlisted][:LAST_RUNS]

    # ------------------------------------------------------------------------------------------------------- acting

    def safely(self, answer: Callable[..., Update], *values: Any) -> Update:
        """An answer, or one sentence on why there is none."""
        try:
            return answer(*values)
        except (BadInput, CannotSave, ValueError) as problem:
            return {self.note: common.error_note(problem)}

    def stop(self, job_id: str) -> None:
        """Stop the job that is looked at; the next look shows what was kept."""
        with suppress(BadInput):  # it is not known here any more
            self.queue.stop(job_id)

    def on_handover(self, handover: str, job_id: str) -> Update:
        """A picture that another tab hands over, when this tab is meant."""
        tab, _, rest = handover.partition(":")
        if tab != self.name:
            return gr.skip()
        kind, _, name = rest.partition(":")
        return {**self.safely(self.receive, kind, name, job_id), self.context.handover: ""}


def again(kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a record to be used again: as they are, or for a "remix" with another seed."""
    return {**settings, "seed": secrets.randbelow(2**32)} if kind == "remix" else settings


def _compared(job: Job, trace: Trace, seen: str) -> tuple[str, Change]:
    """The version of a job as it stands now, and what is new since the version that was `seen`."""
    held = (trace.steps[-1] if trace.steps else 0, len(trace.curve))
    facts = (job.stage, job.done, job.position, job.preview_version)
    version = "|".join(map(str, (job.id, job.state, len(job.pictures), *held, *facts)))
    now, before = version.split("|"), seen.split("|")
    first = (now[3] == "0") != (before[3:4] == ["0"])
    return version, Change(now[:3] != before[:3], now[:5] != before[:5], first)


@lru_cache(maxsize=128)
def journal_rows(folder: Path, step: int, name: str) -> tuple[tuple[float, ...], ...]:
    """Rows of figures that a journal keeps under a name, up to a snapshot, which does not change any more."""
    try:
        return tuple(tuple(row) for row in Journal(folder).facts(step).get(name, []))
    except BadInput:
        return ()
