"""The Generate tab: a prompt becomes ranked pictures. The page submits jobs and watches them; the lane does the work."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import gradio as gr

from app.jobs.queue import Job
from app.jobs.threads import aside
from app.ui.components import field, plain_value
from app.ui.context import QUIET, Shell, acting
from app.ui.html import generate as stage
from app.ui.i18n import pair
from app.ui.link import opened
from pipelines.core.record import Record, read_parameters, read_record
from pipelines.core.settings import Knob
from pipelines.errors import BadInput, CannotSave
from pipelines.io.images import open_picture
from pipelines.weights.catalog import PRESETS

DRAWING = ("generate", "diffuse")  # the pipelines that may stand behind this tab
WATCH_SECONDS = 0.3  # between two looks at a running job
PICTURE_KNOBS = ("image", "keep_rows", "likeness", "strength", "mask")  # under "Start from a picture"
EXAMPLES = (
    ("a red heart", "红色的心"),
    ("grinning cat", "咧嘴笑的猫"),
    ("woman with red hair", "红发女人"),
    ("1st place medal", "金牌"),
    ("a blue heart on a yellow background", "黄色背景上的蓝心"),
)
HIDDEN = ("batch",)  # the device decides it
SHARED = ("prompt", "seed", "candidates", "keep", "hide_duplicates")  # mean the same to both of DRAWING


def pipeline_of(pack: str) -> str:
    """The one of DRAWING that a pack has."""
    return next((one for one in DRAWING if one in PRESETS.get(pack, {})), DRAWING[0])


def build(shell: Shell, tab_itself: gr.Tab) -> None:
    """The tab's components and what they do."""
    knobs = {
        one.name: one
        for one in shell.lane.pipelines[shell.drawing].Settings.knobs()
        if one.name not in HIDDEN
    }
    tab = _Tab(shell, knobs)
    with gr.Row(elem_id="bench", equal_height=False):
        with gr.Column(elem_id="composer", scale=5, min_width=300):
            tab.compose()
        with gr.Column(elem_id="easel", scale=7, min_width=300):
            tab.stage = acting(elem_id="stage")
    tab.sheet = acting(elem_id="sheet")
    tab.earlier = acting(elem_id="earlier")
    tab.announce = gr.HTML(elem_id="announce", apply_default_css=False)
    tab.connect(tab_itself)


class _Tab:
    """The components of one page's tab and the functions behind them. Holds nothing of a visitor's."""

    def __init__(self, shell: Shell, knobs: dict[str, Knob]):
        self.shell, self.lane, self.pictures = shell, shell.lane, shell.pictures
        self.knobs, self.pipeline = knobs, shell.drawing
        self.fields: dict[str, Any] = {}  # name of a setting -> its component
        self.stage: Any = None
        self.sheet: Any = None
        self.earlier: Any = None
        self.announce: Any = None

    # --------------------------------------------------------------------------------------------------- the form

    def compose(self) -> None:
        """The left column: prompt, reading, examples, settings."""
        words = self.shell.words
        with gr.Column(elem_id="ask", min_width=200):
            self.fields["prompt"] = words(
                gr.Textbox(lines=2, max_lines=5, elem_id="prompt", autofocus=True),
                label="prompt",
                placeholder="prompt_hint",
            )
            for one in self.knobs.values():
                if one.type is str and one.kind is None:
                    self.fields[one.name] = self._field(one)
            self.seen, self.run_now, self.beat = (gr.Textbox(visible=False) for _ in range(3))
            self.timer = gr.Timer(WATCH_SECONDS, active=False)
            with gr.Row(elem_id="press"):
                self.reading = gr.HTML(stage.reading(None), elem_id="reading", apply_default_css=False)
                self.stop = words(
                    gr.Button(elem_id="stop", visible=False, scale=0, min_width=80), value="stop"
                )
                self.go = words(
                    gr.Button(variant="primary", elem_id="go", scale=0, min_width=128), value="go"
                )
        self.note = gr.HTML(elem_id="note", apply_default_css=False)
        self.chips = acting(_chips(), elem_id="chips")
        apart = (*self.fields, *PICTURE_KNOBS)
        plain = [one for one in self.knobs.values() if not (one.advanced or one.kind or one.name in apart)]
        with gr.Row(elem_id="basics"):
            for one in plain:
                self.fields[one.name] = self._field(one)
            self.fields["seed"] = words(
                gr.Number(
                    self.knobs["seed"].default, precision=0, elem_id="knob-seed", min_width=96, scale=2
                ),
                label="knob_seed",
            )
            self.dice = gr.Button("⚄", elem_id="dice", size="sm", min_width=40, scale=0)
        self.roll = words(gr.Checkbox(True, elem_id="roll", container=False), label="roll")
        rest = [one for one in self.knobs.values() if one.name not in self.fields]
        from_picture = [one for one in rest if one.name in PICTURE_KNOBS]
        self.from_picture = words(gr.Accordion(open=False, elem_id="from-picture"), label="picture_prompt")
        with self.from_picture:
            for one in from_picture:
                self.fields[one.name] = self._field(one)
        advanced = [one for one in rest if one.name not in PICTURE_KNOBS]
        if advanced:
            with words(gr.Accordion(open=False, elem_id="advanced"), label="advanced"):
                for one in advanced:
                    self.fields[one.name] = self._field(one)
        self.drop = words(
            gr.File(file_types=[".png"], elem_id="drop", height=72, show_label=True, container=True),
            label="drop",
        )

    def _field(self, one: Knob) -> Any:
        return field(self.shell, one, pipeline=self.pipeline)

    # ----------------------------------------------------------------------------------------------------- wiring

    def connect(self, tab_itself: gr.Tab) -> None:
        """Which event calls what. Everything answers at once: work happens in the lane."""
        shell, form = self.shell, list(self.fields.values())
        view = [
            self.stage,
            self.sheet,
            self.earlier,
            self.announce,
            self.stop,
            self.seen,
            self.timer,
            shell.lane_line,
        ]
        watched = [shell.job, shell.visitor, self.seen]
        submitted = [shell.job, self.fields["seed"], self.note]

        pressed = gr.on(
            [self.go.click, self.fields["prompt"].submit],
            self.submit,
            [shell.job, shell.visitor, self.roll, *form],
            submitted,
            trigger_mode="once",
            preprocess=False,  # Gradio would open the picture; the lane does, and says in a sentence why it cannot
            **QUIET,
        )
        shell.answered(pressed, self.beat, shell.job)
        shell.answered(self.stop.click(self.stop_job, [shell.job], None, **QUIET), self.beat)
        # the tab's selection: what was missing may be here by now
        shell.watch(self.watch, watched, view, self.beat.change, self.timer.tick, tab_itself.select)

        prompt = self.fields["prompt"]
        shell.watch(self.read, [prompt], [self.reading], prompt.change)
        self.chips.click(self.take_chip, None, [self.fields["prompt"]], **QUIET)
        self.dice.click(
            None, None, [self.fields["seed"], self.roll], js="() => [window.atelier.roll(), false]", **QUIET
        )
        self.fields["seed"].input(None, None, [self.roll], js="() => false", **QUIET)

        filled = [*form, self.roll, self.note, shell.job, self.from_picture]
        press = {
            "fn": None,
            "inputs": [self.run_now],
            "js": "(now) => { if (now) document.querySelector('#go').click() }",
        }
        for place in (self.stage, self.sheet, self.earlier):
            acted = place.click(
                self.act,
                [shell.visitor],
                [*filled, self.run_now],
                trigger_mode="multiple",
                **QUIET,
            )
            shell.answered(acted, self.beat, shell.job).then(**press, **QUIET)
        self.drop.upload(self.load_file, [self.drop], [*filled, self.run_now, self.drop], **QUIET)
        shell.hand.change(self.take, [shell.hand], [*filled, self.run_now, shell.hand], **QUIET)

        for place in (self.stage, self.sheet):
            place.click(shell.hand_over, None, [shell.hand, shell.tabs], **QUIET)
        arrived = [shell.job, *view, *form, self.roll, self.note]
        shell.arrivals.append((self.arrive, [*watched, shell.link], arrived, self.beat))

    # ---------------------------------------------------------------------------------------------------- answers

    def arrive(self, job_id: str, visitor: str, seen: str, link: str) -> list[Any]:
        """The first look: the job of the address or of the last visit with its settings, or the empty stage.

        A link that carries a recipe fills the form and runs nothing.
        """
        try:
            if recipe := self.shell.recipe(link, *DRAWING):
                settings = recipe.settings.to_dict()
                shared = settings if recipe.pipeline == self.pipeline else self._shared(settings)
                return ["", *self.watch("", visitor, ""), *self._form(shared), False, opened(recipe)]
            note = ""
        except BadInput as problem:
            note = stage.trouble(str(problem))
        job = self._job(job_id)
        if job is None and self._pipeline_of(job_id):  # another tab's: here is shown what was made here last
            job = next((one for one in self._jobs(visitor) if self._job(one.id)), None)
        form = self._form(job.settings) if job else [gr.skip()] * len(self.fields)
        job_id = job.id if job else job_id
        return [job_id, *self.watch(job_id, visitor, ""), *form, gr.skip(), note]

    def submit(self, job: str, visitor: str, roll: bool, *values: Any) -> tuple[Any, Any, Any]:
        """Queue a run of what the form says: the job's id, the seed it got, and a note when it cannot be."""
        settings = dict(zip(self.fields, values, strict=True))
        if roll:
            settings["seed"] = random.SystemRandom().randrange(2**32)
        plain = {name: plain_value(self.knobs[name], value) for name, value in settings.items()}
        try:
            return self.lane.submit(self.pipeline, plain, visitor), settings["seed"], ""
        except (BadInput, CannotSave) as problem:
            return gr.skip(), gr.skip(), stage.trouble(str(problem))

    def watch(self, job_id: str, visitor: str, seen: str) -> list[Any]:
        """What changed since `seen` for all that shows a job; the timer runs while the job is not over."""
        order = self.lane.queue()
        waiting = len(order)
        job = self._job(job_id)
        if job is None:
            return [
                self._empty(), "", self._earlier(visitor, ""), "", gr.update(visible=False), "",
                gr.Timer(active=False), stage.lane_line(waiting > 0, waiting),
            ]  # fmt: skip
        over = job.is_over
        previews = None if job.state == "done" else self.lane.preview(job.id)
        now = f"{job.id}|{job.state}|{job.stage}|{job.done}|{job.position}|{job.preview_version}|{len(job.pictures)}"
        if now == seen:
            return [gr.skip()] * 8
        new_state = now.split("|")[:2] != seen.split("|")[:2]
        return [
            stage.stage(job, self.pictures, previews),
            stage.sheet(job, self.pictures) if new_state else gr.skip(),
            self._earlier(visitor, job.id) if new_state else gr.skip(),
            stage.announcement(job) if new_state else gr.skip(),
            gr.update(visible=not over) if new_state else gr.skip(),
            now,
            gr.Timer(active=not over) if new_state else gr.skip(),
            stage.lane_line(not over or waiting > 0, waiting),
        ]

    def _job(self, job_id: str) -> Job | None:
        """The job, unless it is not known here, another tab's, or has no pictures left to show."""
        if self._pipeline_of(job_id) != self.pipeline:
            return None
        job = self.lane.job(job_id)
        return None if job.state == "done" and not job.pictures else job

    def _pipeline_of(self, job_id: str) -> str:
        try:
            return self.lane.job(job_id).pipeline if job_id else ""
        except BadInput:
            return ""

    def _jobs(self, visitor: str) -> list[Job]:
        """The visitor's last runs of this tab, newest first."""
        found = (
            [one for one in self.lane.jobs(visitor, 48) if one.pipeline == self.pipeline] if visitor else []
        )
        return [one for one in found if one.state != "done" or one.pictures][:12]

    def _empty(self) -> str:
        if gone := self.shell.missing(self.pipeline):
            return stage.missing(self.shell.studio.pack, gone)
        return stage.empty(self.knobs["candidates"].default, self.knobs["keep"].default, self.pictures)

    def _earlier(self, visitor: str, current: str) -> str:
        return stage.earlier(self._jobs(visitor), self.pictures, current)

    def stop_job(self, job_id: str) -> None:
        """Stop the job that is looked at; the next look shows what was kept."""
        with suppress(BadInput):  # it is not known here any more
            self.lane.stop(job_id)

    @aside
    def read(self, prompt: str) -> str:
        """How the model reads the prompt."""
        if not prompt.strip():
            return stage.reading(None)
        try:
            return stage.reading(
                self.shell.studio.pipeline(self.pipeline).read_prompt(" ".join(prompt[:2000].split()))
            )
        except (
            BadInput,
            AttributeError,
        ):  # weights are missing, or the pipeline has no reader: the stage says it
            return stage.reading(None)

    def take_chip(self, event: gr.EventData) -> str:
        """The prompt of the example that was clicked."""
        return str(event._data.get("prompt", ""))[:200]

    # ------------------------------------------------------------------------------------- filling in the form

    def act(self, visitor: str, event: gr.EventData) -> list[Any]:
        """A button on a picture: fill the form from its record, and run at once where that is meant."""
        told = {key: str(value) for key, value in (event._data or {}).items()}
        try:
            return self._act(told.get("act", ""), told, visitor)
        except (BadInput, CannotSave, ValueError) as problem:
            return self._filled(note=stage.trouble(str(problem)))

    def _act(self, act: str, told: dict[str, str], visitor: str) -> list[Any]:
        if act in ("optimize", "edit"):  # the other tabs'
            return self._filled()
        if act == "open":
            return self._filled(job=told.get("job", ""))
        if act == "again":
            return self._filled(job=self.lane.resume(told.get("job", "")))
        if act == "seed":
            seed = int(told["seed"])
            return self._filled({"seed": seed}, roll=False, note=stage.plain("seed_set", seed=seed))
        path = self.pictures.path(told.get("name", ""), example=act == "example")
        record = read_record(path, self.lane.pipelines)
        settings = dict(record.settings)
        if record.pipeline != self.pipeline:  # an example that another model drew
            return self._borrowed(record)
        if act == "remix":
            settings.pop("seed", None)
            return self._filled(settings, roll=True, note=stage.plain("remixed"))
        if act == "redraw":  # beside the form, which stays as it is
            alone = {"seed": record.picture["seed"], "candidates": 1, "keep": 1}
            return self._filled(job=self.lane.submit(self.pipeline, {**settings, **alone}, visitor))
        if act in ("vary", "complete"):
            rows = int(told.get("rows", 0)) if act == "complete" else 0
            start = {"image": path, "keep_rows": rows, "mask": ""}
            start |= {one: self.knobs[one].default for one in ("likeness", "strength") if one in self.knobs}
            wanted = {**settings, **start}
            wanted.pop("seed", None)
            return self._filled(wanted, roll=True, note=stage.plain("from_picture"), run_now=True)
        return self._filled(settings, roll=False, note=stage.plain("loaded_again"))

    def load_file(self, path: str | None) -> list[Any]:
        """The settings inside a dropped PNG into the form, or one sentence on why not."""
        if not path:
            return [*self._filled(), None]
        try:
            return [*self._from_file(path), None]
        except BadInput as problem:
            return [*self._filled(note=stage.trouble(str(problem))), None]

    def _from_file(self, path: str) -> list[Any]:
        try:
            record = read_record(path, self.lane.pipelines)
        except BadInput as problem:
            if "no record" not in str(problem):
                raise
            try:
                found = read_parameters(path)  # another studio's picture
            except BadInput:
                raise problem from None
            if not found:
                raise
            return self._filled(found, roll="seed" not in found, note=stage.plain("loaded_foreign"))
        if record.pipeline != self.pipeline:
            return self._borrowed(record)
        prompt, seed = record.settings.get("prompt", ""), record.settings.get("seed", 0)
        return self._filled(record.settings, roll=False, note=stage.plain("loaded", prompt=prompt, seed=seed))

    def take(self, hand: str) -> list[Any]:
        """The settings of a picture that another tab asked for, when this tab is meant."""
        tab, _, name = hand.partition(":settings:")
        if tab != "generate":
            return [*self._filled(), gr.skip()]
        try:
            record = read_record(self.pictures.path(name), self.lane.pipelines)
            if record.pipeline != self.pipeline:
                return [*self._borrowed(record), ""]
            return [*self._filled(record.settings, roll=False, note=stage.plain("loaded_again")), ""]
        except BadInput as problem:
            return [*self._filled(note=stage.trouble(str(problem))), ""]

    def _borrowed(self, record: Record) -> list[Any]:
        """What may be taken from a record of another pipeline into the form, and a note that says so."""
        if record.pipeline not in DRAWING:
            return self._filled(note=stage.plain("other_pipeline", pipeline=record.pipeline))
        return self._filled(self._shared(record.settings), roll=False, note=stage.plain("loaded_other"))

    def _shared(self, settings: dict[str, Any]) -> dict[str, Any]:
        """What the two of DRAWING have in common."""
        return {name: settings[name] for name in SHARED if name in settings}

    def _filled(
        self,
        settings: dict[str, Any] | None = None,
        *,
        roll: bool | None = None,
        note: str | None = None,
        job: str | None = None,
        run_now: bool = False,
    ) -> list[Any]:
        """Outputs for the form, the seed's checkbox, the note, the job, the fold and whether to press Generate."""
        settings = settings or {}
        rest = [gr.skip() if one is None else one for one in (roll, note, job)]
        fold = gr.update(open=True) if settings.get("image") else gr.skip()
        return [*self._form(settings), *rest, fold, str(random.random()) if run_now else ""]

    def _form(self, settings: dict[str, Any]) -> list[Any]:
        """A value for each component of the form; what the settings do not name stays as it is."""
        values: list[Any] = []
        for name in self.fields:
            if name not in settings:
                values.append(gr.skip())
            elif self.knobs[name].kind == "picture":
                values.append(open_picture(settings[name]) if settings[name] else None)
            else:
                values.append(settings[name])
        return values


def _chips() -> str:
    """Prompts to click, in the language of the page."""
    chip = '<button type="button" data-act="chip" data-prompt="{0}">{0}</button>'
    return (
        '<div class="chips">'
        + "".join(pair(*(chip.format(one) for one in both)) for both in EXAMPLES)
        + "</div>"
    )
