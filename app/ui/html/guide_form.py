"""The part of Optimize's form that belongs to Guide. HTML; the script reads and fills it, and nothing here acts."""

from __future__ import annotations

from markupsafe import Markup

from app.ui.components import plain_field
from app.ui.i18n import both
from app.ui.markup import html, joined
from pipelines.core.settings import Knob

FOLDS = {  # words of a fold -> the advanced settings in it; all others are in the last
    "guide_cuts": "cut_overview cut_innercut cut_ic_pow cut_icgray_p cutn_batches cutout_size image_prompts",
    "guide_scales": "clamp_max whole_gradient eta tv_scale range_scale sat_scale init_scale",
    "guide_frames": "max_frames zoom rotate pan_x pan_y frames_skip_steps frames_scale",
    "guide_more": "",
}


def form(knobs: dict[str, Knob]) -> Markup:
    """An input for each of these settings, named as it; the advanced ones are folded away, those of a kind together."""
    folded = {name: fold for fold, names in FOLDS.items() for name in names.split()}
    parts: dict[str, list[Knob]] = {fold: [] for fold in ("", *FOLDS)}
    for knob in knobs.values():
        parts[folded.get(knob.name, "guide_more") if knob.advanced else ""].append(knob)
    plain = joined(plain_field(knob, "guide") for knob in parts.pop(""))
    folds = joined(
        html(
            '<details class="more-settings"><summary>{}</summary><div class="fields">{}</div></details>',
            both(words),
            joined(plain_field(knob, "guide") for knob in own),
        )
        for words, own in parts.items()
        if own
    )
    return html('<div class="guide-form"><div class="basics">{}</div>{}</div>', plain, folds)
