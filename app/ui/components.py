"""The component for one setting, made from what the setting says of itself. Every tab with a form uses it."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from app.ui.context import Shell
from app.ui.i18n import KNOBS, pair
from pipelines.core.settings import Knob


def _worded(one: Knob, pipeline: str) -> str:
    """The key of a setting's words in KNOBS: a pipeline may have its own for a name that others have too."""
    return own if (own := f"{pipeline}_{one.name}") in KNOBS else one.name


def plain_field(one: Knob, pipeline: str) -> str:
    """The same as HTML, for forms of our own: an input named as the setting, its words in both languages."""
    label, translated, help_translated = KNOBS.get(_worded(one, pipeline), (one.name, one.name, ""))
    said = f"<b>{pair(escape(label), escape(translated))}</b>"
    told = f"<small>{pair(escape(one.help), escape(help_translated or one.help))}</small>"
    if one.type is bool:
        checked = " checked" if one.default else ""
        return f'<label class="field tick"><input type="checkbox" name="{one.name}"{checked}>{said}{told}</label>'
    if one.choices is not None:
        options = "".join(
            f"<option{' selected' if each == one.default else ''}>{escape(each)}</option>"
            for each in one.choices
        )
        entry = f'<select name="{one.name}">{options}</select>'
    elif one.type in (int, float):
        bounds = "".join(
            f' {name}="{value:g}"' for name, value in (("min", one.lo), ("max", one.hi)) if value is not None
        )
        entry = (
            f'<input type="number" name="{one.name}" value="{one.default:g}" inputmode="decimal"{bounds} '
            f'step="{1 if one.type is int else "any"}">'
        )
    else:
        entry = f'<input type="text" name="{one.name}" value="{escape(one.default)}" autocomplete="off">'
    return f'<label class="field">{said}{entry}{told}</label>'


def field(
    shell: Shell, one: Knob, prefix: str = "knob", *, pipeline: str = "", picture_height: int = 180
) -> Any:
    """A component with the setting's range, default and words; its element's id is `prefix`-NAME."""
    words = _worded(one, pipeline)
    common = {"elem_id": f"{prefix}-{one.name}", "min_width": 96}
    if one.kind == "picture":
        component: Any = gr.Image(
            type="filepath",
            format="png",
            image_mode=None,
            sources=["upload", "clipboard"],
            height=picture_height,
            **common,
        )
        return shell.words(component, label=f"knob_{words}")
    if one.choices is not None:
        component = gr.Dropdown(list(one.choices), value=one.default, **common)
    elif one.type is bool:
        component = gr.Checkbox(one.default, **common)
    elif not one.advanced and one.type is int:
        return shell.words(gr.Number(one.default, precision=0, scale=1, **common), label=f"knob_{words}")
    elif one.type in (int, float) and one.lo is not None and one.hi is not None:
        component = gr.Slider(one.lo, one.hi, value=one.default, step=_step(one), **common)
    elif one.type in (int, float):
        component = gr.Number(one.default, precision=0 if one.type is int else None, **common)
    else:
        component = gr.Textbox(one.default, **common)
    return shell.words(component, label=f"knob_{words}", info=f"help_{words}")


def _step(one: Knob) -> float:
    """The coarsest step of a slider on which the default lies."""
    if one.type is int:
        return 1
    for step in (0.05, 0.01):
        steps = (one.default - (one.lo or 0)) / step
        if abs(steps - round(steps)) < 1e-6:
            return step
    return 0.001


def plain_value(one: Knob, value: Any) -> Any:
    """A form's value as Settings take it: no picture is the empty text, an emptied number is its default.

    A picture is an upload or nothing; a text in its place would name any file of this machine.
    """
    if one.kind == "picture":
        value = value.get("path", "") if isinstance(value, dict) else getattr(value, "path", "")
    return one.default if value is None else value
