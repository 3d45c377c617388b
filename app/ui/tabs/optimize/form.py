"""The form of Optimize: the prompt and its parts, start picture and mask, settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
from PIL import Image

from app.jobs.queue import Job
from app.ui.components import picture_field, uploaded_path
from app.ui.context import PageContext, Update
from app.ui.html import optimize as optimize_html
from app.ui.html.generate import only_for
from app.ui.tabs.form import KnobForm, painted_mask
from app.ui.tabs.optimize.guided import GuidePart
from pipelines.core.prompts import SIDES, parse_list, parse_regions
from pipelines.core.settings import Knob
from pipelines.errors import BadInput
from pipelines.io.images import open_picture, picture_to_uri

BASICS = ("steps", "size")
MOST_MASK_SIDE = 4096  # pixels


class OptimizeForm(KnobForm):
    """The settings of a run.

    `source` is hidden: where the start picture comes from when the studio has it as a file. `parsed` is hidden: the
    prompt and its parts as JSON, for the script.
    """

    rows: Any
    parsed: Any
    source: Any

    def __init__(self, context: PageContext, pipeline: str, knobs: dict[str, Knob], guided: dict[str, Knob]):
        super().__init__(context, pipeline, knobs, "opt-")
        self.shared = tuple(name for name, knob in knobs.items() if guided.get(name) == knob)
        own = {name: knob for name, knob in guided.items() if name not in self.shared}
        self.guide = GuidePart(context, own)

    @property
    def components(self) -> list[Any]:
        """The components whose values `read` takes, in its order: Guide's part is the last."""
        return [*super().components, self.guide.values]

    def read(self, values: Sequence[Any]) -> dict[str, Any]:
        """The values of `components`; Guide's part, with the engine that is chosen, is read as "guide"."""
        return {**super().read(values[:-1]), "guide": values[-1]}

    def engine_of(self, form: dict[str, Any]) -> str:
        """The engine that is chosen."""
        return self.guide.read(form["guide"])[0]

    # ------------------------------------------------------------------------------------------------------ building

    def compose_prompt(self) -> None:
        """The prompt, and where the script lists its parts."""
        self.add_prompt("opt_prompt_hint", lines=1, max_lines=6)
        self.add_looks()
        script = "window.atelier.rows(() => trigger('click', {}));"
        self.rows = gr.HTML(
            optimize_html.rows(), elem_id="opt-rows", js_on_load=script, apply_default_css=False
        )
        self.parsed = gr.Textbox(visible=False)

    def compose_settings(self) -> None:
        """Everything below the prompt."""
        translate = self.context.translate
        with gr.Row(elem_id="opt-basics"):
            self.add("steps", classes=[only_for("optimize")])
            size = gr.Textbox(
                self.knobs["size"].default,
                lines=1,
                max_lines=1,
                placeholder="128x128",
                elem_id="opt-size",
                min_width=72,
                scale=1,
            )
            self.fields["size"] = translate(size, label="knob_size")
            self.add_seed()
        self.guide.compose()
        self.add("image", picture_height=120)
        # the script paints the mask and keeps it here, as a data URI
        mask = gr.Textbox(elem_id="opt-mask", lines=1, max_lines=1)
        self.fields["mask"] = translate(mask, label="knob_mask")
        self.source = gr.Textbox(visible=False)
        self.add_axes(*self.guide.engines)
        with self.fold("advanced", "advanced"):
            self._add_look()
            self.add_group(*(name for name in self.rest() if name in self.shared))
            self.add_group(*self.rest(), classes=[only_for("optimize")])

    def _add_look(self) -> None:
        """A picture to steer to, and how much: together they are the setting `image_prompts`."""
        picture = picture_field("opt-image_prompts", 120)
        self.fields["image_prompts"] = self.context.translate(picture, label="knob_image_prompts")
        slider = gr.Slider(-2, 2, value=1, step=0.05, elem_id="opt-image_weight", min_width=96)
        self.fields["image_weight"] = self.context.translate(slider, label="opt_image_weight")

    # ------------------------------------------------------------------------------------------------------- values

    def settings_for(
        self, engine: str, form: dict[str, Any], source: str = "", job: Job | None = None
    ) -> dict[str, Any]:
        """What was read, as the Settings of an engine take it. The visitor's texts may name no files of this machine.

        `job` is the run that is looked at, if any.
        """
        if engine == "optimize":
            return self.settings(form, source, job)
        plain = self._steered({name: form[name] for name in self.shared}, form, source)
        return {**plain, **self.guide.read(form["guide"])[1]}

    def _steered(self, read: dict[str, Any], form: dict[str, Any], source: str) -> dict[str, Any]:
        """Fields of both engines: those that were `read`, the picture to steer to, and where the start picture is."""
        plain = super().settings({name: value for name, value in read.items() if name != "image_prompts"})
        path = uploaded_path(form["image_prompts"])
        weight = 1.0 if form["image_weight"] is None else float(form["image_weight"])
        plain["image_prompts"] = f"{path}:{weight:g}" if path and weight else ""
        if plain["image"] and source:
            plain["image"] = self._start_picture(source)
        return plain

    def settings(self, form: dict[str, Any], source: str = "", job: Job | None = None) -> dict[str, Any]:
        """What was read, as the Settings of Optimize take it. `job` is the run that the mask was painted on, if any."""
        plain = self._steered({name: form[name] for name in form if name != "mask"}, form, source)
        for region in parse_regions(str(plain["regions"])):
            if region.where not in SIDES and not region.where.startswith("data:image/"):
                raise BadInput("page.region_place", place=region.where[:40], known=", ".join(SIDES))
        mask = painted_mask(form)
        plain["mask"] = self._fitted(mask, plain, job) if mask else ""
        return plain

    def _start_picture(self, source: str) -> str:
        """The start picture's own file, record inside, when it is one that the studio made."""
        kind, _, name = source.partition(":")
        if kind == "job":
            return str(self.context.queue.job(name).settings.get("image", ""))
        return str(self.context.pictures.path(name, example=kind == "example"))

    def _fitted(self, mask: str, plain: dict[str, Any], job: Job | None) -> str:
        """The painted mask in the size of what it was painted on."""
        if job is not None and job.settings.get("mask") == mask:
            return mask
        size = self._painted_size(plain, job)
        picture = open_picture(mask).convert("L")
        if size is None or size == picture.size:
            return mask
        return picture_to_uri(picture.resize(size, Image.Resampling.BILINEAR).convert("RGB"))

    def _painted_size(self, plain: dict[str, Any], job: Job | None) -> tuple[int, int] | None:
        """Width and height of what the mask was painted on: a run's picture, else the start picture or the canvas."""
        if job is not None and job.pictures:
            with Image.open(job.pictures[-1]["path"]) as picture:
                return picture.size
        if job is not None and (previews := self.context.queue.preview(job.id)):
            return previews[0].size
        if plain["size"]:
            parts = str(plain["size"]).lower().replace("×", "x").split("x")
            sides = [int(part) for part in parts if part.strip().isdecimal()]
            return (sides[0], sides[1]) if len(sides) == 2 and max(sides) <= MOST_MASK_SIDE else None
        return open_picture(plain["image"]).size if plain["image"] else None

    def fill_engine(self, engine: str, settings: dict[str, Any]) -> Update:
        """The form with settings of an engine, which becomes the chosen one."""
        known = settings if engine == "optimize" else {k: v for k, v in settings.items() if k in self.shared}
        return {**self.fill(known), self.guide.values: self.guide.filled(engine, settings)}

    def fill(self, settings: dict[str, Any]) -> Update:
        """The form with these settings; what they do not name stays as it is."""
        answer = super().fill(settings)
        if "image_prompts" in settings:
            looks = parse_list(settings["image_prompts"] or "")
            answer[self.fields["image_prompts"]] = open_picture(looks[0].text) if looks else None
            answer[self.fields["image_weight"]] = looks[0].weight if looks else 1
        return answer
