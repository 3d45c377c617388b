"""The Optimize tab: a picture that grows, played like an instrument.

The page only steers: pausing is the lane's stop, which keeps the pictures; resuming, stepping back and every change in
mid-run go on from a snapshot of the run's journal, in the same job when nothing changed and in a new one (a fork) when
something did. Form, timeline and canvas hold nothing on the server.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from app.jobs.queue import Job
from app.ui.components import field, plain_value
from app.ui.context import QUIET, Shell, acting
from app.ui.html import generate as stage
from app.ui.html import optimize as plate
from app.ui.html.optimize import Trace
from app.ui.i18n import pair
from app.ui.link import opened
from pipelines.core.journal import Journal
from pipelines.core.record import read_record
from pipelines.errors import BadInput, CannotSave
from pipelines.io.images import open_picture, picture_to_uri
from pipelines.optimize.prompts import SIDES, parse_regions, parse_targets
from pipelines.optimize.settings import FIXED

PIPELINE = "optimize"
WATCH_SECONDS = 0.3  # between two looks at a running job
STOP_SECONDS = 60.0  # that a change waits for the step that is being made
HAND_OVER_STEPS = 30  # a draft needs few
BASICS = ("steps", "size", "seed")
HIDDEN = ("tokens", "changes", "until")  # what the artist does decides them
EXAMPLES = (
    ("a red heart | gold:0.5", "红色的心 | 金色:0.5"),
    ("cat face | smiling:0.5", "猫脸 | 微笑:0.5"),
    ("a green apple ^ a red apple", "绿苹果 ^ 红苹果"),
    ("rocket | night sky:0.4 | blur:-0.3", "火箭 | 夜空:0.4 | 模糊:-0.3"),
)


def build(shell: Shell, tab_itself: gr.Tab) -> None:
    """The tab's components and what they do."""
    tab = _Tab(shell)
    with gr.Row(elem_id="workbench", equal_height=False):
        with gr.Column(elem_id="plate-side", scale=7, min_width=300):
            tab.canvas = acting(elem_id="canvas", script="window.atelier.canvas(element);")
            tab.brush = gr.HTML(plate.brush(), elem_id="brush", apply_default_css=False)
            tab.timeline = acting(elem_id="timeline", script="window.atelier.timeline(element);")
        with gr.Column(elem_id="instrument", scale=5, min_width=300):
            tab.compose()
    tab.earlier = acting(elem_id="opt-earlier")
    tab.announce = gr.HTML(elem_id="opt-announce", apply_default_css=False)
    tab.connect(tab_itself)


class _Tab:
    """The components of one page's tab and the functions behind them. Holds nothing of a visitor's."""

    canvas: Any
    brush: Any
    timeline: Any
    earlier: Any
    announce: Any

    def __init__(self, shell: Shell):
        self.shell, self.lane, self.pictures = shell, shell.lane, shell.pictures
        self.Settings: Any = shell.lane.pipelines[PIPELINE].Settings
        self.knobs = {one.name: one for one in self.Settings.knobs() if one.name not in HIDDEN}
        self.fields: dict[str, Any] = {}  # name of a setting -> its component

    # --------------------------------------------------------------------------------------------------- the form

    def compose(self) -> None:
        """The right column: prompt and its parts, the buttons, start picture, settings."""
        words = self.shell.words
        with gr.Column(elem_id="opt-ask", min_width=200):
            self.fields["prompt"] = words(
                gr.Textbox(lines=1, max_lines=6, elem_id="opt-prompt"),
                label="prompt",
                placeholder="opt_prompt_hint",
            )
            self.rows = gr.HTML(plate.rows(), elem_id="opt-rows", apply_default_css=False)
            self.transport = acting(
                plate.transport(None), elem_id="transport", script="window.atelier.transport(element);"
            )
        self.note = gr.HTML(elem_id="opt-note", apply_default_css=False)
        self.chips = acting(_chips(), elem_id="opt-chips")
        with gr.Row(elem_id="opt-basics"):
            for name in BASICS[:2]:
                self.fields[name] = self._basic(name)
            self.fields["seed"] = self._basic("seed")
            self.dice = gr.Button("⚄", elem_id="opt-dice", size="sm", min_width=40, scale=0)
        self.fields["init"] = field(self.shell, self.knobs["init"], "opt", picture_height=120)
        # the script paints the mask and keeps it here, as a data URI
        self.fields["mask"] = words(gr.Textbox(elem_id="opt-mask", lines=1, max_lines=1), label="knob_mask")
        self.job, self.seen, self.source, self.beat = (gr.Textbox(visible=False) for _ in range(4))
        with words(gr.Accordion(open=False, elem_id="opt-advanced"), label="advanced"):
            for one in self.knobs.values():
                if one.name == "image_prompts":
                    self._look()
                elif one.name not in self.fields:
                    self.fields[one.name] = field(self.shell, one, "opt")
        self.timer = gr.Timer(WATCH_SECONDS, active=False)

    def _basic(self, name: str) -> Any:
        one = self.knobs[name]
        common = {"elem_id": f"opt-{name}", "min_width": 72, "scale": 1}
        if one.type is int:
            return self.shell.words(gr.Number(one.default, precision=0, **common), label=f"knob_{name}")
        component = gr.Textbox(one.default, lines=1, max_lines=1, placeholder="128x128", **common)
        return self.shell.words(component, label=f"knob_{name}")

    def _look(self) -> None:
        """A picture to steer to, and how much: together they are the setting `image_prompts`."""
        component = gr.Image(
            type="filepath",
            format="png",
            image_mode=None,
            sources=["upload", "clipboard"],
            height=120,
            elem_id="opt-image_prompts",
        )
        self.fields["image_prompts"] = self.shell.words(component, label="knob_image_prompts")
        slider = gr.Slider(-2, 2, value=1, step=0.05, elem_id="opt-image_weight", min_width=96)
        self.fields["image_weight"] = self.shell.words(slider, label="opt_image_weight")

    # ----------------------------------------------------------------------------------------------------- wiring

    def connect(self, tab_itself: gr.Tab) -> None:
        """Which event calls what. Everything answers at once: work happens in the lane."""
        shell, form = self.shell, list(self.fields.values())
        view = [
            self.canvas,
            self.transport,
            self.timeline,
            self.earlier,
            self.announce,
            self.seen,
            self.timer,
            shell.lane_line,
        ]
        watched = [self.job, shell.visitor, self.seen]
        filled = [self.job, self.note, self.source, *form]
        for place in (self.transport, self.canvas, self.timeline, self.earlier):
            acted = place.click(
                self.act,
                [self.job, shell.visitor, self.source, *form],
                filled,
                trigger_mode="multiple" if place is self.earlier else "once",
                preprocess=False,  # Gradio would open the pictures; the lane does, and says why it cannot
                **QUIET,
            )
            shell.answered(acted, self.beat, self.job)
        # the tab's selection: what was missing may be here by now
        shell.watch(self.watch, watched, view, self.beat.change, self.timer.tick, tab_itself.select)

        init, lie = (
            self.fields["init"],
            [self.job, self.seen, self.source, self.canvas, self.transport, self.timeline],
        )
        gr.on(
            [init.upload, init.clear],
            self.lay,
            [init, self.job],
            [*lie, self.note],
            preprocess=False,
            **QUIET,
        )
        self.canvas.click(shell.hand_over, None, [shell.hand, shell.tabs], **QUIET)
        self.canvas.click(
            self.begin,
            [self.job],
            [*lie, init, self.fields["steps"], self.fields["mask"], self.note],
            **QUIET,
        )
        shell.hand.change(self.take, [shell.hand, self.job], [shell.hand, *lie, self.note, *form], **QUIET)
        self.fields["prompt"].change(
            None, [self.fields["prompt"]], None, js="(text) => { window.atelier.targets(text) }", **QUIET
        )
        self.fields["mask"].change(
            None, [self.fields["mask"]], None, js="(uri) => { window.atelier.mask(uri) }", **QUIET
        )
        self.chips.click(self.take_chip, None, [self.fields["prompt"]], **QUIET)
        self.dice.click(None, None, [self.fields["seed"]], js="() => window.atelier.roll()", **QUIET)
        # before Generate's own arrival, which makes the page's job one of its own
        shell.arrivals.insert(
            0,
            (
                self.arrive,
                [shell.job, shell.visitor, shell.link],
                [self.job, self.source, *view, *form, shell.tabs, self.note],
                self.beat,
            ),
        )

    def take_chip(self, event: gr.EventData) -> str:
        """The prompt of the example that was clicked."""
        return str(event._data.get("prompt", ""))[:200]

    # ----------------------------------------------------------------------------------------------------- looking

    def arrive(self, address: str, visitor: str, link: str) -> list[Any]:
        """The first look: the link's recipe, the run of the address, else the visitor's last one, else nothing yet."""
        with suppress(BadInput):  # Generate says it
            if recipe := self.shell.recipe(link, PIPELINE):
                form = self._form(recipe.settings.to_dict())
                return [
                    "",
                    "",
                    *self.watch("", visitor, ""),
                    *form,
                    gr.Tabs(selected=PIPELINE),
                    opened(recipe),
                ]
        job = stage.job_of(self.lane, PIPELINE, address)
        tab = gr.Tabs(selected="optimize") if job else gr.skip()
        job = job or next(iter(stage.jobs_of(self.lane, PIPELINE, visitor)), None)
        job_id = job.id if job else ""
        source, form = self._open(job) if job else ("", [gr.skip()] * len(self.fields))
        return [job_id, source, *self.watch(job_id, visitor, ""), *form, tab, gr.skip()]

    def watch(self, job_id: str, visitor: str, seen: str) -> list[Any]:
        """What changed since `seen` for all that shows a run; the timer runs while the run is not over."""
        waiting = len(self.lane.queue())
        job = stage.job_of(self.lane, PIPELINE, job_id)
        if job is None:
            rest = (gr.Timer(active=False), stage.lane_line(waiting > 0, waiting))
            if seen in ("empty", "ready"):  # what lies on the canvas stays there
                return [*[gr.skip()] * 6, *rest]
            earlier = stage.earlier(stage.jobs_of(self.lane, PIPELINE, visitor), self.pictures, "")
            lies = "missing" if self.shell.missing(PIPELINE) else "empty"
            return [self._empty(), plate.transport(None), "", earlier, "", lies, *rest]
        over = job.is_over
        previews = None if over and job.pictures else self.lane.preview(job.id)
        steps = self._steps(job.id)
        mark = steps[-1] if steps else 0
        facts = (len(job.pictures), mark, job.stage, job.done, job.position, job.preview_version)
        now = "|".join(map(str, (job.id, job.state, *facts)))
        if now == seen:
            return [gr.skip()] * 8
        parts, before = now.split("|"), seen.split("|")
        new_state, new_snapshot = parts[:3] != before[:3], parts[:4] != before[:4]
        trace = self._trace(job, steps)
        return [
            plate.canvas(job, self.pictures, previews[0] if previews else None, trace),
            plate.transport(job, steps)
            if new_state or bool(before[3:4] == ["0"]) != (mark == 0)
            else gr.skip(),
            plate.timeline(job, trace, self._settings(job)) if new_snapshot else gr.skip(),
            stage.earlier(stage.jobs_of(self.lane, PIPELINE, visitor), self.pictures, job.id)
            if new_state
            else gr.skip(),
            stage.announcement(job) if new_state else gr.skip(),
            now,
            gr.Timer(active=not over) if new_state else gr.skip(),
            stage.lane_line(not over or waiting > 0, waiting),
        ]

    def _settings(self, job: Job) -> Any:
        return self.Settings.from_dict(job.settings)

    def _steps(self, job_id: str) -> tuple[int, ...]:
        return tuple(self.lane.journal(job_id).steps())

    def _trace(self, job: Job, steps: tuple[int, ...]) -> Trace:
        """The run as its journal tells it; a finished one tells its last judgement itself."""
        if not steps:
            return Trace()
        curve = _curve(self.lane.folder / "runs" / job.id, steps[-1])
        if job.pictures:
            last = tuple(job.pictures[-1].get("curve") or [])[-1:]
            curve = (
                *curve,
                *((int(s), float(a), float(b)) for s, a, b in last if not curve or s > curve[-1][0]),
            )
        return Trace(steps, curve)

    def _empty(self) -> str:
        if gone := self.shell.missing(PIPELINE):
            return stage.missing(self.shell.studio.pack, gone)
        return plate.empty(self.pictures)

    # ---------------------------------------------------------------------------------------------------- steering

    def act(self, job_id: str, visitor: str, source: str, event: gr.EventData, *values: Any) -> list[Any]:
        """A button of the instrument, the canvas or the timeline."""
        told = {key: str(value) for key, value in (event._data or {}).items()}
        try:
            return self._act(told.get("act", ""), told, job_id, visitor, source, values)
        except (BadInput, CannotSave, ValueError) as problem:
            return self._answer(note=stage.trouble(str(problem)))

    def _act(
        self, act: str, told: dict[str, str], job_id: str, visitor: str, source: str, values: tuple[Any, ...]
    ) -> list[Any]:
        form = dict(zip(self.fields, values, strict=True))
        if act == "start":
            settings = self._plain(form, source, None)
            return self._answer(job=self.lane.submit(PIPELINE, settings, visitor), note="")
        if act == "open":
            job = self.lane.job(told.get("job", ""))
            source, filled = self._open(job)
            return self._answer(job=job.id, note="", source=source, form=filled)
        if not job_id:
            return self._answer()
        job = self.lane.job(job_id)
        if act in ("pause", "back"):
            if not job.is_over:
                self.lane.stop(job_id)
            return self._answer(note="")
        if act == "more":
            step = self._steps(job_id)[-1]
            form["steps"] = step + plate.MORE
            return self._go_on(job, visitor, form, source, step)
        if act == "fork":
            return self._go_on(job, visitor, form, source, int(told["step"]))
        if act in ("apply", "resume"):
            return self._go_on(job, visitor, form, source, None)
        return self._answer()

    def _go_on(
        self, job: Job, visitor: str, form: dict[str, Any], source: str, step: int | None
    ) -> list[Any]:
        """Go on at a snapshot, the last one when none is named, with what the form says now."""
        settings = self._settings(job)
        steps = self._steps(job.id)
        running = not job.is_over
        at = step if step is not None else max(job.done, steps[-1] if steps else 0)
        changes, fixed = self._changes(settings, form, source, at, job)
        note = stage.plain("opt_fixed", names=", ".join(fixed)) if fixed else ""
        if step is None and not changes:
            if running:
                return self._answer(note=note or stage.plain("opt_unchanged"))
            return self._answer(job=self.lane.resume(job.id), note=note)
        settings.changed(max(at, 1), **changes)  # refused before anything is stopped
        if running:
            job = self._stop(job.id)
        steps = self._steps(job.id)
        if not steps:  # nothing was made yet: begin with the new settings
            return self._answer(
                job=self.lane.submit(PIPELINE, self._plain(form, source, None), visitor), note=""
            )
        step = step if step is not None else steps[-1]
        changed = settings.changed(step, **changes)
        last = changed.timeline()[-1][1].steps
        if step >= last:
            return self._answer(note=stage.plain("opt_beyond", step=step))
        new = self.lane.submit(PIPELINE, changed, visitor, after=(job.id, step))
        updates = [last if name == "steps" else gr.skip() for name in self.fields]
        return self._answer(job=new, note=note, form=updates)

    def _stop(self, job_id: str) -> Job:
        """Stop a run and wait until its last snapshot is written."""
        self.lane.stop(job_id)
        deadline = time.monotonic() + STOP_SECONDS
        while not (job := self.lane.job(job_id)).is_over:
            if time.monotonic() > deadline:
                raise BadInput("the step that is being made takes long; try again in a moment")
            time.sleep(0.03)
        return job

    def _changes(
        self, settings: Any, form: dict[str, Any], source: str, step: int, job: Job
    ) -> tuple[dict[str, Any], list[str]]:
        """What of the form differs from the settings in force at `step`: what can change, and the names of what cannot."""
        now = next(one for when, one in reversed(settings.timeline()) if when <= max(step, 0))
        wanted = self._plain(form, source, job)
        changes: dict[str, Any] = {}
        fixed: list[str] = []
        # checked as a whole, so that numbers and texts compare in the settings' own form
        checked = self.Settings.from_dict(
            {**now.to_dict(), **{k: v for k, v in wanted.items() if k != "init"}}
        )
        for name in wanted:
            old, new = getattr(now, name), getattr(checked, name)
            if name == "init" or old == new or (name == "image_prompts" and _same_look(old, new)):
                continue
            if name in FIXED:
                fixed.append(name)
            else:
                changes[name] = new
        return changes, fixed

    # ------------------------------------------------------------------------------------------------ the form's values

    def _plain(self, form: dict[str, Any], source: str, job: Job | None) -> dict[str, Any]:
        """The form as Settings take it. The visitor's texts may name no files of this machine."""
        own = ("mask", "image_prompts")
        plain = {name: plain_value(one, form[name]) for name, one in self.knobs.items() if name not in own}
        path = _path_of(form["image_prompts"])
        weight = 1.0 if form["image_weight"] is None else float(form["image_weight"])
        plain["image_prompts"] = f"{path}:{weight:g}" if path and weight else ""
        if plain["init"] and source:
            plain["init"] = self._source(source)
        for one in parse_regions(str(plain["regions"])):
            if one.where not in SIDES and not one.where.startswith("data:image/"):
                raise BadInput(f"the region's place {one.where[:40]!r} is not one of {', '.join(SIDES)}")
        plain["mask"] = mask = str(form["mask"] or "")
        if mask and not mask.startswith("data:image/png;base64,"):
            raise BadInput("the mask was not painted on this page; paint it again")
        if mask:
            plain["mask"] = self._fitted(mask, plain, job)
        return plain

    def _source(self, source: str) -> str:
        """The start picture's own file, record inside, when it is one that the studio made."""
        kind, _, name = source.partition(":")
        if kind == "job":
            return str(self.lane.job(name).settings.get("init", ""))
        return str(self.pictures.path(name, example=kind == "example"))

    def _fitted(self, mask: str, plain: dict[str, Any], job: Job | None) -> str:
        """The painted mask in the size of what it was painted on."""
        size = None
        if job is not None and job.settings.get("mask") == mask:
            return mask
        if job is not None and job.pictures:
            with Image.open(job.pictures[-1]["path"]) as picture:
                size = picture.size
        elif job is not None and (previews := self.lane.preview(job.id)):
            size = previews[0].size
        elif plain["size"]:
            sides = [
                int(one)
                for one in str(plain["size"]).lower().replace("×", "x").split("x")
                if one.strip().isdigit()
            ]
            size = (sides[0], sides[1]) if len(sides) == 2 and max(sides) <= 4096 else None
        elif plain["init"]:
            size = open_picture(plain["init"]).size
        picture = open_picture(mask).convert("L")
        if size is None or size == picture.size:
            return mask
        return picture_to_uri(picture.resize(size, Image.Resampling.BILINEAR).convert("RGB"))

    def _open(self, job: Job) -> tuple[str, list[Any]]:
        """The start picture's source and values for the form, as a job's settings say last."""
        settings = self._settings(job).timeline()[-1][1].to_dict()
        return (f"job:{job.id}" if settings.get("init") else ""), self._form(settings)

    def _form(self, settings: dict[str, Any]) -> list[Any]:
        """A value for each component of the form; what the settings do not name stays as it is."""
        values: list[Any] = []
        looks = parse_targets(settings.get("image_prompts") or "")
        for name in self.fields:
            if name == "image_prompts" and name in settings:
                values.append(open_picture(looks[0].text) if looks else None)
            elif name == "image_weight" and "image_prompts" in settings:
                values.append(looks[0].weight if looks else 1)
            elif name not in settings:
                values.append(gr.skip())
            elif name == "init":
                values.append(open_picture(settings[name]) if settings[name] else None)
            else:
                values.append(settings[name])
        return values

    def _answer(
        self,
        *,
        job: str | None = None,
        note: str | None = None,
        source: str | None = None,
        form: list[Any] | None = None,
    ) -> list[Any]:
        """Outputs for the job, the note, the start picture's source and the form."""
        first = [gr.skip() if one is None else one for one in (job, note, source)]
        return [*first, *(form or [gr.skip()] * len(self.fields))]

    # --------------------------------------------------------------------------------------------- pictures to start from

    def lay(self, picture: Any, job_id: str) -> list[Any]:
        """A picture that was dropped lies on the canvas, unless a run is being watched."""
        path = _path_of(picture)
        skip = [gr.skip()] * 7
        job = stage.job_of(self.lane, PIPELINE, job_id)
        if job is not None and not job.is_over:
            return [*skip[:2], "", *skip[3:]]
        if not path:
            return [*skip[:2], "", *skip[3:]] if job else ["", "empty", "", self._empty(), *skip[4:]]
        try:
            return [*self._laid(open_picture(path), ""), ""]
        except BadInput as problem:
            return [*skip[:6], stage.trouble(str(problem))]

    def _laid(self, picture: Image.Image, source: str) -> list[Any]:
        """Outputs for the job, `seen`, the source, canvas, buttons and timeline: a picture to start from."""
        return ["", "ready", source, plate.ready(picture), plate.transport(None), ""]

    def begin(self, job_id: str, event: gr.EventData) -> list[Any]:
        """An example of the empty canvas, or the picture of a run, becomes the start of the next one."""
        told = {key: str(value) for key, value in (event._data or {}).items()}
        if told.get("act") not in ("begin", "begin-with"):
            return [gr.skip()] * 10
        kind = "example" if told["act"] == "begin" else "picture"
        try:
            picture = open_picture(self.pictures.path(told.get("name", ""), example=kind == "example"))
        except BadInput as problem:
            return [*[gr.skip()] * 9, stage.trouble(str(problem))]
        return [
            *self._laid(picture, f"{kind}:{told['name']}"), picture, HAND_OVER_STEPS, "", stage.plain("opt_laid")
        ]  # fmt: skip

    def take(self, wanted: str, job_id: str) -> list[Any]:
        """A picture that another tab hands over: to start from, or for its settings."""
        skip = [gr.skip()] * (8 + len(self.fields))
        tab, _, rest = wanted.partition(":")
        if tab != PIPELINE:
            return skip
        kind, _, name = rest.partition(":")
        try:
            path = self.pictures.path(name)
            if kind == "settings":
                record = read_record(path, self.lane.pipelines)
                settings = self.Settings.from_dict(record.settings).timeline()[-1][1].to_dict()
                form = self._form(settings)
                laid = [gr.skip()] * 6
                if settings["init"]:
                    laid = self._laid(open_picture(settings["init"]), "")
                return ["", *laid, stage.plain("loaded_again"), *form]
            picture = open_picture(path)
            prompt = read_record(path, self.lane.pipelines).settings.get("prompt", "")
        except BadInput as problem:
            if kind == "settings" or "no picture" in str(problem):
                return ["", *[gr.skip()] * 6, stage.trouble(str(problem)), *[gr.skip()] * len(self.fields)]
            picture, prompt = open_picture(self.pictures.path(name)), ""  # a picture without a record
        start: dict[str, Any] = {"steps": HAND_OVER_STEPS, "mask": "", "size": ""}
        start |= {"prompt": prompt} if prompt else {}
        form = [picture if one == "init" else start.get(one, gr.skip()) for one in self.fields]
        return ["", *self._laid(picture, f"picture:{name}"), stage.plain("opt_laid"), *form]


def _path_of(upload: Any) -> str:
    """Where an upload lies, the empty text when there is none. A text of the browser's is no upload."""
    return upload.get("path") or "" if isinstance(upload, dict) else getattr(upload, "path", "")


@lru_cache(maxsize=64)
def _curve(folder: Path, step: int) -> tuple[tuple[int, float, float], ...]:
    """The scores up to a snapshot, which does not change any more."""
    try:
        found = Journal(folder).facts(step).get("curve", [])
    except BadInput:
        return ()
    return tuple((int(at), float(clip), float(critic)) for at, clip, critic in found)


def _same_look(old: str, new: str) -> bool:
    """Whether two lists of picture prompts show the same, in pixels; the form holds at most one."""
    one, two = parse_targets(old), parse_targets(new)
    if len(one) != len(two) or any(a.weight != b.weight for a, b in zip(one, two, strict=True)):
        return False
    pictures = [[open_picture(each.text).convert("RGB") for each in both] for both in (one, two)]
    return all(a.size == b.size and a.tobytes() == b.tobytes() for a, b in zip(*pictures, strict=True))


def _chips() -> str:
    """Prompts to click, in the language of the page."""
    chip = '<button type="button" data-act="chip" data-prompt="{0}">{0}</button>'
    return (
        '<div class="chips">'
        + "".join(pair(*(chip.format(one) for one in both)) for both in EXAMPLES)
        + "</div>"
    )
