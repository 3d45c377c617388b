"""The parts of the page that stand outside the tabs."""

from __future__ import annotations

from markupsafe import Markup

from app.serving import Serving
from app.ui.i18n import both
from app.ui.markup import html, joined


def queue_status(busy: bool, waiting: int) -> Markup:
    """The header's word on the queue."""
    state = (
        both("queue_ahead", count=waiting) if waiting else both("queue_busy") if busy else both("queue_idle")
    )
    return html('<span class="queue-status{}">{}</span>', " busy" if busy else "", state)


KEYS = (  # what stands on the key, and the words of what it does
    ("Ctrl Enter", "key_go"),
    ("↑ ↓", "key_prompts"),
    ("← →", "key_tiles"),
    ("?", "key_help"),
    ("Esc", "key_close"),
)
STEPS = ("welcome_prompt", "welcome_go", "welcome_tabs")


def header() -> Markup:
    """Name, language, light and dark, the keys, and what is shown while the connection is cut.

    The queue's line stands in its own place beside it.
    """
    return html(
        '<header class="masthead"><h1 class="name"><i></i>Atelier</h1><span class="tools" role="group">'
        '<button type="button" data-set-lang="en" data-act="language" data-to="en" lang="en">EN</button>'
        '<button type="button" data-set-lang="zh" data-act="language" data-to="zh" lang="zh-CN">中文</button>'
        '<button type="button" data-set-theme class="sun"><i aria-hidden="true"></i>'
        '<span class="only-heard">{}</span></button>'
        '<button type="button" data-keys aria-haspopup="dialog"><b aria-hidden="true">?</b>'
        '<span class="only-heard">{}</span></button></span></header><p id="cut" role="status" hidden>{}</p>{}{}{}',
        both("theme"),
        both("keys"),
        both("line_cut"),
        _welcome(),
        _tell(),
        _keys(),
    )


def _welcome() -> Markup:
    """The first visit, one step at a time; the script shows it once."""
    parts = joined(
        html('<p data-part="{}" hidden><b class="number">{}/{}</b>{}</p>', k, k + 1, len(STEPS), both(step))
        for k, step in enumerate(STEPS)
    )
    return html(
        '<section class="band" id="welcome" role="note" hidden>{}'
        '<span class="acts"><button type="button" class="quiet" data-welcome="next">{}</button>'
        '<button type="button" class="quiet" data-welcome="skip">{}</button></span></section>',
        parts,
        both("welcome_next"),
        both("welcome_close"),
    )


def _tell() -> Markup:
    """Asked once, during a long run: whether a notification says that it is done; and what it says."""
    return html(
        '<section class="band" id="tell" role="status" hidden><p>{}</p><span class="acts">'
        '<button type="button" class="quiet" data-tell="yes">{}</button>'
        '<button type="button" class="quiet" data-tell="no">{}</button></span></section>'
        '<span hidden id="told-done">{}</span><span hidden id="told-failed">{}</span>',
        both("tell_ask"),
        both("tell_yes"),
        both("tell_no"),
        both("tell_done"),
        both("tell_failed"),
    )


def _keys() -> Markup:
    """The dialog that lists the keys."""
    rows = joined(
        html(
            "<dt>{}</dt><dd>{}</dd>", joined(html("<kbd>{}</kbd> ", key) for key in keys.split()), both(does)
        )
        for keys, does in KEYS
    )
    return html(
        '<dialog id="keys" aria-labelledby="keys-title"><h2 id="keys-title">{}</h2><dl>{}</dl>'
        '<button type="button" class="quiet" data-keys autofocus>{}</button></dialog>',
        both("keys"),
        rows,
        both("close"),
    )


def served(serving: Serving) -> Markup:
    """A quiet line for a studio that other machines can reach: who may come in, and who sees what is made."""
    seen = both("served_apart" if serving.apart else "served_shared")
    return html('<p class="served">{} {}</p>', both(f"served_{serving.protection}"), seen)
