"""The Optimize tab: a picture that grows, played like an instrument.

The page only steers; form, timeline and canvas hold nothing on the server.
"""

from __future__ import annotations

import json
from typing import Any, cast

import gradio as gr
from markupsafe import Markup
from PIL import Image

from app.jobs.queue import Job
from app.recipe import Recipe
from app.ui.components import bare, uploaded_path
from app.ui.context import QUIET, STEERING, PageContext, Update, clickable_html, clicked
from app.ui.html import common
from app.ui.html import optimize as optimize_html
from app.ui.html.common import Trace, info_note
from app.ui.offering import offers_for_scenes
from app.ui.tabs.base import AGAIN, Change, again, journal_rows
from app.ui.tabs.optimize.form import OptimizeForm
from app.ui.tabs.optimize.steering import SteeredTab
from pipelines.core.prompt_notes import prompt_notes
from pipelines.core.record import read_record
from pipelines.core.settings import PROMPT_LIMIT
from pipelines.core.steering import SteeredSettings
from pipelines.errors import BadInput
from pipelines.io.images import open_picture
from pipelines.weights.checkpoint import Checkpoint

PIPELINE = "optimize"
HAND_OVER_STEPS = 30  # a draft needs few
HIDDEN = ("tokens", "changes", "until")  # what the artist does decides them
READS = "(...values) => [...values.slice(0, -1), window.atelier.guided()]"  # the last one is Guide's part
EXAMPLES = (
    ("a red heart | gold:0.5", "红色的心 | 金色:0.5"),
    ("cat face | smiling:0.5", "猫脸 | 微笑:0.5"),
    ("a green apple ^ a red apple", "绿苹果 ^ 红苹果"),
    ("rocket | night sky:0.4 | blur:-0.3", "火箭 | 夜空:0.4 | 模糊:-0.3"),
)


def build(context: PageContext, tab_itself: gr.Tab) -> None:
    """The tab's components and what they do."""
    tab = OptimizeTab(context)
    with gr.Row(elem_id="optimize", equal_height=False):
        with gr.Column(elem_id="optimize-view", scale=7, min_width=300):
            tab.canvas = clickable_html(elem_id="canvas", script="window.atelier.canvas(element);")
            tab.brush = gr.HTML(common.brush(), elem_id="brush", apply_default_css=False)
            tab.timeline = clickable_html(elem_id="timeline", script="window.atelier.timeline(element);")
        with gr.Column(elem_id="optimize-controls", scale=5, min_width=300):
            tab.compose()
    tab.earlier = clickable_html(elem_id="opt-earlier")
    tab.announce = gr.HTML(elem_id="opt-announce", apply_default_css=False)
    tab.connect(tab_itself)


class OptimizeTab(SteeredTab):
    """The components of one page's tab and the functions behind them. Holds nothing of a visitor's."""

    canvas: Any
    brush: Any
    timeline: Any
    controls: Any
    chips: Any

    def __init__(self, context: PageContext):
        super().__init__(context, PIPELINE, HIDDEN)
        self.shown = tuple(name for name in STEERING if name in context.queue.pipelines)
        guided = context.queue.pipelines[self.shown[-1]].Settings.knobs()
        own = {knob.name: knob for knob in guided if knob.name not in HIDDEN}
        self.form = OptimizeForm(context, PIPELINE, self.knobs, own)

    def compose(self) -> None:
        """The right column: prompt and its parts, the buttons, start picture, settings."""
        with bare(gr.Column(elem_id="opt-ask", min_width=200)):
            self.form.guide.compose_chip()
            self.form.compose_prompt()
            self.controls = clickable_html(
                optimize_html.controls(None),
                elem_id="optimize-buttons",
                script="window.atelier.controls(element);",
            )
        self.note = gr.HTML(elem_id="opt-note", apply_default_css=False)
        self.chips = clickable_html(common.chips(EXAMPLES), elem_id="opt-chips")
        self.form.compose_settings()
        self.job = gr.Textbox(visible=False)
        self.add_hidden()

    def connect(self, tab_itself: gr.Tab) -> None:
        """Which event calls what. Everything answers at once: work happens in the queue."""
        context, form, fields = self.context, self.form, self.form.fields
        filled = [form.source, *form.components]
        for place in (self.controls, self.canvas, self.timeline, self.earlier):
            acted = place.click(
                self.act,
                [self.job, context.visitor, form.source, *form.components],
                [self.job, self.note, *filled],
                js=READS,
                trigger_mode="multiple" if place is self.earlier else "once",
                preprocess=False,  # Gradio would open the pictures; the queue does, and says why it cannot
                **QUIET,
            )
            context.answered(acted, self.refresh, self.job)
        shown = [self.canvas, self.controls, self.timeline]
        self.connect_watching(tab_itself, shown, filled)
        laid = [self.job, self.seen, self.note, *shown]
        start_image = fields["image"]
        gr.on(
            [start_image.upload, start_image.clear],
            self.set_start_image,
            [start_image, self.job],
            [*laid, form.source],
            preprocess=False,
            **QUIET,
        )
        for place in (self.canvas, self.timeline):
            place.click(context.hand_over, None, [context.handover, context.tabs], **QUIET)
        begun = [*laid, form.source, start_image, fields["steps"], fields["mask"]]
        self.canvas.click(self.begin, None, begun, **QUIET)
        self.connect_handover([*laid, *filled])
        when = (fields["prompt"].change, form.rows.click)
        parsed = context.watch(self.parse, [fields["prompt"]], [form.parsed], *when)
        js = "(parsed) => { window.atelier.targets(parsed) }"
        parsed.success(None, [form.parsed], None, js=js, **QUIET)
        js = "(uri) => { window.atelier.mask(uri) }"
        fields["mask"].change(None, [fields["mask"]], None, js=js, **QUIET)
        self.chips.click(self.take_chip, None, [fields["prompt"]], **QUIET)
        form.guide.connect()
        form.connect_dice()

    def take_chip(self, event: gr.EventData) -> str:
        """The prompt of the example that was clicked."""
        return clicked(event).get("prompt", "")[:200]

    def parse(self, prompt: str | None) -> str:
        """A prompt and its scenes as JSON, from which the script draws rows, and what is told about it."""
        prompt = prompt or ""
        if self.is_notebook(prompt):
            return json.dumps({"text": prompt, "scenes": [], "notes": info_note("opt_notebook")})
        rows = json.loads(common.rows_of(prompt, "scenes"))
        told = self._offered(prompt) + common.warnings(prompt_notes(prompt, "scenes"))
        return json.dumps({**rows, "notes": told})

    def _offered(self, prompt: str) -> Markup:
        """What the prompt could be instead, where the CLIP tells its words."""
        try:
            return common.offered(offers_for_scenes(self.context.studio.clip(), prompt[:PROMPT_LIMIT]))
        except (BadInput, AttributeError):  # its weights are missing, or it does not tell them
            return Markup()

    # ----------------------------------------------------------------------------------------------------- looking

    def show(self, job: Job, change: Change, trace: Trace) -> Update:
        previews = None if job.is_over and job.pictures else self.queue.preview(job.id)
        live = previews[0] if previews else None
        answer: Update = {self.canvas: optimize_html.canvas(job, self.pictures, live, trace)}
        if change.state or change.first_snapshot:
            answer[self.controls] = optimize_html.controls(job, trace.steps)
        if change.trace:
            answer[self.timeline] = optimize_html.timeline(job, trace, self.settings_of(job))
        return answer

    def show_empty(self) -> Update:
        canvas = self.missing_or(lambda: optimize_html.empty(self.pictures))
        return {self.canvas: canvas, self.controls: optimize_html.controls(None), self.timeline: ""}

    def missing(self) -> list[Checkpoint]:
        """Models that are not here, of the engine that lacks the fewest."""
        return min((self.context.missing(engine) for engine in self.shown), key=len)

    def trace(self, job: Job) -> Trace:
        """The run as its journal tells it; a finished one tells its last judgement itself."""
        steps = self.steps(job.id)
        if not steps:
            return Trace()
        curve = journal_rows(self.queue.folder / "runs" / job.id, steps[-1], "curve")
        last = job.pictures[-1].get("curve") if job.pictures else None
        if last and (not curve or last[-1][0] > curve[-1][0]):
            curve = (*curve, tuple(last[-1]))
        return Trace(steps, curve)

    # ------------------------------------------------------------------------------------------------------ acting

    def act(self, job_id: str, visitor: str, source: str, event: gr.EventData, *values: Any) -> Update:
        """A button of the controls, the canvas or the timeline."""
        data, form = clicked(event), self.form.read(values)
        answer = self.safely(self.steer, data.get("act", ""), data, job_id, visitor, source, form)
        return answer or gr.skip()

    def fill(self, job: Job) -> Update:
        """The start picture's source and the form, as a job's settings say last."""
        settings = self.settings_of(job).timeline()[-1][1].to_dict()
        return {
            **self.form.fill_engine(job.pipeline, settings),
            self.form.source: f"job:{job.id}" if settings["image"] else "",
        }

    def fill_settings(self, settings: dict[str, Any]) -> Update:
        return {**self.form.fill_engine(PIPELINE, settings), self.form.source: ""}

    def fill_recipe(self, recipe: Recipe) -> Update:
        return {**self.form.fill_engine(recipe.pipeline, recipe.settings.to_dict()), self.form.source: ""}

    # --------------------------------------------------------------------------------------- pictures to start from

    def set_start_image(self, picture: Any, job_id: str) -> Update:
        """A picture that was dropped lies on the canvas, unless a run is being watched."""
        if self.running_job(job_id):
            return {self.form.source: ""}
        if path := uploaded_path(picture):
            return self.safely(lambda: {**self._set_start_image(open_picture(path), ""), self.note: ""})
        if self.find_job(job_id):
            return {self.form.source: ""}
        canvas = self.missing_or(lambda: optimize_html.empty(self.pictures))
        return {self.job: "", self.seen: "empty", self.form.source: "", self.canvas: canvas}

    def _set_start_image(self, picture: Image.Image, source: str) -> Update:
        """A picture to start from lies on the canvas; no run is looked at."""
        return {
            self.job: "",
            self.seen: "ready",
            self.form.source: source,
            self.canvas: optimize_html.ready(picture),
            self.controls: optimize_html.controls(None),
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
            **self._set_start_image(picture, f"{kind}:{name}"),
            self.form.fields["image"]: picture,
            self.form.fields["steps"]: HAND_OVER_STEPS,
            self.form.fields["mask"]: "",
            self.note: info_note("opt_laid"),
        }

    def receive(self, kind: str, name: str, job_id: str) -> Update:
        path = self.pictures.path(name)
        if kind in AGAIN:
            record = read_record(path, self.queue.pipelines)
            steered = cast(type[SteeredSettings], self.queue.pipelines[record.pipeline].Settings)
            settings = again(kind, steered.from_dict(record.settings).timeline()[-1][1].to_dict())
            laid = self._set_start_image(open_picture(settings["image"]), "") if settings["image"] else {}
            filled = self.form.fill_engine(record.pipeline, settings)
            return {**laid, **filled, self.note: info_note(AGAIN[kind])}
        answer = {**self._start_with("picture", name), self.form.fields["size"]: ""}
        try:
            prompt = read_record(path, self.queue.pipelines).settings.get("prompt", "")
        except BadInput:  # a picture without a record
            prompt = ""
        return {**answer, self.form.fields["prompt"]: prompt} if prompt else answer
