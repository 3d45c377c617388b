"""HTML that escapes by itself: text put into a template is text, whoever wrote it, and only what was made here is HTML."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup


def html(template: str, /, *values: object) -> Markup:
    """HTML from a template of ours whose `{}` fields are filled in turn; values that are not Markup are escaped."""
    return Markup(template).format(*values)


def joined(parts: Iterable[object]) -> Markup:
    """Parts one after another; those that are not Markup are escaped."""
    return Markup().join(parts)  # type: ignore[arg-type]
