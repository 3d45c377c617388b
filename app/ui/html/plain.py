"""What a run of a plain tab looks like: how it stands, what is being made, and its pictures with their records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup
from PIL import Image

from app.jobs.queue import Job
from app.recipe import Kinds
from app.ui.html.common import (
    KEYS,
    WAITING,
    button,
    button_row,
    downloads,
    figures_line,
    press,
    preview_tiles,
    standing,
    title_of,
)
from app.ui.i18n import both
from app.ui.link import copy_link
from app.ui.markup import html, joined
from app.ui.pictures import Pictures

PREVIEW_PIXELS = 384  # at most, of each
MAX_PREVIEWS = 16


def empty() -> Markup:
    """Before anything has been made."""
    return html(
        '<section class="stage plate empty" data-state="empty"><p>{}</p></section>', both("plain_empty")
    )


def stage(job: Job, pictures: Pictures, previews: Sequence[Image.Image], kinds: Kinds) -> Markup:
    """The large place: how a run stands, and its pictures or what is being made. `kinds` are the pipelines known."""
    shown = len(job.pictures) or min(len(previews), MAX_PREVIEWS)
    if job.pictures:
        inside = joined(_picture(job, pictures, picture, kinds) for picture in job.pictures)
    elif previews:
        inside = preview_tiles(previews[:MAX_PREVIEWS], PREVIEW_PIXELS, title_of(job))
    else:
        inside = "" if job.is_over else WAITING
    return html(
        '<section class="stage plate {}" data-job="{}" data-state="{}">{}'
        '<div class="{}" style="--columns:{}">{}</div></section>',
        job.state,
        job.id,
        job.state,
        standing(job, title_of(job), _ended(job) if job.is_over else ("", "")),
        "results" if job.pictures else "tiles",
        min(4, max(1, round(shown**0.5))),
        inside,
    )


def _ended(job: Job) -> tuple[str, str]:
    """How a run ended, and what there is of it."""
    count = len(job.pictures)
    kept = {
        "done": both("plain_made", count=count),
        "stopped": both("stopped_kept", count=count) if count else both("stopped_none"),
        "interrupted": both("interrupted_text"),
    }
    return both(job.state), kept.get(job.state, both("failed_kept"))


def _picture(job: Job, pictures: Pictures, picture: dict[str, Any], kinds: Kinds) -> Markup:
    """One picture, its figures, and what can be done with it."""
    url, name = pictures.url(picture["path"]), pictures.name(picture["path"])
    facts = [both("seed_is", seed=picture["seed"])]
    if picture.get("score") is not None:
        facts.append(both("score", score=f"{picture['score']:.3f}"))
    acts = (
        downloads(url, name, job.settings),
        button("reuse", "reuse", name=name),
        button("optimize_this", "optimize", name=name),
        button("edit_this", "edit", name=name),
        button("why", "see", name=name),
        copy_link(job.pipeline, job.settings, kinds),
    )
    return html(
        '<figure><img src="{}" alt="{}"><figcaption>{}<div class="acts">{}</div></figcaption></figure>',
        url,
        title_of(job),
        figures_line(facts),
        joined(acts),
    )


def controls(job: Job | None) -> Markup:
    """The button that is next; Ctrl+Enter presses it."""
    if job is not None and not job.is_over:
        return button_row(press("stop" if job.state == "running" else "opt_cancel", "stop", main=True))
    failed = job is not None and job.state in ("stopped", "failed", "interrupted")
    again = press("opt_again", "again") if failed else ""
    return button_row(press("opt_start", "start", main=True, first=True), again, KEYS)
