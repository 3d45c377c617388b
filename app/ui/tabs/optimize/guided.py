"""The settings that belong to Guide alone, in Optimize's form, and which of the two engines is chosen."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from app.ui.context import STEERING, PageContext, clickable_html
from app.ui.html import generate as generate_html
from app.ui.html import guide_form
from app.ui.tabs.form import script_values
from pipelines.core.settings import Knob
from pipelines.errors import BadInput


class GuidePart:
    """HTML of our own. The script brings its values, and the chosen engine, as JSON with every event.

    `values` is hidden: a new text of it is filled into the HTML. `engines` are those of STEERING that the page has.
    """

    values: Any

    def __init__(self, context: PageContext, knobs: dict[str, Knob]):
        self.knobs = knobs
        self.engines = tuple(name for name in STEERING if name in context.queue.pipelines)

    def compose_chip(self) -> None:
        """The chip that chooses the engine."""
        clickable_html(
            generate_html.engines(self.engines, self.engines[0], "steer"),
            elem_id="opt-engine",
        )

    def compose(self) -> None:
        """The form."""
        gr.HTML(
            guide_form.form(self.knobs),
            elem_id="opt-guide",
            elem_classes=[generate_html.only_for("guide")],
            js_on_load="window.atelier.guideForm(element);",
            apply_default_css=False,
        )
        self.values = gr.Textbox(visible=False)

    def connect(self) -> None:
        """A new text is filled in."""
        js = "(given) => { window.atelier.fillGuide(given) }"
        self.values.change(
            None, [self.values], None, js=js, show_progress="hidden", queue=False, api_visibility="private"
        )

    def read(self, values: Any) -> tuple[str, dict[str, Any]]:
        """The engine that is chosen, and the settings, as the script tells them. BadInput when they cannot be read."""
        try:
            form = json.loads(str(values or "{}"))
        except ValueError:
            form = None
        if not isinstance(form, dict):
            raise BadInput("page.form_unreadable")
        engine = form.get("steer")
        settings = {
            name: knob.default if form.get(name) in (None, "") else form[name]
            for name, knob in self.knobs.items()
        }
        return engine if engine in self.engines else self.engines[0], settings

    def filled(self, engine: str, settings: dict[str, Any]) -> str:
        """What the script fills in; never the same text twice, so that it is filled in each time."""
        names = self.knobs if engine == "guide" else ()  # a name may mean another thing in Optimize
        known = {name: settings[name] for name in names if name in settings}
        return script_values(**known, steer=engine)
