"""The Edit tab: a picture changed from one text to another, the strengths side by side, the direction kept for later.

The page only watches; the queue does the work, and what a run learned is in its journal.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gradio as gr

from app.jobs.queue import MAX_PICTURE_BYTES, Job
from app.jobs.threads import run_in_own_thread
from app.ui.context import DRAWING, QUIET, PageContext, Update, clickable_html, clicked
from app.ui.html import common, edit_form
from app.ui.html import edit as edit_html
from app.ui.html.common import Trace, error_note, info_note
from app.ui.i18n import both
from app.ui.markup import html
from app.ui.tabs.base import AGAIN, Change, RunTab, again, journal_rows
from app.ui.tabs.edit.form import EditForm, read_form, used_directions
from app.ui.tabs.form import script_values
from pipelines.core.explain import explain
from pipelines.core.record import read_record
from pipelines.edit.directions import read_direction
from pipelines.errors import BadInput, CannotSave
from pipelines.io.images import open_picture, read_bytes
from pipelines.see.changes import TextChange, changes
from pipelines.see.labels import is_chinese
from pipelines.see.pictures import open_square

PIPELINE = "edit"
BASICS = ("strip", "seed", "automatic_mask")
HIDDEN = (
    "until",
    "target_images",
    "source_images",
)  # what the artist does decides the first; files here are no texts
READS = "(job, visitor, upload) => [job, visitor, upload, window.atelier.values()]"

log = logging.getLogger(__name__)
_looking = threading.Lock()  # one outlook at a time: it shares the device with the queue


def build(context: PageContext, tab_itself: gr.Tab) -> None:
    """The tab's components and what they do."""
    tab = EditTab(context)
    with gr.Row(elem_id="edit", equal_height=False):
        with gr.Column(elem_id="edit-view", scale=7, min_width=300):
            tab.stage = clickable_html(elem_id="proof", script="window.atelier.proof(element);")
            tab.brush = gr.HTML(common.brush(), elem_id="edit-brush", apply_default_css=False)
            tab.learning = clickable_html(elem_id="edit-learning", script="window.atelier.learning(element);")
        with gr.Column(elem_id="edit-controls", scale=5, min_width=300):
            tab.entries = clickable_html(
                edit_form.form(tab.knobs, BASICS),
                elem_id="edit-form",
                script="window.atelier.form(element, () => trigger('click', {act: 'look'}));",
            )
            tab.estimate = gr.HTML(edit_form.waiting(), elem_id="edit-estimate", apply_default_css=False)
            tab.controls = clickable_html(edit_form.controls(None), elem_id="edit-buttons")
            tab.note = gr.HTML(elem_id="edit-note", apply_default_css=False)
            tab.shelf = clickable_html(elem_id="edit-shelf")
    tab.earlier = clickable_html(elem_id="edit-earlier")
    tab.upload = gr.UploadButton("", elem_id="edit-upload")
    tab.job = gr.Textbox(visible=False)
    tab.add_hidden()
    tab.connect(tab_itself)


class EditTab(RunTab):
    """The components of one page's tab and the functions behind them. Holds nothing of a visitor's."""

    stage: Any
    brush: Any
    learning: Any
    entries: Any
    estimate: Any
    controls: Any
    shelf: Any
    upload: Any

    def __init__(self, context: PageContext):
        super().__init__(context, PIPELINE, HIDDEN)
        self.form = EditForm(context, self.knobs)
        self.directions = context.shelf

    def connect(self, tab_itself: gr.Tab) -> None:
        """Which event calls what. The form comes from the script, as the last but one argument."""
        context = self.context
        asked = [self.job, context.visitor, self.upload, context.form_values]
        shown = [self.stage, self.controls, self.learning]
        answered = [self.job, self.note, context.form_values, self.seen, self.shelf, *shown]
        for place in (self.controls, self.stage, self.learning, self.earlier):
            acted = place.click(
                self.act,
                asked,
                answered,
                js=READS,
                trigger_mode="multiple" if place is self.earlier else "once",
                preprocess=False,  # Gradio would open the files; the queue does, and says why it cannot
                **QUIET,
            )
            context.answered(acted, self.refresh, self.job)
        self.stage.click(context.hand_over, None, [context.handover, context.tabs], **QUIET)
        self.connect_watching(tab_itself, shown, [context.form_values, self.shelf])
        self.upload.upload(self.set_start_image, asked, answered, js=READS, preprocess=False, **QUIET)
        fill = "(given) => { window.atelier.fill(given) }"
        context.form_values.change(None, [context.form_values], None, js=fill, **QUIET)
        when = (self.entries.click, tab_itself.select)
        context.watch(self.look, asked, [self.estimate], *when, js=READS, preprocess=False)
        self.connect_handover(answered)

    # ----------------------------------------------------------------------------------------------------- looking

    def on_load(self, address: str, visitor: str, link: str) -> Update:
        """The first look, and the shelf."""
        shelf = edit_form.shelf(self.directions.kept(), {})
        return {**super().on_load(address, visitor, link), self.shelf: shelf}

    def fill(self, job: Job) -> Update:
        return {self.context.form_values: self.form.filled_from(job)}

    def fill_settings(self, settings: dict[str, Any]) -> Update:
        return {self.context.form_values: self.form.filled(settings, "")}

    def show(self, job: Job, change: Change, trace: Trace) -> Update:
        live = None if job.pictures else self.queue.preview(job.id)
        answer: Update = {self.stage: edit_html.show(job, self.pictures, live, trace)}
        if change.state:
            answer[self.controls] = edit_form.controls(job)
        if change.trace:
            answer[self.learning] = edit_html.learning(job, trace)
        return answer

    def show_empty(self) -> Update:
        stage = self.missing_or(lambda: edit_html.empty(self.pictures))
        return {self.stage: stage, **self._no_run()}

    def _no_run(self) -> Update:
        """What is shown of a run when there is none."""
        return {self.controls: edit_form.controls(None), self.learning: ""}

    def trace(self, job: Job) -> Trace:
        """How the learning went: as the finished pictures say, else as the journal and the present step do."""
        steps = tuple(self.queue.journal(job.id).steps())
        curve: tuple[tuple[float, ...], ...] = ()
        if job.pictures:
            curve = tuple(tuple(row) for row in job.pictures[0].get("curves") or [])
        elif steps:
            curve = journal_rows(self.queue.folder / "runs" / job.id, steps[-1], "curves")
        if job.state == "running" and job.stage == "learn" and {"clip", "critic"} <= job.metrics.keys():
            now = (job.done, job.metrics["clip"], job.metrics["critic"])
            if not curve or curve[-1][1:] != now[1:]:
                curve = (*(row for row in curve if row[0] < now[0]), now)
        return Trace(steps, curve)

    @run_in_own_thread
    def look(self, job_id: str, visitor: str, upload: Any, values: str) -> str:
        """What to expect of a run with this form; a sentence when it would be refused."""
        try:
            settings = self.Settings.from_dict(self.form.settings(read_form(values), upload))
            with _looking:
                pipeline: Any = self.queue.studio.pipeline(PIPELINE)
                estimate = pipeline.estimate(settings)
                known = self._changes(settings)
            survives = float(pipeline.unet.alphas_cumprod[estimate.return_step]) ** 0.5
            shown = edit_form.estimate(estimate, settings, survives) + common.warnings(settings.notes())
            return shown + edit_form.could_become(known)
        except (BadInput, CannotSave) as problem:
            return error_note(problem)
        except Exception as problem:  # a figure less is no reason to stop the artist
            log.exception("the outlook failed")
            return error_note(explain(problem))

    def _changes(self, settings: Any) -> list[TextChange]:
        """What the picture of the form could become; nothing where there is none, or directions are in use."""
        if not settings.image or settings.directions:
            return []
        language = "zh" if is_chinese(settings.source) else "en"
        return changes(self.context.studio.clip(), open_square(settings.image), language=language)

    # ------------------------------------------------------------------------------------------------------- acting

    def act(self, job_id: str, visitor: str, upload: Any, values: str, event: gr.EventData) -> Update:
        """A button of the stage, the learning, the buttons or the last runs."""
        return self.safely(self._act, clicked(event), job_id, visitor, upload, values) or gr.skip()

    def _act(self, data: dict[str, str], job_id: str, visitor: str, upload: Any, values: str) -> Update:
        act, form = data.get("act", ""), read_form(values)
        if act == "edit":
            settings = self.form.settings(form, upload)
            return {self.job: self.queue.submit(PIPELINE, settings, visitor), self.note: ""}
        if act == "open":
            job = self.queue.job(data.get("job", ""))
            return {self.job: job.id, self.note: "", **self.fill(job)}
        if act in ("begin", "begin-with"):
            kind = "example" if act == "begin" else "picture"
            return self._set_start_image(f"{kind}:{data.get('name', '')}", upload)
        if act == "remove":
            stage = self.missing_or(lambda: edit_html.empty(self.pictures))
            filled = script_values(source_of="", mask="")
            return {**self._put(stage, "empty"), self.context.form_values: filled}
        on_run: dict[str, Callable[[], Update]] = {
            "stop": lambda: {self.note: ""} if self.queue.stop(job_id) else {},
            "resume": lambda: {self.job: self.queue.resume(job_id), self.note: ""},
            "keep": lambda: self._keep(job_id, form),
            "until": lambda: self._fork(job_id, int(data["step"]), visitor),
        }
        return on_run[act]() if job_id and act in on_run else {}

    def _keep(self, job_id: str, form: dict[str, Any]) -> Update:
        """Put what a run has learned on the shelf."""
        pipeline: Any = self.queue.studio.pipeline(PIPELINE)
        direction = run_in_own_thread(pipeline.direction)(
            self._begun_with(job_id), self.queue.journal(job_id)
        )
        name = self.directions.keep(direction)
        note = html(
            '<p class="note">{} <a href="direction/{}" download="{}">{}</a></p>',
            both("edit_kept_it", words=direction.words),
            name,
            name,
            both("save"),
        )
        shelf = edit_form.shelf(self.directions.kept(), used_directions(form))
        return {self.note: note, self.shelf: shelf}

    def _fork(self, job_id: str, step: int, visitor: str) -> Update:
        """The same run with less learned."""
        settings = replace(self._begun_with(job_id), until=step)
        job = self.queue.submit(PIPELINE, settings, visitor, after=(job_id, step))
        return {self.job: job, self.note: ""}

    def _begun_with(self, job_id: str) -> Any:
        """The settings that a run's journal was begun with."""
        identity = self.queue.journal(job_id).identity()
        if identity is None:
            raise BadInput("page.learned_nothing")
        return self.Settings.from_dict(identity["settings"])

    # --------------------------------------------------------------------------------------------- pictures to edit

    def set_start_image(self, job_id: str, visitor: str, upload: Any, values: str) -> Update:
        """A file that was dropped, pasted or chosen: a picture to edit, or a direction for the shelf."""
        return self.safely(self._lay, job_id, upload, values)

    def _lay(self, job_id: str, upload: Any, values: str) -> Update:
        path = self.form.source("upload", upload)
        if not path.lower().endswith(".safetensors"):
            read_bytes(path, max_bytes=MAX_PICTURE_BYTES)
            return self._set_start_image("upload", upload, job_id)
        direction = read_direction(path)
        name = self.directions.keep(direction)
        uses = {**used_directions(read_form(values)), name: 1.0}
        return {
            self.note: info_note("edit_shelved", words=direction.words),
            self.shelf: edit_form.shelf(self.directions.kept(), uses),
            self.context.form_values: script_values(),
        }

    def _set_start_image(self, source: str, upload: Any, job_id: str = "", /, **values: Any) -> Update:
        """The picture to edit lies there; while a run is watched it waits. `values` are for other fields of the form."""
        picture = open_picture(self.form.source(source, upload))
        filling = {self.context.form_values: script_values(source_of=source, mask="", crop="", **values)}
        if self.running_job(job_id):
            return {self.note: info_note("edit_next"), **filling}
        return {**self._put(edit_html.ready(picture), "ready"), **filling}

    def _put(self, stage: str, seen: str) -> Update:
        """No run is looked at; this is shown in its place."""
        return {self.job: "", self.note: "", self.stage: stage, self.seen: seen, **self._no_run()}

    def receive(self, kind: str, name: str, job_id: str) -> Update:
        path = self.pictures.path(name)
        if kind in AGAIN:
            settings = again(kind, read_record(path, self.queue.pipelines).settings)
            source = f"record:{name}" if settings.get("image") else ""
            laid = self._set_start_image(source, None, job_id) if source else {}
            filled = self.form.filled(settings, source)
            return {**laid, self.note: info_note(AGAIN[kind]), self.context.form_values: filled}
        try:  # what it shows is what it was drawn from
            record = read_record(path, self.queue.pipelines)
            words = {"source": record.settings["prompt"]} if record.pipeline in DRAWING else {}
        except (BadInput, KeyError):
            words = {}
        return self._set_start_image(f"picture:{name}", None, job_id, **words)
