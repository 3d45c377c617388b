"""The link beside every picture: the button that copies it, and what a tab says that was opened by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from app.recipe import Kinds, Recipe, recipe_of
from app.ui.i18n import KNOBS, both, both_aloud, both_sentence, pair, say
from app.ui.markup import html
from pipelines.errors import BadInput


def copy_link(pipeline: str, settings: Mapping[str, Any], kinds: Kinds | None = None) -> Markup:
    """A quiet button that copies a link with these settings, and what the script shows once it was pressed.

    The script knows the page's address; when the browser forbids copying, it shows the link in a field instead.
    `kinds` is what pipelines are looked up in, PIPELINES unless given.
    """
    try:
        recipe = recipe_of(pipeline, settings, kinds)
        text = recipe.text()
        notice = html(
            '<span class="copied">{}</span><span class="by-hand">{}</span> '
            '{}<input type="text" readonly aria-label="{}">',
            both("link_copied"),
            both("link_by_hand"),
            _without(pipeline, recipe.left_out),
            both_aloud("copy_link"),
        )
    except BadInput as problem:  # too long for a link
        text, notice = "", html("<span>{}</span>", both_sentence(problem))
    return html(
        '<button type="button" class="quiet" data-link="{}">{}</button><div class="told" hidden>{}</div>',
        text,
        both("copy_link"),
        notice,
    )


def opened(recipe: Recipe) -> Markup:
    """The note of a tab whose form was filled from a link."""
    return html('<p class="note">{} {}</p>', both("link_opened"), _without(recipe.pipeline, recipe.left_out))


def _without(pipeline: str, left_out: Sequence[str]) -> Markup | str:
    """What a link could not carry, in a sentence; nothing when it carries all."""
    if not left_out:
        return ""
    labels = [KNOBS.get(f"{pipeline}_{name}") or KNOBS.get(name, (name, name, "")) for name in left_out]
    english, chinese = (", ".join(label[0] for label in labels), "、".join(label[1] for label in labels))
    return html(
        "<span>{}</span>",
        pair(
            say("link_without", "en").format(names=english), say("link_without", "zh").format(names=chinese)
        ),
    )
