"""The link beside every picture: the button that copies it, and what a tab says that was opened by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from app.recipe import Recipe, recipe_of
from app.ui.i18n import KNOBS, both, both_sentence, pair, say
from pipelines.errors import BadInput


def copy_link(pipeline: str, settings: Mapping[str, Any]) -> str:
    """A quiet button that copies a link with these settings, and what the script shows once it was pressed.

    The script knows the page's address; when the browser forbids copying, it shows the link in a field instead.
    """
    try:
        recipe = recipe_of(pipeline, settings)
        text = recipe.text()
        said = (
            f'<span class="copied">{both("link_copied")}</span><span class="by-hand">{both("link_by_hand")}</span> '
            f'{_without(pipeline, recipe.left_out)}<input type="text" readonly '
            f'aria-label="{escape(say("copy_link", "en"))}, {escape(say("copy_link", "zh"))}">'
        )
    except BadInput as problem:  # too long for a link
        text, said = "", f"<span>{both_sentence(problem)}</span>"
    return (
        f'<button type="button" class="quiet" data-link="{text}">{both("copy_link")}</button>'
        f'<div class="told" hidden>{said}</div>'
    )


def opened(recipe: Recipe) -> str:
    """The note of a tab whose form was filled from a link."""
    return f'<p class="note">{both("link_opened")} {_without(recipe.pipeline, recipe.left_out)}</p>'


def _without(pipeline: str, left_out: Sequence[str]) -> str:
    """What a link could not carry, in a sentence; nothing when it carries all."""
    if not left_out:
        return ""
    labels = [KNOBS.get(f"{pipeline}_{one}") or KNOBS.get(one, (one, one, "")) for one in left_out]
    english, chinese = (", ".join(one[0] for one in labels), "、".join(one[1] for one in labels))
    return (
        "<span>"
        + pair(
            say("link_without", "en").format(names=escape(english)),
            say("link_without", "zh").format(names=escape(chinese)),
        )
        + "</span>"
    )
