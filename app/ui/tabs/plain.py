"""A tab made from a pipeline's Settings alone, for every pipeline that has no tab of its own design."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.jobs.queue import Job
from app.ui.context import QUIET, PageContext, Update, clickable_html, clicked
from app.ui.html import common, plain
from app.ui.html.common import Trace
from app.ui.tabs.base import AGAIN, Change, RunTab, again
from app.ui.tabs.form import KnobForm
from pipelines.core.pipeline import Pipeline
from pipelines.core.record import read_record


def tab_name(pipeline: type[Pipeline[Any]]) -> tuple[str, str]:
    """What the tab is called in English and Chinese: the pipeline's `label`, one text or two, else its class's name."""
    label = getattr(pipeline, "label", pipeline.__name__)
    return (label, label) if isinstance(label, str) else label


def build(context: PageContext, tab_itself: gr.Tab, pipeline: str) -> None:
    """The tab's components and what they do."""
    tab = PlainTab(context, pipeline)
    with gr.Row(elem_id=f"{pipeline}-bench", elem_classes=["bench", "plain"], equal_height=False):
        with gr.Column(elem_classes="composer", scale=5, min_width=300):
            tab.compose()
        with gr.Column(scale=7, min_width=300):
            tab.stage = clickable_html(elem_id=f"{pipeline}-stage")
    tab.earlier = clickable_html(elem_id=f"{pipeline}-earlier")
    tab.announce = gr.HTML(elem_classes="only-heard", apply_default_css=False)
    tab.connect(tab_itself)


class PlainTab(RunTab):
    """The components of one page's tab and the functions behind them. Holds nothing of a visitor's."""

    stage: Any
    controls: Any

    def __init__(self, context: PageContext, pipeline: str):
        super().__init__(context, pipeline)
        self.form = KnobForm(context, pipeline, self.knobs, f"{pipeline}-")

    def compose(self) -> None:
        """The form: the prompt, the button, whole numbers and the seed in a row, the other settings, the advanced ones."""
        knobs = self.knobs
        with gr.Column(elem_classes="ask", min_width=200):
            self.form.add_prompt(lines=2, max_lines=5)
            self.controls = clickable_html(plain.controls(None), elem_id=f"{self.pipeline}-transport")
        self.note = gr.HTML(elem_id=f"{self.pipeline}-note", apply_default_css=False)
        with gr.Row(elem_classes="basics"):
            rest = [knobs[name] for name in self.form.rest(("seed",)) if not knobs[name].advanced]
            self.form.add(*(knob.name for knob in rest if knob.type is int and knob.choices is None))
            self.form.add_seed()
        self.form.add(*(name for name in self.form.rest() if not knobs[name].advanced))
        self.form.add_axes(self.pipeline)
        if advanced := self.form.rest():
            with self.form.fold("advanced", "advanced"):
                self.form.add(*advanced)
        self.job = gr.Textbox(visible=False)
        self.add_hidden()

    def connect(self, tab_itself: gr.Tab) -> None:
        """Which event calls what. Everything answers at once: work happens in the queue."""
        context, components = self.context, self.form.components
        for place in (self.controls, self.stage, self.earlier):
            acted = place.click(
                self.act,
                [self.job, context.visitor, *components],
                [self.job, self.note, *components],
                trigger_mode="once",
                preprocess=False,  # Gradio would open the pictures; the queue does, and says why it cannot
                **QUIET,
            )
            context.answered(acted, self.refresh, self.job)
        self.stage.click(context.hand_over, None, [context.handover, context.tabs], **QUIET)
        self.form.connect_dice()
        self.connect_watching(tab_itself, [self.stage, self.controls], components)
        self.connect_handover(components)

    # ------------------------------------------------------------------------------------------------------ looking

    def show(self, job: Job, change: Change, trace: Trace) -> Update:
        previews = None if job.pictures else self.queue.preview(job.id)
        kinds = self.queue.pipelines
        answer: Update = {self.stage: plain.stage(job, self.pictures, previews or [], kinds)}
        if change.state:
            answer[self.controls] = plain.controls(job)
        return answer

    def show_empty(self) -> Update:
        return {self.stage: self.missing_or(plain.empty), self.controls: plain.controls(None)}

    def fill_settings(self, settings: dict[str, Any]) -> Update:
        return self.form.fill(settings)

    # ------------------------------------------------------------------------------------------------------- acting

    def act(self, job_id: str, visitor: str, event: gr.EventData, *values: Any) -> Update:
        """A button of the form, a picture, or the last runs."""
        return self.safely(self._act, clicked(event), job_id, visitor, self.form.read(values)) or gr.skip()

    def _act(self, data: dict[str, str], job_id: str, visitor: str, form: dict[str, Any]) -> Update:
        act = data.get("act", "")
        if act == "start":
            settings = self.form.settings(form)
            job_id = self.queue.submit(self.pipeline, settings, visitor)
            return {
                self.job: job_id,
                self.note: common.told(self.settings_of(self.queue.job(job_id)).notes()),
            }
        if act == "open":
            job = self.queue.job(data.get("job", ""))
            return {self.job: job.id, self.note: "", **self.fill(job)}
        if act == "reuse":
            return self.receive("settings", data.get("name", ""), job_id)
        if act == "stop":
            self.stop(job_id)
        if act == "again":
            return {self.job: self.queue.resume(job_id), self.note: ""}
        return {}

    def receive(self, kind: str, name: str, job_id: str) -> Update:
        settings = again(kind, read_record(self.pictures.path(name), self.queue.pipelines).settings)
        return {**self.form.fill(settings), self.note: common.info_note(AGAIN.get(kind, "loaded_again"))}
