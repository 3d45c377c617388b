"""The Edit tab: a picture changed from one text to another, the strengths side by side, the direction kept for later.

The form is HTML (html/edit.py), which the script of the page reads and fills: every event brings it along as JSON. The
page only watches; the lane does the work, and what a run learned is in its journal.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

from app.jobs.queue import MAX_PICTURE_BYTES, Job, explain
from app.jobs.threads import aside
from app.ui.context import QUIET, Shell, acting
from app.ui.html import edit as proof
from app.ui.html import generate as stage
from app.ui.html import optimize as plate
from app.ui.html.optimize import Trace
from app.ui.i18n import both
from app.ui.link import opened
from app.ui.tabs.generate import DRAWING
from pipelines.core.journal import Journal
from pipelines.core.record import read_record
from pipelines.edit.directions import read_direction
from pipelines.errors import BadInput, CannotSave
from pipelines.io.images import open_picture, picture_to_uri, read_bytes

PIPELINE = "edit"
WATCH_SECONDS = 0.3  # between two looks at a running job
BASICS = ("strip", "seed", "automatic_mask")
HIDDEN = (
    "until",
    "examples",
    "lessons",
)  # what the artist does decides the first; files of this machine are no texts
KINDS = [".png", ".jpg", ".jpeg", ".webp", ".safetensors"]

log = logging.getLogger(__name__)
_looking = threading.Lock()  # one outlook at a time: it shares the device with the lane


def build(shell: Shell, tab_itself: gr.Tab) -> None:
    """The tab's components and what they do."""
    tab = _Tab(shell)
    with gr.Row(elem_id="darkroom", equal_height=False):
        with gr.Column(elem_id="proof-side", scale=7, min_width=300):
            tab.stage = acting(elem_id="proof", script="window.atelier.proof(element);")
            tab.brush = gr.HTML(plate.brush(), elem_id="edit-brush", apply_default_css=False)
            tab.learning = acting(elem_id="edit-learning", script="window.atelier.learning(element);")
        with gr.Column(elem_id="edit-side", scale=5, min_width=300):
            tab.form = acting(
                proof.form(tab.knobs, BASICS),
                elem_id="edit-form",
                script="window.atelier.form(element, () => trigger('click', {act: 'look'}));",
            )
            tab.outlook = gr.HTML(proof.waiting(), elem_id="edit-outlook", apply_default_css=False)
            tab.transport = acting(proof.transport(None), elem_id="edit-transport")
            tab.note = gr.HTML(elem_id="edit-note", apply_default_css=False)
            tab.shelf = acting(elem_id="edit-shelf")
    tab.earlier = acting(elem_id="edit-earlier")
    tab.upload = gr.UploadButton("", file_types=KINDS, elem_id="edit-upload")
    tab.job, tab.seen, tab.beat = (gr.Textbox(visible=False) for _ in range(3))
    tab.timer = gr.Timer(WATCH_SECONDS, active=False)
    tab.connect(tab_itself)


class _Tab:
    """The components of one page's tab and the functions behind them. Holds nothing of a visitor's."""

    stage: Any
    brush: Any
    learning: Any
    form: Any
    outlook: Any
    transport: Any
    note: Any
    shelf: Any
    earlier: Any
    upload: Any
    job: Any
    seen: Any
    beat: Any
    timer: Any

    def __init__(self, shell: Shell):
        self.shell, self.lane, self.pictures = shell, shell.lane, shell.pictures
        self.kept = shell.shelf
        self.Settings: Any = shell.lane.pipelines[PIPELINE].Settings
        self.knobs = {one.name: one for one in self.Settings.knobs() if one.name not in HIDDEN}

    def connect(self, tab_itself: gr.Tab) -> None:
        """Which event calls what. The form comes from the script, as the last but one argument."""
        shell = self.shell
        view = [
            self.stage,
            self.transport,
            self.learning,
            self.earlier,
            self.seen,
            self.timer,
            shell.lane_line,
        ]
        watched = [self.job, shell.visitor, self.seen]
        told = [self.job, shell.visitor, self.upload, shell.filling]
        reads = "(job, visitor, upload) => [job, visitor, upload, window.atelier.values()]"
        answered = [self.job, self.note, shell.filling, self.stage, self.learning, self.seen, self.shelf]
        for place in (self.transport, self.stage, self.learning, self.earlier):
            acted = place.click(
                self.act,
                told,
                answered,
                js=reads,
                trigger_mode="multiple" if place is self.earlier else "once",
                preprocess=False,  # Gradio would open the files; the lane does, and says why it cannot
                **QUIET,
            )
            shell.answered(acted, self.beat, self.job)
        self.stage.click(shell.hand_over, None, [shell.hand, shell.tabs], **QUIET)
        # the tab's selection: what was missing may be here by now
        shell.watch(self.watch, watched, view, self.beat.change, self.timer.tick, tab_itself.select)
        self.upload.upload(self.lay, told, answered, js=reads, preprocess=False, **QUIET)
        shell.filling.change(
            None, [shell.filling], None, js="(given) => { window.atelier.fill(given) }", **QUIET
        )
        shell.watch(
            self.look, told, [self.outlook], self.form.click, tab_itself.select, js=reads, preprocess=False
        )
        shell.hand.change(self.take, [shell.hand, self.job], [shell.hand, *answered], **QUIET)
        shell.arrivals.insert(
            0,
            (
                self.arrive,
                [shell.job, shell.visitor, shell.link],
                [self.job, shell.filling, self.shelf, *view, shell.tabs, self.note],
                self.beat,
            ),
        )

    # ----------------------------------------------------------------------------------------------------- looking

    def arrive(self, address: str, visitor: str, link: str) -> list[Any]:
        """The first look: the link's recipe, the run of the address, else the visitor's last one, else nothing yet."""
        shelf = proof.shelf(self.kept.kept(), {})
        with suppress(BadInput):  # Generate says it
            if recipe := self.shell.recipe(link, PIPELINE):
                values = _values(**self._known(recipe.settings.to_dict()), source_of="")
                tab = gr.Tabs(selected=PIPELINE)
                return ["", values, shelf, *self.watch("", visitor, ""), tab, opened(recipe)]
        job = stage.job_of(self.lane, PIPELINE, address)
        tab = gr.Tabs(selected=PIPELINE) if job else gr.skip()
        job = job or next(iter(stage.jobs_of(self.lane, PIPELINE, visitor)), None)
        values = self._filling(job) if job else gr.skip()
        job_id = job.id if job else ""
        return [job_id, values, shelf, *self.watch(job_id, visitor, ""), tab, gr.skip()]

    def watch(self, job_id: str, visitor: str, seen: str) -> list[Any]:
        """What changed since `seen` for all that shows a run; the timer runs while the run is not over."""
        waiting = len(self.lane.queue())
        job = stage.job_of(self.lane, PIPELINE, job_id)
        if job is None:
            rest = (gr.Timer(active=False), stage.lane_line(waiting > 0, waiting))
            if seen in ("empty", "ready"):  # what lies there stays there
                return [gr.skip(), proof.transport(None), *[gr.skip()] * 3, *rest]
            earlier = stage.earlier(stage.jobs_of(self.lane, PIPELINE, visitor), self.pictures, "")
            lies = "missing" if self.shell.missing(PIPELINE) else "empty"
            return [self._empty(), proof.transport(None), "", earlier, lies, *rest]
        over = job.is_over
        live = None if job.pictures else self.lane.preview(job.id)
        trace = self._trace(job)
        facts = (len(job.pictures), len(trace.curve), job.stage, job.done, job.position, job.preview_version)
        now = "|".join(map(str, (job.id, job.state, *facts)))
        if now == seen:
            return [gr.skip()] * 7
        parts, before = now.split("|"), seen.split("|")
        new_state = parts[:3] != before[:3]
        return [
            proof.show(job, self.pictures, live, trace),
            proof.transport(job) if new_state else gr.skip(),
            proof.learning(job, trace) if parts[:4] != before[:4] else gr.skip(),
            stage.earlier(stage.jobs_of(self.lane, PIPELINE, visitor), self.pictures, job.id)
            if new_state
            else gr.skip(),
            now,
            gr.Timer(active=not over) if new_state else gr.skip(),
            stage.lane_line(not over or waiting > 0, waiting),
        ]

    def _trace(self, job: Job) -> Trace:
        """How the learning went: as the finished pictures say, else as the journal and the present step do."""
        steps = tuple(self.lane.journal(job.id).steps())
        curve: tuple[Any, ...] = ()
        if job.pictures:
            curve = tuple(tuple(row) for row in job.pictures[0].get("curves") or [])
        elif steps:
            curve = _curves(self.lane.folder / "runs" / job.id, steps[-1])
        if job.state == "running" and job.stage == "learn" and {"clip", "critic"} <= job.metrics.keys():
            now = (job.done, job.metrics["clip"], job.metrics["critic"])
            if not curve or curve[-1][1:] != now[1:]:
                curve = (*(row for row in curve if row[0] < now[0]), now)
        return Trace(steps, curve)

    def _empty(self) -> str:
        if gone := self.shell.missing(PIPELINE):
            return stage.missing(self.shell.studio.pack, gone)
        return proof.empty(self.pictures)

    @aside
    def look(self, job_id: str, visitor: str, upload: Any, values: str) -> str:
        """What to expect of a run with this form; a sentence when it would be refused."""
        try:
            settings = self.Settings.from_dict(self._plain(_read(values), upload))
            with _looking:
                pipeline: Any = self.lane.studio.pipeline(PIPELINE)
                found = pipeline.check(settings)
            levels = pipeline.unet.alphas_cumprod
            survives = float(levels[found.return_step]) ** 0.5
            return proof.outlook(found, settings, survives)
        except (BadInput, CannotSave) as problem:
            return stage.trouble(str(problem))
        except Exception as problem:  # a figure less is no reason to stop the artist
            log.exception("the outlook failed")
            return stage.trouble(explain(problem))

    # ------------------------------------------------------------------------------------------------------- acting

    def act(self, job_id: str, visitor: str, upload: Any, values: str, event: gr.EventData) -> list[Any]:
        """A button of the stage, the learning, the transport or the last runs."""
        told = {key: str(value) for key, value in (event._data or {}).items()}
        try:
            return self._act(told.get("act", ""), told, job_id, visitor, upload, _read(values))
        except (BadInput, CannotSave, ValueError) as problem:
            return _answer(note=stage.trouble(str(problem)))

    def _act(
        self, act: str, told: dict[str, str], job_id: str, visitor: str, upload: Any, form: dict[str, Any]
    ) -> list[Any]:
        if act == PIPELINE:
            return _answer(job=self.lane.submit(PIPELINE, self._plain(form, upload), visitor), note="")
        if act == "open":
            job = self.lane.job(told.get("job", ""))
            return _answer(job=job.id, note="", values=self._filling(job))
        if act in ("begin", "begin-with"):
            kind = "example" if act == "begin" else "picture"
            return self._laid(f"{kind}:{told.get('name', '')}", upload)
        if act == "remove":
            return _answer(
                job="", note="", values=_values(source_of="", mask=""), place=self._empty(), seen="empty"
            )
        if not job_id:
            return _answer()
        if act == "stop":
            self.lane.stop(job_id)
            return _answer(note="")
        if act == "resume":
            return _answer(job=self.lane.resume(job_id), note="")
        if act == "keep":
            pipeline: Any = self.lane.studio.pipeline(PIPELINE)
            direction = aside(pipeline.direction)(self._prepared(job_id), self.lane.journal(job_id))
            name = self.kept.keep(direction)
            note = (
                f'<p class="note">{both("edit_kept_it", words=direction.words)} '
                f'<a href="direction/{name}" download="{name}">{both("save")}</a></p>'
            )
            return _answer(note=note, shelf=proof.shelf(self.kept.kept(), _uses(form)))
        if act == "until":
            step = int(told["step"])
            settings = replace(self._prepared(job_id), until=step)
            return _answer(job=self.lane.submit(PIPELINE, settings, visitor, after=(job_id, step)), note="")
        return _answer()

    def _prepared(self, job_id: str) -> Any:
        """The settings that a run's journal was begun with."""
        identity = self.lane.journal(job_id).identity()
        if identity is None:
            raise BadInput("this run has learned nothing yet")
        return self.Settings.from_dict(identity["settings"])

    # ------------------------------------------------------------------------------------------------ the form's values

    def _plain(self, form: dict[str, Any], upload: Any) -> dict[str, Any]:
        """The form as Settings take it. The visitor's texts may name no files of this machine."""
        plain: dict[str, Any] = {}
        for name, one in self.knobs.items():
            value = form.get(name)
            plain[name] = one.default if value is None else value
        plain["image"] = self._source(str(form.get("source_of") or ""), upload)
        plain["mask"], plain["directions"] = "", ""
        if uses := _uses(form):
            plain["directions"], plain["source"], plain["prompt"] = self.kept.setting(uses)
        if mask := str(form.get("mask") or ""):
            if not mask.startswith("data:image/png;base64,"):
                raise BadInput("the mask was not painted on this page; paint it again")
            if plain["image"]:
                plain["mask"] = _fitted(mask, plain["image"])
        return plain

    def _source(self, source: str, upload: Any) -> str:
        """The picture that the form names: what was uploaded, a file of the studio's, or what a run was given."""
        kind, _, name = source.partition(":")
        if kind == "upload":
            return upload.get("path") or "" if isinstance(upload, dict) else getattr(upload, "path", "")
        if kind == "job":
            return str(self.lane.job(name).settings.get("image", ""))
        if kind == "record":  # what a picture of ours was made from
            return str(read_record(self.pictures.path(name), self.lane.pipelines).settings.get("image", ""))
        if kind in ("example", "picture"):
            return str(self.pictures.path(name, example=kind == "example"))
        return ""

    def _filling(self, job: Job) -> str:
        """The form as a run's settings say."""
        source = f"job:{job.id}" if job.settings.get("image") else ""
        return _values(**self._known(job.settings), source_of=source)

    def _known(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Those of a run's settings that the form has fields for."""
        kept = [one for one in self.knobs if one not in ("image", "directions")]
        return {one: settings[one] for one in kept if one in settings}

    # --------------------------------------------------------------------------------------------- pictures to edit

    def lay(self, job_id: str, visitor: str, upload: Any, values: str) -> list[Any]:
        """A file that was dropped, pasted or chosen: a picture to edit, or a direction for the shelf."""
        try:
            path = self._source("upload", upload)
            if path.lower().endswith(".safetensors"):
                direction = read_direction(path)
                name = self.kept.keep(direction)
                uses = {**_uses(_read(values)), name: 1.0}
                note = stage.plain("edit_shelved", words=direction.words)
                return _answer(note=note, shelf=proof.shelf(self.kept.kept(), uses), values=_values())
            read_bytes(path, max_bytes=MAX_PICTURE_BYTES)
            return self._laid("upload", upload, job_id)
        except (BadInput, CannotSave, ValueError) as problem:
            return _answer(note=stage.trouble(str(problem)))

    def _laid(self, source: str, upload: Any, job_id: str = "") -> list[Any]:
        """The picture to edit lies there; while a run is watched it waits."""
        picture = open_picture(self._source(source, upload))
        values = _values(source_of=source, mask="", crop="")
        if (job := stage.job_of(self.lane, PIPELINE, job_id)) is not None and not job.is_over:
            return _answer(note=stage.plain("edit_next"), values=values)
        return _answer(job="", note="", values=values, place=proof.ready(picture), learning="", seen="ready")

    def take(self, wanted: str, job_id: str) -> list[Any]:
        """A picture that another tab hands over: to edit, or for its settings."""
        tab, _, rest = wanted.partition(":")
        kind, _, name = rest.partition(":")
        if tab != PIPELINE:
            return [gr.skip(), *_answer()]
        try:
            path = self.pictures.path(name)
            source = f"picture:{name}"
            if kind == "settings":
                settings = read_record(path, self.lane.pipelines).settings
                known = self._known(settings)
                given = f"record:{name}" if settings.get("image") else ""
                answer = self._laid(given, None, job_id) if given else _answer()
                answer[1:3] = [stage.plain("loaded_again"), _values(**known, source_of=given)]
                return ["", *answer]
            answer = self._laid(source, None, job_id)
            try:  # what it shows is what it was drawn from
                record = read_record(path, self.lane.pipelines)
                words = {"source": record.settings["prompt"]} if record.pipeline in DRAWING else {}
            except (BadInput, KeyError):
                words = {}
            answer[2] = _values(**{**json.loads(answer[2]), **words})
            return ["", *answer]
        except (BadInput, CannotSave) as problem:
            return ["", *_answer(note=stage.trouble(str(problem)))]


def _answer(
    *,
    job: str | None = None,
    note: str | None = None,
    values: str | None = None,
    place: str | None = None,
    learning: str | None = None,
    seen: str | None = None,
    shelf: str | None = None,
) -> list[Any]:
    """Outputs for the job, the note, the form, the stage, the learning, what was seen, and the shelf."""
    if job == "":
        learning = ""
    return [gr.skip() if one is None else one for one in (job, note, values, place, learning, seen, shelf)]


def _values(**values: Any) -> str:
    """What the script fills into the form; never the same text twice, so that it is filled in each time."""
    return json.dumps({**values, "nonce": secrets.token_hex(4)})


def _read(values: str) -> dict[str, Any]:
    """The form as the script tells it."""
    try:
        found = json.loads(values or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BadInput("the form could not be read; reload the page")
    return found


def _uses(form: dict[str, Any]) -> dict[str, float]:
    """The directions that are ticked, each with its strength."""
    found = form.get("uses")
    if not isinstance(found, dict):
        return {}
    return {str(name): float(value) for name, value in found.items() if isinstance(value, (int, float))}


def _fitted(mask: str, image: str) -> str:
    """The painted mask in the size of the picture."""
    size = open_picture(image).size
    picture = open_picture(mask).convert("L")
    return mask if picture.size == size else picture_to_uri(picture.resize(size).convert("RGB"))


@lru_cache(maxsize=64)
def _curves(folder: Path, step: int) -> tuple[tuple[float, ...], ...]:
    """Both judges up to a snapshot, which does not change any more."""
    try:
        return tuple(tuple(row) for row in Journal(folder).facts(step).get("curves", []))
    except BadInput:
        return ()
