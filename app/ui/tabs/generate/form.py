"""The form of Generate: prompt, reading, examples, settings."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.ui.context import PageContext, Update, clickable_html
from app.ui.html import common
from app.ui.html import generate as generate_html
from app.ui.tabs.form import KnobForm
from pipelines.core.settings import Knob

PICTURE_KNOBS = ("image", "keep_rows", "likeness", "strength", "mask")  # under "Start from a picture"
EXAMPLES = (
    ("a red heart", "红色的心"),
    ("grinning cat", "咧嘴笑的猫"),
    ("woman with red hair", "红发女人"),
    ("1st place medal", "金牌"),
    ("a blue heart on a yellow background", "黄色背景上的蓝心"),
)


class GenerateForm(KnobForm):
    """The left column. `roll` says whether each run gets a seed of its own."""

    reading: Any
    stop: Any
    go: Any
    note: Any
    chips: Any
    roll: Any
    from_picture: Any
    drop: Any
    run_now: Any  # hidden: a new value makes the script press Generate

    def __init__(self, context: PageContext, pipeline: str, knobs: dict[str, Knob]):
        super().__init__(context, pipeline, knobs, "", "knob")

    def compose(self) -> None:
        """Lay out the column."""
        translate = self.context.translate
        with gr.Column(elem_id="ask", min_width=200):
            self.add_prompt("prompt_hint", lines=2, max_lines=5, autofocus=True)
            self.add(*(knob.name for knob in self.knobs.values() if knob.type is str and knob.kind is None))
            with gr.Row(elem_id="press"):
                self.reading = gr.HTML(
                    generate_html.reading(None), elem_id="reading", apply_default_css=False
                )
                stop = gr.Button(elem_id="stop", visible=False, scale=0, min_width=80)
                self.stop = translate(stop, value="stop")
                go = gr.Button(variant="primary", elem_id="go", scale=0, min_width=128)
                self.go = translate(go, value="go")
        self.run_now = gr.Textbox(visible=False)
        self.note = gr.HTML(elem_id="note", apply_default_css=False)
        self.chips = clickable_html(common.chips(EXAMPLES), elem_id="chips")
        with gr.Row(elem_id="basics"):
            rest = [self.knobs[name] for name in self.rest(PICTURE_KNOBS)]
            self.add(*(knob.name for knob in rest if not (knob.advanced or knob.kind)))
            self.add_seed(scale=2)
        self.roll = translate(gr.Checkbox(True, elem_id="roll", container=False), label="roll")
        self.from_picture = self.fold("picture_prompt", "from-picture")
        with self.from_picture:
            self.add(*(name for name in self.rest() if name in PICTURE_KNOBS))
        if advanced := self.rest():
            with self.fold("advanced", "advanced"):
                self.add(*advanced)
        drop = gr.File(file_types=[".png"], elem_id="drop", height=72, show_label=True, container=True)
        self.drop = translate(drop, label="drop")

    def fill(self, settings: dict[str, Any]) -> Update:
        """The form with these settings, the fold of the picture open when they have one."""
        answer = super().fill(settings)
        if settings.get("image"):
            answer[self.from_picture] = gr.update(open=True)
        return answer
