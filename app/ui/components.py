"""The component for one setting, made from what the setting says of itself. Every tab with a form uses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from app.ui.context import PageContext
from app.ui.html import axes
from app.ui.i18n import KNOBS, both, hint, knob_help, knob_words, pair, spoken
from app.ui.markup import html, joined
from pipelines.core.settings import Knob

# Keeps the inputs of a group and its value alike. A value from Python may name some of the settings only.
KEEP_FIELDS = """const state = {...props.value};
const show = () => {
  for (const at of element.querySelectorAll('[name]'))
    if (at.type === 'checkbox') at.checked = Boolean(state[at.name]);
    else at.value = state[at.name] ?? '';
  for (const at of element.querySelectorAll('[data-look]')) {
    const looks = String(state[at.dataset.of] ?? '').split(/[ ,]+/).filter((one) => one && one !== 'any');
    at.checked = at.dataset.look ? looks.includes(at.dataset.look) : !looks.length;
  }
  window.atelier.inWords(element);
  element.dispatchEvent(new Event('filled'));
};
element.addEventListener('input', ({target}) => {
  if ('look' in target.dataset) {
    const every = [...element.querySelectorAll('[data-look]')];
    const one = 'one' in target.dataset;
    const chosen = every.filter((at) => at.checked && target.dataset.look && at.dataset.look && (!one || at === target));
    state[target.dataset.of] = chosen.map((at) => at.dataset.look).join(', ') || (one ? 'any' : '');
    props.value = {...state};
    show();
    return;
  }
  const number = target.type === 'number';
  state[target.name] = target.type === 'checkbox' ? target.checked
    : number && target.value === '' ? null : number ? Number(target.value) : target.value;
  props.value = {...state};
});
watch('value', () => { Object.assign(state, props.value); props.value = {...state}; show(); });
show();"""


def translated(knob: Knob, pipeline: str) -> str:
    """The key of a setting's words in KNOBS: a pipeline may have its own for a name that others have too."""
    return own if (own := f"{pipeline}_{knob.name}") in KNOBS else knob.name


def plain_field(knob: Knob, pipeline: str) -> str:
    """The same as HTML, for forms of our own: an input named as the setting, its words in both languages."""
    label, chinese, help_chinese = knob_words(translated(knob, pipeline))
    if knob.kind == "picture":  # which the script brings, as a data URI
        return html('<input type="hidden" name="{}">', knob.name)
    caption = html("<b>{}</b>", pair(label, chinese))
    explanation = html("<small>{}</small>", pair(knob_help(knob, "en"), help_chinese or knob.help))
    if knob.type is bool:
        checked = " checked" if knob.default else ""
        return html(
            '<label class="field tick"><input type="checkbox" name="{}"{}>{}{}</label>',
            knob.name,
            checked,
            caption,
            explanation,
        )
    if knob.choices is not None:
        options = joined(_option(knob, each) for each in knob.choices)
        entry = html('<select name="{}">{}</select>', knob.name, options)
    elif knob.type in (int, float):
        bounds = joined(
            html(' {}="{:g}"', name, value)
            for name, value in (("min", knob.lo), ("max", knob.hi))
            if value is not None
        )
        entry = html(
            '<input type="number" name="{}" value="{}" inputmode="decimal"{}{} step="{}">',
            knob.name,
            "" if knob.default is None else f"{knob.default:g}",
            bounds,
            hint("model_decides") if knob.default is None else "",
            1 if knob.type is int else "any",
        )
    else:
        entry = html('<input type="text" name="{}" value="{}" autocomplete="off">', knob.name, knob.default)
    return html('<label class="field">{}{}{}</label>', caption, entry, explanation)


def _option(knob: Knob, value: str) -> Markup:
    english, chinese = knob.words_of(value)
    return html(
        '<option value="{}"{}{}>{}</option>',
        value,
        " selected" if value == knob.default else "",
        spoken(english, chinese) if english != chinese else "",
        english,
    )


def field(
    context: PageContext,
    knob: Knob,
    prefix: str = "knob",
    *,
    pipeline: str = "",
    picture_height: int = 180,
    classes: Sequence[str] = (),
) -> Any:
    """A component with the setting's range, default and words; its element's id is `prefix`-NAME.

    Settings with choices have none: `field_group` shows their words in both languages.
    """
    words = translated(knob, pipeline)
    common = {"elem_id": f"{prefix}-{knob.name}", "elem_classes": [*classes], "min_width": 96}
    if knob.kind == "picture":
        component: Any = picture_field(f"{prefix}-{knob.name}", picture_height, classes)
        return context.translate(component, label=f"knob_{words}")
    if knob.type is bool:
        component = gr.Checkbox(knob.default, **common)
    elif knob.optional:
        component = gr.Number(empty_number(knob.default), **common)
        words_of = {"info": f"help_{words}"} if knob.advanced else {}
        return context.translate(component, label=f"knob_{words}", placeholder="model_decides", **words_of)
    elif not knob.advanced and knob.type is int:
        return context.translate(
            gr.Number(knob.default, precision=0, scale=1, **common), label=f"knob_{words}"
        )
    elif knob.type in (int, float) and knob.lo is not None and knob.hi is not None:
        component = gr.Slider(knob.lo, knob.hi, value=knob.default, step=_step(knob), **common)
    elif knob.type in (int, float):
        component = gr.Number(knob.default, precision=0 if knob.type is int else None, **common)
    else:
        component = gr.Textbox(knob.default, **common)
    return context.translate(component, label=f"knob_{words}", info=f"help_{words}")


def field_group(
    knobs: Sequence[Knob],
    elem_id: str,
    *,
    pipeline: str = "",
    classes: Sequence[str] = (),
    above: str = "",
    script: str = "",
) -> gr.HTML:
    """One component for several settings; its value is a dict from their names to their values.

    `above` is HTML before the fields, and `script` runs when they appear, with their `element`.
    """
    fields = joined(plain_field(knob, pipeline) for knob in knobs)
    return gr.HTML(
        {knob.name: knob.default for knob in knobs},  # type: ignore[arg-type]
        html_template=html('{}<div class="fields">{}</div>', Markup(above), fields),
        js_on_load=KEEP_FIELDS + script,
        elem_id=elem_id,
        elem_classes=["field-group", *classes],
        apply_default_css=False,
    )


def axes_field(pipelines: Sequence[str], elem_id: str) -> gr.HTML:
    """One component for both axes of a sheet, of whichever of these pipelines is chosen; its value is a dict."""
    return gr.HTML(
        {"x": "", "y": ""},  # type: ignore[arg-type]
        html_template=axes.form(pipelines),
        js_on_load=f"{KEEP_FIELDS} window.atelier.axes(element);",
        elem_id=elem_id,
        elem_classes=["field-group"],
        apply_default_css=False,
    )


def look_chips(knob: Knob, looks: Mapping[str, tuple[str, str]], elem_id: str) -> gr.HTML:
    """One component for a setting that names looks, a chip each; its value is a dict from the setting's name to its value.

    `looks` are the names with their words in both languages. The first chip is no look in particular. A setting with
    choices takes one look, others take several.
    """
    label, chinese, help_chinese = knob_words(knob.name)
    chip = (
        '<label class="look"><input type="checkbox" data-look="{}" data-of="{}"{}{}><span>{}</span></label>'
    )
    one = Markup(" data-one") if knob.choices else ""
    chips = [html(chip, "", knob.name, one, " checked", both("look_any"))]
    chips += [html(chip, name, knob.name, one, "", pair(*words)) for name, words in looks.items()]
    group = html(
        '<div class="looks" role="group" aria-label="{}, {}" title="{}"><b>{}</b>{}</div>',
        label,
        chinese,
        help_chinese,
        pair(label, chinese),
        joined(chips),
    )
    return gr.HTML(
        {knob.name: knob.default},  # type: ignore[arg-type]
        html_template=group,
        js_on_load=KEEP_FIELDS,
        elem_id=elem_id,
        elem_classes=["field-group"],
        apply_default_css=False,
    )


def picture_field(elem_id: str, height: int, classes: Sequence[str] = ()) -> gr.Image:
    """A place for one picture, dropped, pasted or chosen."""
    return gr.Image(
        type="filepath",
        format="png",
        image_mode=None,
        sources=["upload", "clipboard"],
        height=height,
        elem_id=elem_id,
        elem_classes=["picture-field", *classes],
        min_width=96,
    )


def bare(layout: Any) -> Any:
    """A layout whose fields are its own children; Gradio would put a form, one more component, around neighbours."""
    layout.allow_expected_parents = False
    return layout


def _step(knob: Knob) -> float:
    """The coarsest step of a slider on which the default lies."""
    if knob.type is int:
        return 1
    for step in (0.05, 0.01):
        steps = (knob.default - (knob.lo or 0)) / step
        if abs(steps - round(steps)) < 1e-6:
            return step
    return 0.001


def plain_value(knob: Knob, value: Any) -> Any:
    """A form's value as Settings take it: no picture is the empty text, an emptied number is its default.

    A picture is an upload or nothing; a text in its place would name any file of this machine.
    """
    if knob.kind == "picture":
        value = uploaded_path(value)
    emptied = value is None or (value == "" and knob.type in (int, float))
    return knob.default if emptied else value


def empty_number(value: Any) -> Any:
    """A number as its component takes it: the empty text for None, in whose place Gradio's script would show a 0."""
    return "" if value is None else value


def uploaded_path(upload: Any) -> str:
    """Where an upload lies, the empty text when there is none. A text of the browser's is no upload."""
    return upload.get("path") or "" if isinstance(upload, dict) else getattr(upload, "path", "")
