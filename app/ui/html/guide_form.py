"""The part of Optimize's form that belongs to Guide. HTML; the script reads and fills it, and nothing here acts."""

from __future__ import annotations

from markupsafe import Markup

from app.ui.components import plain_field
from app.ui.i18n import both
from app.ui.markup import html, joined
from pipelines.core.settings import Knob


def form(knobs: dict[str, Knob]) -> Markup:
    """An input for each of these settings, named as it; the advanced ones are folded away."""
    plain, advanced = (
        joined(plain_field(knob, "guide") for knob in knobs.values() if knob.advanced == folded)
        for folded in (False, True)
    )
    return html(
        '<div class="guide-form"><div class="basics">{}</div><details class="more-settings"><summary>{}</summary>'
        '<div class="fields">{}</div></details></div>',
        plain,
        both("guide_more"),
        advanced,
    )
