"""The Library tab: a wall of the pictures made here, and of any folder's, to search and to work on.

The script of the tab asks `app.ui.wall`; only what goes to another tab comes here.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.ui.context import DRAWING, QUIET, STEERING, TAKING, PageContext, Update, clickable_html, clicked
from app.ui.html.library import frame
from pipelines.core.record import read_record
from pipelines.errors import BadInput

KINDS = {"reuse": "settings", "remix": "remix"}  # what of a picture's record goes to the tab that made it


def build(context: PageContext, tab: gr.Tab) -> None:
    """One place for HTML, which the script fills."""
    wall = clickable_html(
        frame(folders=bool(context.folders)),
        elem_id="library",
        script="window.atelier.library(element, trigger);",
    )

    def send(event: gr.EventData) -> Update:
        """A picture made here goes to another tab: itself, its settings, or its settings without the seed."""
        return sent(context, clicked(event))

    wall.click(send, None, [context.handover, context.tabs], **QUIET)


def sent(context: PageContext, data: dict[str, Any]) -> Update:
    """What the other tab is handed; nothing when the picture is gone or tells no settings."""
    act, name = data.get("act", ""), data.get("name", "")
    try:
        path = context.pictures.path(name)
        if act in KINDS:
            made_by = read_record(path, context.queue.pipelines).pipeline
            tab = next((names[0] for names in (DRAWING, STEERING) if made_by in names), made_by)
            return _to(context, tab, f"{tab}:{KINDS[act]}:{name}")
    except BadInput:
        return gr.skip()
    return _to(context, act, f"{act}:start:{name}") if act in (*TAKING, "generate") else gr.skip()


def _to(context: PageContext, tab: str, handover: str) -> Update:
    return {context.handover: handover, context.tabs: gr.Tabs(selected=tab)}
