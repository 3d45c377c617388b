"""The Train tab: teaching a network with one's own pictures. Its script asks `app.ui.trainings`."""

from __future__ import annotations

import gradio as gr

from app.ui.context import PageContext, clickable_html
from app.ui.html.train import closed, frame
from pipelines.errors import BadInput


def build(context: PageContext, tab: gr.Tab) -> None:
    """One place for HTML, which the script fills; one sentence where nothing may be trained."""
    if context.trainings is None:
        clickable_html(closed(BadInput("training.not_here")), elem_id="train")
        return
    clickable_html(frame(), elem_id="train", script="window.atelier.train(element);")
