"""The form of Generate: engine, prompt, reading, examples, settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from app.ui.components import bare
from app.ui.context import DRAWING, PageContext, Update, clickable_html
from app.ui.html import common
from app.ui.html import generate as generate_html
from app.ui.tabs.form import KnobForm
from pipelines.core.settings import Knob

HIDDEN = (
    "batch",
    "canvas",
    "prior",
)  # the device decides the first; the others are for networks of one's own
LIKE = ("keep_rows", "likeness")  # DALL·E's, below the picture to start from; one component
CANVAS, PLACE = (
    ("width", "height", "pace"),
    ("mask", "strength", "place", "invert"),
)  # Diffusion's, each one component
EXAMPLES = (
    ("a red heart", "红色的心"),
    ("grinning cat", "咧嘴笑的猫"),
    ("woman with red hair", "红发女人"),
    ("1st place medal", "金牌"),
    ("a blue heart on a yellow background", "黄色背景上的蓝心"),
)


class GenerateForm(KnobForm):
    """The left column. `roll` says whether each run gets a seed of its own.

    Settings that are the same in every engine (name, range, default, words) are fields of the form itself; the others are
    in `parts`, one form an engine. The style sheet shows the part of the engine that is chosen, so each part keeps what
    was typed into it.
    """

    chip: Any
    reading: Any
    stop: Any
    go: Any
    note: Any
    chips: Any
    roll: Any
    from_picture: Any
    drop: Any
    run_now: Any  # hidden: a new value makes the script press Generate

    def __init__(self, context: PageContext):
        knobs = {name: _knobs(context, name) for name in DRAWING}
        first, *others = knobs.values()
        shared = {
            name: knob for name, knob in first.items() if all(knob == each.get(name) for each in others)
        }
        super().__init__(context, DRAWING[0], shared, "", "knob")
        self.parts: dict[str, KnobForm] = {}
        for engine, own in knobs.items():
            prefix = "knob" if engine == DRAWING[0] else engine
            own = {name: knob for name, knob in own.items() if name not in shared}
            self.parts[engine] = KnobForm(context, engine, own, f"{prefix}-")

    @property
    def components(self) -> list[Any]:
        """The components whose values `values_of` takes, in its order."""
        return [*super().components, *(field for part in self.parts.values() for field in part.components)]

    # ------------------------------------------------------------------------------------------------------ building

    def compose(self) -> None:
        """Lay out the column."""
        translate = self.context.translate
        with bare(gr.Column(elem_id="ask", min_width=200)):
            self.chip = clickable_html(self._chip(""), elem_id="engine")
            self.add_prompt("prompt_hint", lines=2, max_lines=5, autofocus=True)
            self._add_own(lambda knob: knob.type is str and not (knob.kind or knob.choices or knob.advanced))
            with gr.Row(elem_id="press"):
                self.reading = gr.HTML(
                    generate_html.reading(None),
                    elem_id="reading",
                    js_on_load="window.atelier.reading(element);",
                    apply_default_css=False,
                )
                stop = gr.Button(elem_id="stop", visible=False, scale=0, min_width=80)
                self.stop = translate(stop, value="stop")
                go = gr.Button(variant="primary", elem_id="go", scale=0, min_width=128)
                self.go = translate(go, value="go")
            self.add_looks()
        self.note = gr.HTML(elem_id="note", apply_default_css=False)
        self.chips = clickable_html(common.chips(EXAMPLES), elem_id="chips")
        with bare(gr.Row(elem_id="basics")):
            self._add_own(lambda knob: knob.name == "candidates")
            self.add(
                *(name for name in self.rest() if not (self.knobs[name].advanced or self.knobs[name].kind))
            )
            self.add_seed(scale=2)
        diffusion = self.parts["diffuse"]
        only = [generate_html.only_for("diffuse")]
        diffusion.add_group(*CANVAS, classes=only)
        self.roll = translate(gr.Checkbox(True, elem_id="roll", container=False), label="roll")
        self.from_picture = self.fold("picture_prompt", "from-picture")
        with self.from_picture:
            self._add_own(lambda knob: knob.kind == "picture" and knob.name != "mask")
            self.parts["generate"].add_group(*LIKE, classes=[generate_html.only_for("generate")])
            script = "window.atelier.drawMask(element);"
            diffusion.add_group(*PLACE, classes=only, above=generate_html.mask(), script=script)
        self.add_axes(*self.parts)
        with self.fold("advanced", "advanced"):
            for engine, part in self.parts.items():
                part.add_group(*part.rest(), classes=[generate_html.only_for(engine)])
            self.add_group(*self.rest())
        drop = gr.File(  # of any kind: those that are not read are named in a sentence
            elem_id="drop",
            height=72,
            show_label=True,
            container=True,
        )
        self.drop = translate(drop, label="drop")
        self.run_now = gr.Textbox(visible=False)

    def _add_own(self, belongs: Callable[[Knob], bool]) -> None:
        """A field for each of the engines' own settings that has none yet and belongs here."""
        for engine, part in self.parts.items():
            names = [name for name in part.rest() if belongs(part.knobs[name])]
            part.add(*names, classes=[generate_html.only_for(engine)])

    # ------------------------------------------------------------------------------------------------------- engines

    def engine_of(self, chosen: str) -> str:
        """The engine that is chosen, or the first of the pack in use when that has no such one."""
        engines = self.context.engines
        return chosen if chosen in engines else engines[0]

    def choose(self, engine: str) -> Update:
        """The form with an engine of the pack in use."""
        return {self.context.engine: self.engine_of(engine), **self.offer(engine)}

    def offer(self, engine: str) -> Update:
        """The chip with the engines of the pack in use, of which one is chosen."""
        return {self.chip: self._chip(engine)}

    def _chip(self, engine: str) -> str:
        return generate_html.engines(self.context.engines, self.engine_of(engine))

    # ------------------------------------------------------------------------------------------------------- values

    def values_of(self, engine: str, values: Sequence[Any]) -> dict[str, Any]:
        """The settings of an engine, as Settings take them, from the values of `components`, as Gradio sent them."""
        sent = dict(zip(self.components, values, strict=True))
        given: dict[str, Any] = {}
        for form in (self, self.parts[engine]):
            given |= form.settings(form.named(sent))
        return given

    def fill_engine(self, engine: str, settings: dict[str, Any]) -> Update:
        """The form with settings of an engine, which becomes the chosen one.

        When the pack in use does not have it, only what all engines share is filled in. The fold of the picture is opened
        when there is one.
        """
        answer = self.fill(settings)
        if engine in self.context.engines:
            answer |= {**self.choose(engine), **self.parts[engine].fill(settings)}
            if settings.get("image"):
                answer[self.from_picture] = gr.update(open=True)
        return answer


def _knobs(context: PageContext, pipeline: str) -> dict[str, Knob]:
    knobs = context.queue.pipelines[pipeline].Settings.knobs()
    return {knob.name: knob for knob in knobs if knob.name not in HIDDEN}
