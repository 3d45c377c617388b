"""Steering a run of Optimize: starting, pausing, and going on with changes, as the same job or as a fork of it."""

from __future__ import annotations

import time
from typing import Any

from app.jobs.queue import Job
from app.ui.context import Update
from app.ui.html import optimize as optimize_html
from app.ui.html.common import info_note, remarks, told
from app.ui.tabs.base import RunTab
from app.ui.tabs.optimize.form import OptimizeForm
from pipelines.core.prompts import parse_list
from pipelines.errors import BadInput, Message
from pipelines.guide.notebook_text import is_notebook
from pipelines.io.images import open_picture

GUIDE = "guide"
STOP_SECONDS = 60.0  # that a change waits for the step that is being made


class SteeredTab(RunTab):
    """A tab whose runs can be stopped, changed and continued. Its pause is the queue's stop, which keeps the pictures.

    Resuming, stepping back and every change go on from a snapshot of the run's journal, in the same job when nothing
    changed and in a new one when something did.
    """

    form: OptimizeForm

    def steer(
        self, act: str, data: dict[str, str], job_id: str, visitor: str, source: str, form: dict[str, Any]
    ) -> Update:
        """Do what a button says: "start" a run, "open" one, or "pause", "resume", "apply", "more", "fork" this one."""
        if act in ("start", "apply") and self.is_notebook(form["prompt"]):
            return self._of_notebook(form["prompt"])
        if act == "start":
            engine = self.form.engine_of(form)
            settings = self.form.settings_for(engine, form, source)
            started = self.queue.submit(engine, settings, visitor)
            notes = self.settings_of(self.queue.job(started)).notes()
            return {self.job: started, self.note: told(notes)}
        if act == "open":
            job = self.queue.job(data.get("job", ""))
            return {**self.fill(job), self.job: job.id, self.note: ""}
        if not job_id:
            return {}
        job = self.queue.job(job_id)
        if act in ("pause", "back"):
            if not job.is_over:
                self.queue.stop(job_id)
            return {self.note: ""}
        if act == "more":
            step = self.steps(job_id)[-1]
            form["steps"] = step + optimize_html.MORE
            return self._go_on(job, visitor, form, source, step)
        if act == "fork":
            return self._go_on(job, visitor, form, source, int(data["step"]))
        if act in ("apply", "resume"):
            return self._go_on(job, visitor, form, source, None)
        return {}

    def is_notebook(self, prompt: Any) -> bool:
        """Whether what stands in the box for the prompt is settings of a Disco notebook, which Guide reads."""
        return GUIDE in self.shown and is_notebook(str(prompt or ""))

    def _of_notebook(self, text: str) -> Update:
        """The form with the notebook's settings, and what is told of them. Its pictures are on another machine."""
        kind = self.queue.pipelines[GUIDE].Settings
        values, notes = kind.read_file(text, {})
        if pictures := [name for name in ("image", "image_prompts") if values.pop(name, "")]:
            notes.append(Message("guide.notebook_pictures", {"names": ", ".join(pictures)}))
        filled = self.form.fill_engine(GUIDE, kind.from_dict(values).to_dict())
        return {**filled, self.note: info_note("opt_notebook_read") + remarks(notes)}

    def steps(self, job_id: str) -> tuple[int, ...]:
        """The steps of a run that have snapshots."""
        return tuple(self.queue.journal(job_id).steps())

    def _go_on(self, job: Job, visitor: str, form: dict[str, Any], source: str, step: int | None) -> Update:
        """Go on at a snapshot, the last one when none is named, with what the form says now."""
        settings, steps, running = self.settings_of(job), self.steps(job.id), not job.is_over
        at = step if step is not None else max(job.done, steps[-1] if steps else 0)
        changes, fixed = self._changes(settings, form, source, at, job)
        note: str = info_note("opt_fixed", names=", ".join(fixed)) if fixed else ""
        if step is None and not changes:
            if running:
                return {self.note: note or info_note("opt_unchanged")}
            return {self.job: self.queue.resume(job.id), self.note: note}
        settings.changed(max(at, 1), **changes)  # refused before anything is stopped
        if running:
            job = self._stopped(job.id)
        steps = self.steps(job.id)
        if not steps:  # nothing was made yet: begin with the new settings
            settings = self.form.settings_for(job.pipeline, form, source)
            return {self.job: self.queue.submit(job.pipeline, settings, visitor), self.note: ""}
        step = step if step is not None else steps[-1]
        changed = settings.changed(step, **changes)
        last = changed.timeline()[-1][1].length()
        if step >= last:
            return {self.note: info_note("opt_beyond", step=step)}
        fork = self.queue.submit(job.pipeline, changed, visitor, after=(job.id, step))
        note = note or told(changed.notes())
        shown = {self.form.fields["steps"]: last} if job.pipeline == "optimize" else {}
        return {self.job: fork, self.note: note, **shown}

    def _stopped(self, job_id: str) -> Job:
        """Stop a run and wait until its last snapshot is written."""
        self.queue.stop(job_id)
        deadline = time.monotonic() + STOP_SECONDS
        while not (job := self.queue.job(job_id)).is_over:
            if time.monotonic() > deadline:
                raise BadInput("page.step_takes_long")
            time.sleep(0.03)
        return job

    def _changes(
        self, settings: Any, form: dict[str, Any], source: str, step: int, job: Job
    ) -> tuple[dict[str, Any], list[str]]:
        """What of the form differs from the settings in force at `step`: what can change, and the names of what cannot."""
        now = next(version for when, version in reversed(settings.timeline()) if when <= max(step, 0))
        wanted = self.form.settings_for(job.pipeline, form, source, job)
        wanted.pop("image")
        # checked as a whole, so that numbers and texts compare in the settings' own form
        checked = type(now).from_dict({**now.to_dict(), **wanted})
        changes: dict[str, Any] = {}
        fixed: list[str] = []
        for name in wanted:
            old, new = getattr(now, name), getattr(checked, name)
            if old == new or (name == "image_prompts" and _look_same(old, new)):
                continue
            if name in settings.fixed:
                fixed.append(name)
            else:
                changes[name] = new
        return changes, fixed


def _look_same(old: str, new: str) -> bool:
    """Whether two lists of picture prompts show the same, in pixels; the form holds at most one."""
    before, after = parse_list(old), parse_list(new)
    if len(before) != len(after):
        return False
    for old_target, new_target in zip(before, after, strict=True):
        first, second = (open_picture(target.text).convert("RGB") for target in (old_target, new_target))
        if (
            old_target.weight != new_target.weight
            or first.size != second.size
            or first.tobytes() != second.tobytes()
        ):
            return False
    return True
