"""The Generate tab: a prompt becomes ranked pictures. The page submits jobs and watches them; the queue does the work."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import gradio as gr

from app.jobs.queue import Job
from app.jobs.threads import run_in_own_thread
from app.ui.components import bare
from app.ui.context import DRAWING, QUIET, TAKING, PageContext, Update, clickable_html, clicked
from app.ui.html import explain as explain_html
from app.ui.html import generate as generate_html
from app.ui.html.common import Trace, error_note, info_note, told
from app.ui.link import opened
from app.ui.offering import offers_for
from app.ui.tabs.base import Change, RunTab
from app.ui.tabs.generate.explaining import explained
from app.ui.tabs.generate.form import GenerateForm
from app.ui.tabs.generate.records import Records
from pipelines.core.prompt_notes import notes_on_several, prompt_notes
from pipelines.core.prompts import parse_terms
from pipelines.core.settings import PROMPT_LIMIT, clean_prompt
from pipelines.core.several import prompts_in
from pipelines.errors import BadInput, CannotSave, Message
from pipelines.io.visible import visible
from pipelines.weights.checkpoint import Checkpoint
from pipelines.weights.codecs import second_stage


def build(context: PageContext, tab_itself: gr.Tab) -> None:
    """The tab's components and what they do."""
    tab = GenerateTab(context)
    with gr.Row(elem_id="generate", equal_height=False):
        with bare(gr.Column(elem_id="generate-controls", scale=5, min_width=300)):
            tab.form.compose()
            tab.note = tab.form.note
            tab.add_hidden()
            tab.asked = gr.Textbox(visible=False)
        with gr.Column(elem_id="generate-view", scale=7, min_width=300):
            tab.stage = clickable_html(elem_id="stage")
    tab.explained = clickable_html(elem_id="explained")
    tab.sheet = clickable_html(elem_id="sheet")
    tab.earlier = clickable_html(elem_id="earlier")
    tab.announce = gr.HTML(elem_id="announce", apply_default_css=False)
    tab.connect(tab_itself)


class GenerateTab(RunTab):
    """The components of one page's tab and the functions behind them. Its job is the one that the page's address names."""

    unlisted: ClassVar[tuple[str, ...]] = ("done",)

    stage: Any
    sheet: Any
    explained: Any  # how the picture was drawn that was asked about
    asked: Any  # hidden: the name of that picture, and something new each time

    def __init__(self, context: PageContext):
        super().__init__(context, "generate")
        self.shown = DRAWING
        self.job = context.job
        self.form = GenerateForm(context)
        self.records = Records(self.form)

    # ----------------------------------------------------------------------------------------------------- wiring

    def connect(self, tab_itself: gr.Tab) -> None:
        """Which event calls what. Everything answers at once: work happens in the queue."""
        context, form = self.context, self.form
        prompt, seed = form.fields["prompt"], form.fields["seed"]
        pressed = gr.on(
            [form.go.click, prompt.submit],
            self.submit,
            [context.visitor, context.engine, form.roll, *form.components],
            [context.job, seed, self.note],
            trigger_mode="once",
            preprocess=False,  # Gradio would open the picture; the queue does, and says in a sentence why it cannot
            **QUIET,
        )
        context.answered(pressed, self.refresh, context.job)
        context.answered(form.stop.click(self.stop, [context.job], None, **QUIET), self.refresh)
        filled = [*form.components, form.from_picture, form.roll, context.engine, form.chip]
        self.connect_watching(tab_itself, [self.stage, self.sheet, self.explained, form.stop], filled)
        form.chip.click(self.take_engine, None, [context.engine], **QUIET)
        context.engine.change(
            None, [context.engine], None, js="(engine) => window.atelier.engine(engine)", **QUIET
        )
        tab_itself.select(form.choose, [context.engine], [context.engine, form.chip], **QUIET)
        reading = [prompt, context.engine]
        context.watch(self.read, reading, [form.reading], prompt.change, context.engine.change)
        form.chips.click(self.take_chip, None, [prompt], **QUIET)
        form.connect_dice(form.roll, values=["false"])
        seed.input(None, None, [form.roll], js="() => false", **QUIET)

        answered = [*filled, self.note, context.job, self.form.run_now]
        for place in (self.stage, self.sheet, self.earlier, self.explained, context.queue_status):
            acted = place.click(self.act, [context.visitor], answered, trigger_mode="multiple", **QUIET)
            press = "(now) => { if (now) document.querySelector('#go').click() }"
            context.answered(acted, self.refresh, context.job).then(
                None, [self.form.run_now], js=press, **QUIET
            )
        form.drop.upload(self.load_file, [form.drop, context.engine], [*answered, form.drop], **QUIET)
        self.connect_handover(answered)
        for place in (self.stage, self.explained):
            place.click(self.ask_how, None, [self.asked, self.explained], **QUIET)
        self.asked.change(self.tell_how, [self.asked], [self.explained], **QUIET)
        for place in (self.stage, self.sheet):
            place.click(context.hand_over, None, [context.handover, context.tabs], **QUIET)

    def connect_arrival(self, inputs: list[Any], outputs: list[Any]) -> None:
        arrival = [*inputs, self.context.engine]
        self.context.arrivals.append((self.on_load, arrival, outputs, self.refresh))

    # -------------------------------------------------------------------------------------------------- looking

    def on_load(self, address: str, visitor: str, link: str, engine: str = "") -> Update:
        """The first look: the job of the address or of the last visit with its settings, or the empty stage.

        A link that carries a recipe fills the form and runs nothing; its page has no job. The answer names a job only when
        it is not the page's already: the visitor may have begun one before the answer came, and the next look shows it.
        In the same way it chooses an engine only where it fills the form.
        """
        answer: Update = {}
        offered = self.form.offer(engine)
        try:
            if recipe := self.context.recipe(link, *DRAWING):
                filled = self.form.fill_engine(recipe.pipeline, recipe.settings.to_dict())
                opening = {self.form.roll: False, self.note: opened(recipe)}
                return {**self.watch("", visitor, ""), **offered, **filled, **opening}
        except BadInput as problem:
            answer[self.note] = error_note(problem)
        job = self.find_job(address)
        if job is None and self._is_known(address):  # another tab's: here is shown what was made here last
            runs = (self.find_job(run.id) for run in self.last_runs(visitor))  # with the given pictures
            job = next((run for run in runs if run), None)
        filled = self.fill(job) if job else {}
        filled.pop(self.form.from_picture, None)  # stays folded
        job_id = job.id if job else address
        if job_id != address:
            answer[self.job] = job_id
        return {**self.watch(job_id, visitor, ""), **offered, **filled, **answer}

    def _is_known(self, job_id: str) -> bool:
        try:
            return bool(job_id and self.queue.job(job_id))
        except BadInput:
            return False

    def show(self, job: Job, change: Change, trace: Trace) -> Update:
        previews = None if job.state == "done" else self.queue.preview(job.id)
        answer: Update = {self.stage: generate_html.stage(job, self.pictures, previews)}
        if change.state:
            answer[self.sheet] = generate_html.sheet(job, self.pictures)
            answer[self.explained] = ""
            answer[self.form.stop] = gr.update(visible=not job.is_over)
        return answer

    def show_empty(self) -> Update:
        return {
            self.stage: self.missing_or(lambda: generate_html.empty(self.pictures)),
            self.sheet: "",
            self.explained: "",
            self.form.stop: gr.update(visible=False),
        }

    def missing(self) -> list[Checkpoint]:
        """Models that are not here, of the engine that lacks the fewest: none while one engine can draw."""
        return min((self.context.missing(engine) for engine in self.context.engines), key=len)

    def fill(self, job: Job) -> Update:
        return self.form.fill_engine(job.pipeline, job.settings)

    def fill_settings(self, settings: dict[str, Any]) -> Update:
        return self.form.fill_engine(self.pipeline, settings)

    @run_in_own_thread
    def read(self, prompt: str, engine: str) -> str:
        """How the model of an engine reads the prompt, and what is to be told about it."""
        if not prompt.strip():
            unprompted = [Message("generate.unprompted")] if self._draws_unprompted(engine) else []
            return generate_html.reading(None, notes=unprompted)
        try:
            prompts = prompts_in(prompt)
        except BadInput as problem:
            return generate_html.reading(None, notes=[problem.message])
        whole = prompts in ([], [" ".join(prompt.split())])
        text, prompt = prompt, (prompt if whole else prompts[0])[:PROMPT_LIMIT]
        notes = notes_on_several([each[:PROMPT_LIMIT] for each in prompts], "terms")
        for each in prompts:
            try:
                parse_terms(clean_prompt(each))
            except BadInput as problem:
                notes.append(problem.message)
                break
        if len(prompts) > 1:
            return generate_html.several(text, prompts, notes)
        try:
            pipeline: Any = self.context.studio.pipeline(self.form.engine_of(engine))
            read = pipeline.read_prompt(" ".join(visible(prompt).split()))
            offers = offers_for(pipeline, prompt, read.unknown)
        except (BadInput, AttributeError):  # weights are missing, which the stage says, or it has no reader
            read = offers = None
        return generate_html.reading(read, prompt, notes, offers)

    def _draws_unprompted(self, engine: str) -> bool:
        """Whether an engine of the pack in use draws when there is no prompt."""
        return self.form.engine_of(engine) == "generate" and bool(second_stage(self.context.studio.pack))

    # --------------------------------------------------------------------------------------------------- acting

    def submit(self, visitor: str, engine: str, roll: bool, *values: Any) -> Update:
        """Queue a run of what the form says: the job's id, the seed it got, and a note when it cannot be."""
        engine = self.form.engine_of(engine)
        settings = self.form.values_of(engine, values)
        if roll:
            settings["seed"] = random.SystemRandom().randrange(2**32)
        made: list[str] = []
        note: str = ""
        try:
            prompts = prompts_in(str(settings.get("prompt") or "")) or [""]
            if prompts == [""] and self._draws_unprompted(engine):
                settings["prior"] = True
            note = info_note("several_queued", count=len(prompts)) if len(prompts) > 1 else ""
            for prompt in prompts:
                made.append(self.queue.submit(engine, {**settings, "prompt": prompt}, visitor))
        except (BadInput, CannotSave) as problem:
            note = error_note(problem)
            if not made:
                return {self.note: note}
            note = info_note("several_some", count=len(made), all=len(prompts)) + note
        if not note:  # those on the prompt stand below it
            run = self.settings_of(self.queue.job(made[0]))
            below = prompt_notes(run.prompt, run.grammar)
            note = told([message for message in run.notes() if message not in below])
        return {self.job: made[0], self.form.fields["seed"]: settings["seed"], self.note: note}

    def act(self, visitor: str, event: gr.EventData) -> Update:
        """A button on a picture: fill the form from its record, and run at once where that is meant."""
        return {self.form.run_now: "", **self.safely(self._act, clicked(event), visitor)}

    def _act(self, data: dict[str, str], visitor: str) -> Update:
        act = data.get("act", "")
        if act in (*TAKING, "explain", "explain-close") or act.startswith("queue-"):  # others answer
            return {}
        if act == "weigh":
            path = self.pictures.path(data.get("name", ""))
            return self.records.weigh(path, data.get("weights", ""), visitor)
        if act == "open":
            job = self.queue.job(data.get("job", ""))
            return {**self.fill(job), self.job: job.id}
        if act == "again":
            return {self.job: self.queue.resume(data.get("job", ""))}
        if act == "seed":
            seed = int(data["seed"])
            filled = self.form.fill({"seed": seed})
            return {**filled, self.form.roll: False, self.note: info_note("seed_set", seed=seed)}
        path = self.pictures.path(data.get("name", ""), example=act == "example")
        rows = int(data.get("rows", 0)) if act == "complete" else 0
        return self.records.act(act, path, rows, visitor)

    def ask_how(self, event: gr.EventData) -> Update:
        """A click on "How was this drawn?", or on what closes its panel."""
        data = clicked(event)
        if data.get("act") == "explain-close":
            return {self.explained: ""}
        if data.get("act") != "explain":
            return gr.skip()
        return {self.asked: f"{random.random()} {data.get('name', '')}", self.explained: explain_html.busy()}

    def tell_how(self, asked: str) -> str:
        """The panel of the picture that was asked about, or why there is none."""
        name = asked.partition(" ")[2]
        try:
            return explained(self.context.studio, self.pictures.path(name), name)
        except (BadInput, RuntimeError, ValueError) as problem:
            return error_note(problem)

    def load_file(self, path: str | None, engine: str) -> Update:
        """The settings inside a dropped PNG into the form, or one sentence on why not."""
        filled = self.safely(self.records.load_file, path, self.form.engine_of(engine)) if path else {}
        return {**filled, self.form.drop: None}

    def receive(self, kind: str, name: str, job_id: str) -> Update:
        return self.records.receive(kind, self.pictures.path(name))

    def take_engine(self, event: gr.EventData) -> str:
        """The engine that was clicked."""
        return self.form.engine_of(clicked(event).get("engine", ""))

    def take_chip(self, event: gr.EventData) -> str:
        """The prompt of the example that was clicked."""
        return clicked(event).get("prompt", "")[:200]
