"""What decides a run of Optimize, and how it may change on the way."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from pipelines.clip.cutouts import SCHEMES
from pipelines.core.settings import Settings, knob
from pipelines.errors import BadInput
from pipelines.models.device import PRECISIONS
from pipelines.optimize.prompts import (
    check_targets,
    map_regions,
    map_targets,
    parse_palette,
    parse_regions,
    parse_story,
    parse_targets,
)

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "radam": torch.optim.RAdam,
    "adagrad": torch.optim.Adagrad,
}
FIXED = (
    "seed", "size", "init", "start", "tokens", "coarse", "tile", "optimizer", "precision", "until", "changes"
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class OptimizeSettings(Settings):
    """What decides a run. `changes` are what the artist changed while it ran, so that it can be run again."""

    prompt: str = knob(
        "a red heart",
        help="where to steer: TEXT[:WEIGHT[:STOP]], several between |, scenes over time between ^",
        kind="prompt",
    )
    steps: int = knob(150, 1, 20_000, help="how many steps the picture grows")
    size: str = knob(
        "", help="width x height, such as 192x128; empty for the start picture's or the model's own"
    )
    init: str = knob("", help="a picture to start from", kind="picture")
    mask: str = knob("", help="where the picture may change: white, or what is painted", kind="picture")
    start: str = knob(
        "splash",
        help="what to start from without a picture; of many that chance makes, CLIP picks one",
        choices=("splash", "white", "codes", "noise", "gradient"),
        advanced=True,
    )
    tokens: str = knob("", help="image tokens to start from, as numbers", kind="tokens", advanced=True)
    regions: str = knob(
        "", help="prompts for parts: TEXT @ left, right, top, bottom, centre or a mask file; several between |",
        kind="targets", advanced=True,
    )  # fmt: skip
    image_prompts: str = knob(
        "",
        help="pictures to steer to: FILE[:WEIGHT[:STOP]], several between |",
        kind="targets",
        advanced=True,
    )
    noise_prompts: str = knob(
        "", help="random directions: NUMBER[:WEIGHT], several between |", kind="targets", advanced=True
    )
    step_size: float = knob(0.1, 0.001, 2.0, help="how far one step moves", advanced=True)
    optimizer: str = knob(
        "adam", help="how steps are made of gradients", choices=tuple(OPTIMIZERS), advanced=True
    )
    average: float = knob(
        0.0, 0.0, 0.99, help="share of the past in what is shown; calmer pictures", advanced=True
    )
    cutouts: int = knob(16, 1, 128, help="views that CLIP gets of every step", advanced=True)
    cutouts_end: int = knob(0, 0, 128, help="views at the end; 0 for as many as before", advanced=True)
    views: str = knob(
        "small",
        help="small views are faster, full ones as large as CLIP can see",
        choices=("small", "full"),
        advanced=True,
    )
    scheme: str = knob("mixed", help="how the views are cut", choices=SCHEMES, advanced=True)
    closest: float = knob(
        0.4, 0.1, 0.95, help="the closest view, as a share of the shorter side", advanced=True
    )
    pull: float = knob(
        1.0,
        0.0,
        10.0,
        help="stay like the start picture, or white, where CLIP does not care; not while the canvas moves",
        advanced=True,
    )
    smooth: float = knob(0.0, 0.0, 10.0, help="fewer edges", advanced=True)
    colour: float = knob(0.0, -10.0, 10.0, help="more colour; below zero less", advanced=True)
    palette: str = knob("", help="colours to keep to, such as #d9432f #faf8f4", advanced=True)
    symmetry: float = knob(0.0, 0.0, 10.0, help="left like right", advanced=True)
    tile: bool = knob(False, help="seamless: the edges meet when it is laid side by side", advanced=True)
    coarse: int = knob(0, 0, 3, help="start small and double the canvas so many times", advanced=True)
    animate: int = knob(
        0, 0, 1000, help="move the canvas every so many steps, for a film; 0 for never", advanced=True
    )
    zoom: float = knob(1.02, 0.5, 2.0, help="of one move", advanced=True)
    pan_x: float = knob(0.0, -512.0, 512.0, help="pixels to the right in one move", advanced=True)
    pan_y: float = knob(0.0, -512.0, 512.0, help="pixels down in one move", advanced=True)
    rotate: float = knob(0.0, -180.0, 180.0, help="degrees in one move", advanced=True)
    precision: str = knob(
        "auto",
        help="of the decoder: auto is float32; bfloat16 is faster on large canvases where the processor has matrix units",
        choices=PRECISIONS,
        advanced=True,
    )
    until: int = knob(0, 0, 20_000, help="stop after this step; 0 to go on to the end", advanced=True)
    changes: str = knob("", help="JSON: step -> settings that change there", kind="changes", advanced=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size and not re.fullmatch(r"\s*\d{1,5}\s*[xX×]\s*\d{1,5}\s*", self.size):
            raise BadInput("optimize.size_form", size=self.size[:20])
        if self.palette:
            parse_palette(self.palette)
        for one in parse_targets(self.noise_prompts):
            if not one.text.isdigit() or int(one.text) >= 2**32:
                raise BadInput("optimize.noise_prompt_form", text=one.text[:20])
        if self.tokens and not re.fullmatch(r"\d{1,6}( \d{1,6}){0,16383}", self.tokens):
            raise BadInput("optimize.tokens_form")
        parse_regions(self.regions)
        for _, scene in parse_story(self.prompt, self.steps):
            check_targets(parse_targets(scene))
        if self.mask and self.animate:
            raise BadInput("optimize.mask_and_animate")
        if self.changes:
            self.timeline()

    @classmethod
    def recorded(cls, values: dict[str, Any], picture: dict[str, Any]) -> dict[str, Any]:
        """Before `precision` was a setting, what it had been was told of the picture, as bf16 or float32."""
        earlier = {"bf16": "bfloat16", "float32": "float32"}.get(str(picture.get("precision")))
        return {"precision": earlier, **values} if earlier else values

    def timeline(self) -> list[tuple[int, OptimizeSettings]]:
        """The settings in force from each step on, from step 0; BadInput when `changes` is not what it should be."""
        steps: list[tuple[int, OptimizeSettings]] = [(0, replace(self, changes=""))]
        for step, fields in self.changes_by_step():
            steps.append((step, replace(steps[-1][1], **fields)))
        return steps

    def changed(self, step: int, **fields: Any) -> OptimizeSettings:
        """These settings with fields changed from `step` on; what was planned for later steps is forgotten."""
        past = {str(when): what for when, what in self.changes_by_step() if when < step}
        now = next(settings for when, settings in reversed(self.timeline()) if when <= step)
        same_step = dict(self.changes_by_step()).get(step, {})
        news = {name: value for name, value in fields.items() if value != getattr(now, name)}
        if step == 0:
            return replace(self, **{**news, "changes": ""})
        if same_step or news:
            past[str(step)] = same_step | news
        return replace(self, changes=json.dumps(past) if past else "")

    def map_pictures(self, change: Callable[[str], str]) -> OptimizeSettings:
        """Also the pictures inside lists of targets and inside changes."""
        fields = map_pictures_in(
            {name: getattr(self, name) for name in ("init", "mask", "regions", "image_prompts")}, change
        )
        if self.changes:
            changed = {str(step): map_pictures_in(what, change) for step, what in self.changes_by_step()}
            fields["changes"] = json.dumps(changed)
        return replace(self, **fields)

    def changes_by_step(self) -> list[tuple[int, dict[str, Any]]]:
        """`changes`, read and in order: step and the fields that change there."""
        if not self.changes:
            return []
        try:
            found = json.loads(self.changes)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise BadInput("optimize.changes_form")
        names = {one.name for one in self.knobs()} - set(FIXED)
        steps: list[tuple[int, dict[str, Any]]] = []
        for key, fields in found.items():
            if not re.fullmatch(r"[1-9]\d{0,4}", key) or not isinstance(fields, dict):
                raise BadInput("optimize.changes_step", step=key[:20])
            for name in fields:
                if name not in names:
                    raise BadInput(
                        "optimize.changes_setting", setting=name[:40], known=", ".join(sorted(names))
                    )
            steps.append((int(key), fields))
        return sorted(steps, key=lambda pair: pair[0])


def map_pictures_in(fields: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """The same fields with every picture in them changed."""
    mapped = dict(fields)
    for name in ("init", "mask"):
        if mapped.get(name):
            mapped[name] = change(mapped[name])
    if mapped.get("regions"):
        mapped["regions"] = map_regions(mapped["regions"], change)
    if mapped.get("image_prompts"):
        mapped["image_prompts"] = map_targets(mapped["image_prompts"], change)
    return mapped
