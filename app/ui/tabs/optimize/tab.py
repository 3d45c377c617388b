"""The Optimize tab: a picture that grows, played like an instrument.

The page only steers; form, timeline and canvas hold nothing on the server.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import gradio as gr
from PIL import Image

from app.jobs.queue import Job
from app.ui.components import uploaded_path
from app.ui.context import QUIET, Shell, Update, acting, clicked
from app.ui.html import common
from app.ui.html import optimize as plate
from app.ui.html.common import Trace, plain
from app.ui.tabs.base import Change, journal_rows
from app.ui.tabs.optimize.form import OptimizeForm
from app.ui.tabs.optimize.steering import SteeredTab
from pipelines.core.record import read_record
from pipelines.errors import BadInput
from pipelines.io.images import open_picture
from pipelines.optimize.prompts import parse_scenes

PIPELINE = "optimize"
HAND_OVER_STEPS = 30  # a draft needs few
HIDDEN = ("tokens", "changes", "until")  # what the artist does decides them
EXAMPLES = (
    ("a red heart | gold:0.5", "红色的心 | 金色:0.5"),
    ("cat face | smiling:0.5", "猫脸 | 微笑:0.5"),
    ("a green apple ^ a red apple", "绿苹果 ^ 红苹果"),
    ("rocket | night sky:0.4 | blur:-0.3", "火箭 | 夜空:0.4 | 模糊:-0.3"),
)


def build(shell: Shell, tab_itself: gr.Tab) -> None:
    """The tab's components and what they do."""
    tab = OptimizeTab(shell)
    with gr.Row(elem_id="workbench", equal_height=False):
        with gr.Column(elem_id="plate-side", scale=7, min_width=300):
            tab.canvas = acting(elem_id="canvas", script="window.atelier.canvas(element);")
            tab.brush = gr.HTML(common.brush(), elem_id="brush", apply_default_css=False)
            tab.timeline = acting(elem_id="timeline", script="window.atelier.timeline(element);")
        with gr.Column(elem_id="instrument", scale=5, min_width=300):
            tab.compose()
    tab.earlier = acting(elem_id="opt-earlier")
    tab.announce = gr.HTML(elem_id="opt-announce", apply_default_css=False)
    tab.connect(tab_itself)


class OptimizeTab(SteeredTab):
    """The components of one page's tab and the functions behind them. Holds nothing of a visitor's."""

    canvas: Any
    brush: Any
    timeline: Any
    transport: Any
    chips: Any

    def __init__(self, shell: Shell):
        super().__init__(shell, PIPELINE, HIDDEN)
        self.form = OptimizeForm(shell, PIPELINE, self.knobs)

    def compose(self) -> None:
        """The right column: prompt and its parts, the buttons, start picture, settings."""
        with gr.Column(elem_id="opt-ask", min_width=200):
            self.form.compose_prompt()
            self.transport = acting(
                plate.controls(None), elem_id="transport", script="window.atelier.transport(element);"
            )
        self.note = gr.HTML(elem_id="opt-note", apply_default_css=False)
        self.chips = acting(common.chips(EXAMPLES), elem_id="opt-chips")
        self.form.compose_settings()
        self.job = gr.Textbox(visible=False)
        self.add_hidden()

    def connect(self, tab_itself: gr.Tab) -> None:
        """Which event calls what. Everything answers at once: work happens in the lane."""
        shell, form, fields = self.shell, self.form, self.form.fields
        filled = [form.source, *form.components]
        for place in (self.transport, self.canvas, self.timeline, self.earlier):
            acted = place.click(
                self.act,
                [self.job, shell.visitor, form.source, *form.components],
                [self.job, self.note, *filled],
                trigger_mode="multiple" if place is self.earlier else "once",
                preprocess=False,  # Gradio would open the pictures; the lane does, and says why it cannot
                **QUIET,
            )
            shell.answered(acted, self.beat, self.job)
        shown = [self.canvas, self.transport, self.timeline]
        self.connect_watching(tab_itself, shown, filled)
        laid = [self.job, self.seen, self.note, *shown]
        init = fields["init"]
        gr.on(
            [init.upload, init.clear],
            self.lay,
            [init, self.job],
            [*laid, form.source],
            preprocess=False,
            **QUIET,
        )
        self.canvas.click(shell.hand_over, None, [shell.hand, shell.tabs], **QUIET)
        begun = [*laid, form.source, init, fields["steps"], fields["mask"]]
        self.canvas.click(self.begin, None, begun, **QUIET)
        self.connect_hand([*laid, *filled])
        when = (fields["prompt"].change, form.rows.click)
        parsed = shell.watch(self.parse, [fields["prompt"]], [form.parsed], *when)
        js = "(parsed) => { window.atelier.targets(parsed) }"
        parsed.success(None, [form.parsed], None, js=js, **QUIET)
        js = "(uri) => { window.atelier.mask(uri) }"
        fields["mask"].change(None, [fields["mask"]], None, js=js, **QUIET)
        self.chips.click(self.take_chip, None, [fields["prompt"]], **QUIET)
        form.connect_dice()

    def take_chip(self, event: gr.EventData) -> str:
        """The prompt of the example that was clicked."""
        return clicked(event).get("prompt", "")[:200]

    def parse(self, prompt: str | None) -> str:
        """A prompt and its scenes as JSON, from which the script draws rows."""
        prompt = prompt or ""
        return json.dumps({"text": prompt, "scenes": [asdict(scene) for scene in parse_scenes(prompt)]})

    # ----------------------------------------------------------------------------------------------------- looking

    def show(self, job: Job, change: Change, trace: Trace) -> Update:
        previews = None if job.is_over and job.pictures else self.lane.preview(job.id)
        live = previews[0] if previews else None
        answer: Update = {self.canvas: plate.canvas(job, self.pictures, live, trace)}
        if change.state or change.first_snapshot:
            answer[self.transport] = plate.controls(job, trace.steps)
        if change.trace:
            answer[self.timeline] = plate.timeline(job, trace, self.settings_of(job))
        return answer

    def show_empty(self) -> Update:
        canvas = self.missing_or(lambda: plate.empty(self.pictures))
        return {self.canvas: canvas, self.transport: plate.controls(None), self.timeline: ""}

    def trace(self, job: Job) -> Trace:
        """The run as its journal tells it; a finished one tells its last judgement itself."""
        steps = self.steps(job.id)
        if not steps:
            return Trace()
        curve = journal_rows(self.lane.folder / "runs" / job.id, steps[-1], "curve")
        last = job.pictures[-1].get("curve") if job.pictures else None
        if last and (not curve or last[-1][0] > curve[-1][0]):
            curve = (*curve, tuple(last[-1]))
        return Trace(steps, curve)

    # ------------------------------------------------------------------------------------------------------ acting

    def act(self, job_id: str, visitor: str, source: str, event: gr.EventData, *values: Any) -> Update:
        """A button of the instrument, the canvas or the timeline."""
        data, form = clicked(event), self.form.read(values)
        answer = self.safely(self.steer, data.get("act", ""), data, job_id, visitor, source, form)
        return answer or gr.skip()

    def fill(self, job: Job) -> Update:
        """The start picture's source and the form, as a job's settings say last."""
        settings = self.settings_of(job).timeline()[-1][1].to_dict()
        return {**self.form.fill(settings), self.form.source: f"job:{job.id}" if settings["init"] else ""}

    def fill_settings(self, settings: dict[str, Any]) -> Update:
        return {**self.form.fill(settings), self.form.source: ""}

    # --------------------------------------------------------------------------------------- pictures to start from

    def lay(self, picture: Any, job_id: str) -> Update:
        """A picture that was dropped lies on the canvas, unless a run is being watched."""
        if self.running_job(job_id):
            return {self.form.source: ""}
        if path := uploaded_path(picture):
            return self.safely(lambda: {**self._laid(open_picture(path), ""), self.note: ""})
        if self.find_job(job_id):
            return {self.form.source: ""}
        canvas = self.missing_or(lambda: plate.empty(self.pictures))
        return {self.job: "", self.seen: "empty", self.form.source: "", self.canvas: canvas}

    def _laid(self, picture: Image.Image, source: str) -> Update:
        """A picture to start from lies on the canvas; no run is looked at."""
        return {
            self.job: "",
            self.seen: "ready",
            self.form.source: source,
            self.canvas: plate.ready(picture),
            self.transport: plate.controls(None),
            self.timeline: "",
        }

    def begin(self, event: gr.EventData) -> Update:
        """An example of the empty canvas, or the picture of a run, becomes the start of the next one."""
        data = clicked(event)
        kind = {"begin": "example", "begin-with": "picture"}.get(data.get("act", ""))
        return self.safely(self._start_with, kind, data.get("name", "")) if kind else gr.skip()

    def _start_with(self, kind: str, name: str) -> Update:
        picture = open_picture(self.pictures.path(name, example=kind == "example"))
        return {
            **self._laid(picture, f"{kind}:{name}"),
            self.form.fields["init"]: picture,
            self.form.fields["steps"]: HAND_OVER_STEPS,
            self.form.fields["mask"]: "",
            self.note: plain("opt_laid"),
        }

    def receive(self, kind: str, name: str, job_id: str) -> Update:
        path = self.pictures.path(name)
        if kind == "settings":
            record = read_record(path, self.lane.pipelines)
            settings = self.Settings.from_dict(record.settings).timeline()[-1][1].to_dict()
            laid = self._laid(open_picture(settings["init"]), "") if settings["init"] else {}
            return {**laid, **self.form.fill(settings), self.note: plain("loaded_again")}
        answer = {**self._start_with("picture", name), self.form.fields["size"]: ""}
        try:
            prompt = read_record(path, self.lane.pipelines).settings.get("prompt", "")
        except BadInput:  # a picture without a record
            prompt = ""
        return {**answer, self.form.fields["prompt"]: prompt} if prompt else answer
