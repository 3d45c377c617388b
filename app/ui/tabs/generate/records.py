"""Filling the form of Generate from what pictures say of themselves."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

from app.library import Foreign, foreign_of, foreign_of_text
from app.ui.context import DRAWING, Update
from app.ui.html.common import info_note
from app.ui.html.library import tool_name
from app.ui.tabs.generate.form import GenerateForm
from pipelines.core.record import Record, read_record
from pipelines.core.settings import AUTO, PROMPT_LIMIT
from pipelines.core.several import prompts_in, read_prompts
from pipelines.errors import BadInput
from pipelines.io.formats import picture_format
from pipelines.io.images import read_bytes
from pipelines.io.tables import text_of
from pipelines.io.visible import visible

TEXTS = (".txt", ".csv", ".tsv", ".json", ".jsonl")
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")  # characters that no text has
PROPOSED = ("read_as", "regions")  # settings that a run fills in from its prompt
FROM_PICTURE = (
    "likeness",
    "strength",
    "place",
    "invert",
    *PROPOSED,
)  # settings that go back to their defaults for a variation
BEYOND = {
    "place": "centre",
    "width": None,
    "height": None,
    "candidates": 4,
}  # a canvas twice the picture; few, for time


class Records:
    """What the records of pictures put into a form, and the note that says so."""

    def __init__(self, form: GenerateForm):
        self.form, self.queue = form, form.context.queue

    def act(self, act: str, path: Path, rows: int, visitor: str) -> Update:
        """A button: "remix", "redraw", "layout", "vary", "beyond" a picture's edges, "complete" from `rows` of tokens.

        Any other: its settings again.
        """
        record = read_record(path, self.queue.pipelines)
        if record.pipeline not in self.form.context.engines:  # an example that another model drew
            return self._borrowed(record)
        settings = dict(record.settings)
        if act == "redraw":
            return self._redrawn(record, {}, visitor)
        if act == "layout":
            known = "" if settings.get("read_as") == AUTO[0] else settings.get("read_as")
            drawn = settings.get("source_prompt") or known or settings["prompt"]
            settings |= {"source_prompt": drawn, **dict.fromkeys(PROPOSED, AUTO[0])}
            settings |= {"seed": record.picture["seed"], "style": record.picture.get("style", "")}
            return self._filled(record.pipeline, settings, False, info_note("layout_kept"))
        if act not in ("remix", "vary", "beyond", "complete"):
            return self._filled(record.pipeline, settings, False, info_note("loaded_again"))
        settings.pop("seed", None)
        if act == "remix":
            return self._filled(record.pipeline, settings, True, info_note("remixed"))
        knobs = self.form.parts[record.pipeline].knobs
        settings |= {"image": path, "keep_rows": rows, "mask": ""}
        settings |= {name: knobs[name].default for name in FROM_PICTURE if name in knobs}
        settings |= BEYOND if act == "beyond" else {}
        filled = self._filled(record.pipeline, settings, True, info_note("from_picture"))
        return {**filled, self.form.run_now: str(random.random())}

    def weigh(self, path: Path, weights: str, visitor: str) -> Update:
        """A picture drawn again, alone and whole, with other weights of its words."""
        changes = {"word_weights": weights, "regions": ""}
        return self._redrawn(read_record(path, self.queue.pipelines), changes, visitor)

    def _redrawn(self, record: Record, changes: dict[str, Any], visitor: str) -> Update:
        """A run of one candidate, beside the form, which stays as it is."""
        alone = {"seed": record.picture["seed"], "candidates": 1, "keep": 1}
        if style := record.picture.get("style"):  # one of those that the candidates took turns in
            alone["style"] = style
        job_id = self.queue.submit(record.pipeline, {**record.settings, **alone, **changes}, visitor)
        return {self.form.context.job: job_id}

    def load_file(self, path: str, engine: str) -> Update:
        """The settings inside a dropped picture, also in another studio's words, which go to the engine that is chosen.

        A text file or a table is prompts, or what another studio wrote of one run. BadInput when there are none.
        """
        if Path(path).suffix.lower() in TEXTS or _is_text(read_bytes(path)):
            if found := foreign_of_text(path):
                return self._of_another(found, engine)
            text = read_prompts(path)
            note = info_note("loaded_prompts", count=len(prompts_in(text)))
            return {self.form.fields["prompt"]: text, self.form.note: note}
        try:
            record = read_record(path, self.queue.pipelines)
        except BadInput as problem:
            if problem.message.code not in ("core.no_record", "core.not_a_png"):
                raise
            if (found := foreign_of(read_bytes(path))) is None:
                raise
            return self._of_another(found, engine)
        if record.pipeline not in self.form.context.engines:
            return self._borrowed(record)
        prompt, seed = record.settings.get("prompt", ""), record.settings.get("seed", 0)
        note = info_note("loaded", prompt=prompt, seed=seed)
        return self._filled(record.pipeline, record.settings, False, note)

    def _of_another(self, found: Foreign, engine: str) -> Update:
        """The prompt and the seed of another studio's picture, as far as it tells them; and which studio it is."""
        settings: dict[str, Any] = {}
        if prompt := " ".join(visible(found.prompt).split())[:PROMPT_LIMIT]:
            settings["prompt"] = prompt
        if found.seed.isdecimal() and int(found.seed) < 2**64:
            settings["seed"] = int(found.seed)
        if not settings:
            return {self.form.note: info_note("foreign_untold", studio=tool_name(found.tool))}
        told = "foreign_both" if len(settings) == 2 else f"foreign_{next(iter(settings))}"
        return self._filled(
            engine, settings, "seed" not in settings, info_note(told, studio=tool_name(found.tool))
        )

    def receive(self, kind: str, path: Path) -> Update:
        """A picture of the library: its "settings", those without the seed ("remix"), or itself to draw from ("start")."""
        if kind == "start":
            return self._drawn_from(path)
        record = read_record(path, self.queue.pipelines)
        if record.pipeline not in self.form.context.engines:
            return self._borrowed(record)
        if kind == "remix":
            settings = {name: value for name, value in record.settings.items() if name != "seed"}
            return self._filled(record.pipeline, settings, True, info_note("remixed"))
        return self._filled(record.pipeline, record.settings, False, info_note("loaded_again"))

    def _drawn_from(self, path: Path) -> Update:
        """The picture in the form of the first engine, with the prompt that it tells."""
        try:
            prompt = read_record(path, self.queue.pipelines).settings.get("prompt", "")
        except BadInput:
            prompt = ""
        settings = {"image": path, **({"prompt": prompt} if prompt else {})}
        return self._filled(self.form.engine_of(""), settings, True, info_note("from_picture"))

    def _borrowed(self, record: Record) -> Update:
        """What may be taken from a record of a pipeline that the pack lacks into the form, and a note that says so."""
        if record.pipeline not in DRAWING:
            return {self.form.note: info_note("other_pipeline", pipeline=record.pipeline)}
        return self._filled(record.pipeline, record.settings, False, info_note("loaded_other"))

    def _filled(self, pipeline: str, settings: dict[str, Any], roll: bool, note: str) -> Update:
        settings = self.as_asked(pipeline, settings)
        return {**self.form.fill_engine(pipeline, settings), self.form.roll: roll, self.form.note: note}

    def as_asked(self, pipeline: str, settings: dict[str, Any]) -> dict[str, Any]:
        """The settings with "auto" for what would be filled in again, so that another prompt is not drawn by old words."""
        if not any(settings.get(name, AUTO[0]) not in ("", AUTO[0]) for name in PROPOSED):
            return settings
        asked = {**settings, **dict.fromkeys(PROPOSED, AUTO[0])}
        try:
            own: Any = self.form.context.studio.pipeline(pipeline)
            again = own.prepare(own.Settings.from_dict(asked)).to_dict()
        except BadInput:  # its weights are missing
            return settings
        return settings | {name: AUTO[0] for name in PROPOSED if settings.get(name) == again[name]}


def _is_text(data: bytes) -> bool:
    """Whether a file holds text, whatever it is called, and no drawing or page in it."""
    try:
        picture_format(data)
    except BadInput as problem:
        text = text_of(data) if problem.message.code == "io.not_a_picture" else None
        return text is not None and not CONTROL.search(text)
    return False
