"""The parts of the page that stand outside the tabs."""

from __future__ import annotations

from markupsafe import Markup

from app.serving import Serving
from app.ui.i18n import both
from app.ui.markup import html


def queue_status(busy: bool, waiting: int) -> Markup:
    """The header's word on the queue."""
    state = (
        both("queue_ahead", count=waiting) if waiting else both("queue_busy") if busy else both("queue_idle")
    )
    return html('<span class="queue-status{}">{}</span>', " busy" if busy else "", state)


def header() -> Markup:
    """Name, language, light and dark, and what is shown while the connection is cut.

    The queue's line stands in its own place beside it.
    """
    return html(
        '<header class="masthead"><h1 class="name"><i></i>Atelier</h1><span class="tools" role="group">'
        '<button type="button" data-set-lang="en" data-act="language" data-to="en" lang="en">EN</button>'
        '<button type="button" data-set-lang="zh" data-act="language" data-to="zh" lang="zh-CN">中文</button>'
        '<button type="button" data-set-theme class="sun"><i aria-hidden="true"></i>'
        '<span class="only-heard">{}</span></button></span></header><p id="cut" role="status" hidden>{}</p>',
        both("theme"),
        both("line_cut"),
    )


def served(serving: Serving) -> Markup:
    """A quiet line for a studio that other machines can reach: who may come in, and who sees what is made."""
    seen = both("served_apart" if serving.apart else "served_shared")
    return html('<p class="served">{} {}</p>', both(f"served_{serving.protection}"), seen)
