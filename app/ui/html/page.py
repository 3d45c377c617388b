"""The parts of the page that stand outside the tabs."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from app.jobs.queue import Job
from app.serving import Serving
from app.ui.context import DRAWING
from app.ui.html.common import button, title_of, underway
from app.ui.i18n import both, both_aloud
from app.ui.markup import html, joined


def queue_status(busy: bool, waiting: int, line: Sequence[Job] = (), paused: bool = False) -> Markup:
    """The header's word on the queue, which opens the list of the visitor's own runs: `line`, in their order."""
    state = (
        both("queue_ahead", count=waiting) if waiting else both("queue_busy") if busy else both("queue_idle")
    )
    state = both("queue_paused", count=len(line)) if paused and line else state
    waits = [job for job in line if job.state == "queued"]
    rows = joined(_queued(job, waits) for job in line)
    acts = button("queue_go_on" if paused else "queue_pause", "queue-go-on" if paused else "queue-pause")
    if waits:
        acts += button("queue_clear", "queue-clear")
    return html(
        '<details class="queue"><summary class="queue-status{}">{}</summary><div class="queue-panel" role="group" '
        'aria-label="{}">{}<div class="acts">{}</div></div></details>',
        " paused" if paused else " busy" if busy else "",
        html('<span class="state">{}</span><span class="trains">{}</span>', state, both("queue_training")),
        both_aloud("queue_title"),
        html("<ol>{}</ol>", rows) if line else html("<p>{}</p>", both("queue_empty")),
        acts,
    )


def _queued(job: Job, waits: Sequence[Job]) -> Markup:
    """One run of the list: what it draws, how it stands, and what can be done with it."""
    title, place = title_of(job), waits.index(job) if job in waits else None
    tool = '<button type="button" class="quiet" data-act="{}" data-job="{}" aria-label="{}: {}"{}>{}</button>'
    if place is None:
        tools = html(tool, "queue-stop", job.id, both_aloud("stop"), title, "", "■")
    else:
        first, last = place == 0, place == len(waits) - 1
        tools = html(tool, "queue-up", job.id, both_aloud("queue_up"), title, _off(first), "▲")
        tools += html(tool, "queue-down", job.id, both_aloud("queue_down"), title, _off(last), "▼")
        tools += html(tool, "queue-drop", job.id, both_aloud("queue_drop"), title, "", "×")
    doing, where, _ = underway(job)
    opens = html('data-act="open" data-job="{}"', job.id) if job.pipeline in DRAWING else ""
    return html(
        '<li class="{}"><button type="button" class="what" {} title="{}"><b>{}</b><small>{} {}</small></button>{}</li>',
        job.state,
        opens,
        title,
        title,
        doing,
        where if job.position or place is None else "",
        tools,
    )


def _off(off: bool) -> Markup:
    return Markup(" disabled" if off else "")


KEYS = (  # what stands on the key, and the words of what it does
    ("Ctrl Enter", "key_go"),
    ("↑ ↓", "key_prompts"),
    ("← →", "key_tiles"),
    ("Ctrl Z", "key_undo"),
    ("+ − 0", "key_zoom"),
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
        '<span class="only-heard">{}</span></button></span></header><p id="cut" role="status" hidden>{}</p>{}{}{}{}',
        both("theme"),
        both("keys"),
        both("line_cut"),
        _welcome(),
        _tell(),
        _keys(),
        _beside(),
    )


def _beside() -> Markup:
    """The dialog that lays two results of a tool under a slider; the script fills it."""
    return html(
        '<dialog id="beside" class="beside sliding" aria-label="{}"><header><h2>{}</h2>'
        '<button type="button" class="bare close" aria-label="{}">×</button></header>'
        '<div class="versus"><div class="over"><img alt=""><img class="cut" alt="">'
        '<input type="range" class="wipe" min="0" max="100" value="50" aria-label="{}"></div></div>'
        '<div class="panes" role="group" aria-label="{}"></div><p class="small pick">{}</p></dialog>',
        both_aloud("compare_title"),
        both("compare_title"),
        both_aloud("close"),
        both_aloud("lib_divide"),
        both_aloud("compare_pick"),
        both("compare_pick"),
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
