"""A form of Gradio's components made from a pipeline's knobs: filled from settings, and read as Settings take them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

import gradio as gr

from app.ui.components import axes_field, empty_number, field, field_group, look_chips, plain_value
from app.ui.context import QUIET, PageContext, Update
from pipelines.core.looks import LOOKS
from pipelines.core.settings import Knob
from pipelines.errors import BadInput
from pipelines.io.images import open_picture

EXACT = 2**53  # up to which JavaScript's numbers are exact
MASK_HEAD = "data:image/png;base64,"  # of a mask that the script of the page has painted


def script_values(**values: Any) -> str:
    """What the script fills into a form of HTML, as JSON; never the same text twice, so that it is filled in each time.

    Whole numbers that JavaScript's numbers cannot hold, such as large seeds, are texts.
    """
    told = {
        name: str(value) if isinstance(value, int) and abs(value) > EXACT else value
        for name, value in values.items()
    }
    return json.dumps({**told, "nonce": secrets.token_hex(4)})


class KnobForm:
    """The components of one form.

    The ids of their elements begin with `prefix`, those of fields made from a knob alone with `fields_prefix` and a dash.
    """

    dice: Any

    def __init__(
        self,
        context: PageContext,
        pipeline: str,
        knobs: dict[str, Knob],
        prefix: str,
        fields_prefix: str = "",
    ):
        self.context, self.pipeline, self.knobs = context, pipeline, knobs
        self.prefix, self.fields_prefix = prefix, fields_prefix or prefix.rstrip("-")
        self.fields: dict[
            str, Any
        ] = {}  # name of a setting -> its component, which a group of settings shares
        self.grouped: set[str] = set()  # names of settings in groups

    @property
    def components(self) -> list[Any]:
        """The components whose values `read` takes, in its order."""
        return list(dict.fromkeys(self.fields.values()))

    # ------------------------------------------------------------------------------------------------------ building

    def add(self, *names: str, **options: Any) -> None:
        """A field for each of these settings."""
        for name in names:
            if self.knobs[name].choices is not None:
                self.add_group(name, **options)
                continue
            self.fields[name] = field(
                self.context, self.knobs[name], self.fields_prefix, pipeline=self.pipeline, **options
            )

    def add_group(self, *names: str, **options: Any) -> None:
        """One component for all of these settings, so that the page has few."""
        elem_id = f"{self.fields_prefix}-{names[0]}-group"
        knobs = [self.knobs[name] for name in names]
        group = field_group(knobs, elem_id, pipeline=self.pipeline, **options)
        self.fields |= dict.fromkeys(names, group)
        self.grouped |= set(names)

    def add_looks(self, name: str = "style") -> None:
        """Chips for a setting that names looks."""
        looks = {key: (look.english, look.chinese) for key, look in LOOKS.items()}
        self.fields[name] = look_chips(self.knobs[name], looks, f"{self.fields_prefix}-{name}")
        self.grouped.add(name)

    def add_axes(self, *pipelines: str) -> None:
        """What changes along the columns and rows of a sheet, for whichever of these pipelines is chosen."""
        names = ("x", "y")
        self.fields |= dict.fromkeys(names, axes_field(pipelines, f"{self.fields_prefix}-axes"))
        self.grouped |= set(names)

    def add_prompt(self, hint: str = "", **options: Any) -> None:
        """The box for the prompt; `hint` is the key of what stands in it while it is empty."""
        box = gr.Textbox(elem_id=f"{self.prefix}prompt", **options)
        keys = {"label": "prompt"} | ({"placeholder": hint} if hint else {})
        self.fields["prompt"] = self.context.translate(box, **keys)

    def add_seed(self, scale: int = 1) -> None:
        """The seed, and a button that rolls another one."""
        number = gr.Textbox(  # numbers of JavaScript are exact up to 2^53 only
            str(self.knobs["seed"].default),
            max_lines=1,
            elem_id=f"{self.fields_prefix}-seed",
            min_width=96,
            scale=scale,
        )
        self.fields["seed"] = self.context.translate(number, label="knob_seed")
        self.dice = gr.Button(
            "⚄", elem_id=f"{self.prefix}dice", elem_classes="dice", size="sm", min_width=40, scale=0
        )

    def fold(self, words: str, part: str) -> Any:
        """A closed fold to put fields into; `words` is the key of its title."""
        fold = gr.Accordion(open=False, elem_id=f"{self.prefix}{part}", elem_classes="fold")
        return self.context.translate(fold, label=words)

    def rest(self, apart: Iterable[str] = ()) -> list[str]:
        """The names of settings that have no field yet, but for those `apart`."""
        return [name for name in self.knobs if name not in self.fields and name not in apart]

    def connect_dice(self, *also: Any, values: Sequence[str] = ()) -> None:
        """A click rolls a seed; `values` are written into the components `also`, in JavaScript."""
        rolled = ", ".join(["String(window.atelier.roll())", *values])
        js = f"() => [{rolled}]" if values else f"() => {rolled}"
        self.dice.click(None, None, [self.fields["seed"], *also], js=js, **QUIET)

    # ------------------------------------------------------------------------------------------------------- values

    def read(self, values: Sequence[Any]) -> dict[str, Any]:
        """The values of the fields' components by the names of their settings, as Gradio sent them."""
        return self.named(dict(zip(dict.fromkeys(self.fields.values()), values, strict=True)))

    def named(self, sent: dict[Any, Any]) -> dict[str, Any]:
        """What was read, from the values of components, as Gradio sent them."""
        return {
            name: _member(sent[component], name) if name in self.grouped else sent[component]
            for name, component in self.fields.items()
        }

    def settings(self, form: dict[str, Any]) -> dict[str, Any]:
        """What was read, as Settings take it. BadInput for a picture of a group that is not the script's."""
        plain = {
            name: plain_value(self.knobs[name], value) for name, value in form.items() if name in self.knobs
        }
        return plain | ({"mask": painted_mask(form)} if "mask" in self.grouped else {})

    def fill(self, settings: dict[str, Any]) -> Update:
        """The form with these settings; what they do not name stays as it is."""
        answer: Update = {}
        for name, component in self.fields.items():
            if name in settings and name in self.grouped:
                answer.setdefault(component, {})[name] = settings[name]
            elif name in settings:
                answer[component] = self.shown(name, settings[name])
        return answer

    def shown(self, name: str, value: Any) -> Any:
        """A setting's value as its component takes it: a picture is opened, no number is an empty field."""
        if self.knobs[name].kind == "seed":
            return str(value)
        if self.knobs[name].kind != "picture":
            return empty_number(value)
        return open_picture(value) if value else None


def _member(group: Any, name: str) -> Any:
    """A setting's value in that of its group; None, its default, when there is none."""
    return group.get(name) if isinstance(group, dict) else None


def painted_mask(form: dict[str, Any]) -> str:
    """The mask of a form, the empty text when there is none. BadInput when it was not painted on this page."""
    mask = str(form.get("mask") or "")
    if mask and not mask.startswith(MASK_HEAD):
        raise BadInput("page.mask_not_painted_here")
    return mask
