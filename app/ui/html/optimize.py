"""What a run of Optimize looks like: the picture, its controls, its timeline. HTML from a Job; nothing here acts.

The script of the page adds what needs no server: looking back along the timeline and painting a mask, both as layers
over the picture in `.frame`.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup
from PIL import Image

from app.jobs.queue import Job
from app.ui.html import axes
from app.ui.html.common import (
    KEYS,
    WAITING,
    Trace,
    button,
    button_row,
    compare_button,
    curves,
    downloads,
    example_tiles,
    figure,
    frame,
    legend,
    link_of,
    press,
    row_words,
    standing,
)
from app.ui.i18n import KNOBS, both, pair
from app.ui.markup import html, joined
from app.ui.pictures import Pictures, preview_uri
from pipelines.errors import BadInput, Message

PIXELS = 512  # of the live picture
MORE = 50  # steps that "go further" adds
MOST_TICKS = 200  # snapshots that are drawn; the slider reaches all


# ---------------------------------------------------------------------------------------------------------- canvas


def empty(pictures: Pictures) -> Markup:
    """Before anything has been made: what happens here, and pictures to begin with."""
    shown = example_tiles(pictures, 4)
    hint = html("<p>{}</p>", both("opt_empty_examples")) if shown else ""
    return html(
        '<section class="stage plate empty" data-state="empty">{}<h2>{}</h2><p>{}</p>{}</section>',
        shown,
        both("opt_empty_title"),
        both("opt_empty_text"),
        hint,
    )


def ready(picture: Image.Image) -> Markup:
    """A picture to start from lies on the canvas; nothing runs yet."""
    return html(
        '<section class="stage plate ready" data-state="ready">{}'
        '<div class="said"><b>{}</b><span>{}</span></div></section>',
        frame(preview_uri(picture, PIXELS), "", picture.size),
        both("opt_ready"),
        both("opt_ready_text"),
    )


def canvas(job: Job, pictures: Pictures, live: Image.Image | None, trace: Trace) -> Markup:
    """The large place: what a run shows now, and how it stands."""
    prompt = in_force(job)["prompt"]
    facts = html('data-job="{}" data-state="{}" data-step="{}"', job.id, job.state, job.done or "")
    if job.pictures:
        inside = _figures(job, pictures, bool(trace.steps))
    elif live is not None:
        inside = frame(preview_uri(live, PIXELS), prompt, live.size)
    elif trace.steps:
        inside = frame(f"glimpse/{job.id}/{trace.steps[-1]}.jpg", prompt)
    elif str(job.settings.get("image", "")).startswith("data:image/"):
        inside = frame(str(job.settings["image"]), prompt)
    else:
        inside = WAITING
    status = _standing(job, trace)
    return html('<section class="stage plate {}" {}>{}{}</section>', job.state, facts, status, inside)


def _standing(job: Job, trace: Trace) -> Markup:
    """One line on where the run stands, and a sentence when something needs saying."""
    step = int(job.pictures[-1].get("step", 0)) if job.pictures else (trace.steps or (0,))[-1]
    if job.state == "done":
        ended = both("done"), both("opt_after", step=step)
    elif job.state == "stopped":
        ended = both("opt_paused"), both("opt_paused_at", step=step) if step else both("opt_paused_none")
    else:
        how = both("failed" if job.state == "failed" else "opt_interrupted")
        ended = how, both("opt_kept", step=step) if step else both("failed_kept")
    last = job.pictures[-1] if job.pictures else {}
    reason = last.get("ended_by") or last.get("ended")  # records of earlier versions have the sentence alone
    cause = Message.from_json(reason) if reason else None
    return standing(job, in_force(job)["prompt"], ended, beside=_switch(job), cause=cause)


def _first(job: Job) -> int:
    """Which picture is shown at first: the critic's best when done, the last one when paused, because there it goes on."""
    return 0 if job.state == "done" else len(job.pictures) - 1


def _switch(job: Job) -> Markup | str:
    """Buttons for the critic's best picture and the last one, when they are two."""
    if len(job.pictures) < 2 or axes.is_sheet(job):
        return ""
    buttons = joined(
        html(
            '<button type="button" data-view="{}" aria-pressed="{}">{}</button>',
            index,
            "true" if index == _first(job) else "false",
            both(key, step=job.pictures[index].get("step", "?")),
        )
        for index, key in enumerate(("opt_best", "opt_last"))
    )
    return html('{}<div class="switch" role="group">{}</div>', compare_button(), buttons)


def _figures(job: Job, pictures: Pictures, filmed: bool) -> Markup:
    """The critic's best picture and the last one, of which one is shown."""
    first = _first(job)
    films = ""
    if filmed:
        films = joined(
            html('<a class="quiet" href="film/{}.{}" download>{}</a>', job.id, kind, name)
            for kind, name in (("mp4", "MP4"), ("webp", "WebP"))
        )
    cells = ""
    if axes.is_sheet(job):
        urls = [pictures.url(picture["path"]) for picture in job.pictures]
        cells = axes.cells(job, urls, lambda k: html('data-view="{}"', k))
    return html(
        '<div class="figures">{}{}</div>',
        joined(
            figure(
                index,
                index == first,
                frame(pictures.url(picture["path"]), in_force(job)["prompt"]),
                _facts(picture),
                _acts(job, pictures, picture["path"], films),
            )
            for index, picture in enumerate(job.pictures)
        ),
        cells,
    )


def _facts(picture: dict[str, Any]) -> list[Markup]:
    """The figures of one picture."""
    facts = [both("opt_step", step=picture["step"])] if "step" in picture else []
    for name, key in (("clip", "opt_clip_is"), ("score", "opt_critic_is")):
        if picture.get(name) is not None:
            facts.append(both(key, score=f"{picture[name]:.3f}"))
    return [*facts, both("seed_is", seed=picture["seed"])]


def _acts(job: Job, pictures: Pictures, path: str, films: str) -> tuple[str, ...]:
    """What can be done with one picture."""
    name = pictures.name(path)
    return (
        downloads(pictures.url(path), name, job.settings, "png"),
        films,
        button("opt_begin", "begin-with", name=name),
        button("edit_this", "edit", name=name),
        button("why", "see", name=name),
        link_of(job),
    )


# ------------------------------------------------------------------------------------------------------- transport


def controls(job: Job | None, steps: Sequence[int] = ()) -> Markup:
    """The buttons below the form. The first one is the next thing to do, and what Ctrl+Enter presses."""
    back = press("opt_back", "back") if steps else ""
    if job is None:
        parts = [press("opt_start", "start", main=True, first=True)]
    elif job.state == "queued":
        parts = [press("opt_cancel", "pause")]
    elif job.state == "running":
        parts = [press("opt_pause", "pause", main=True), press("opt_apply", "apply", first=True), back]
    elif job.state == "done":
        more = (
            press("opt_more", "more", more=MORE) if job.pipeline == "optimize" else ""
        )  # noise ends, steps do not
        parts = [press("opt_start", "start", main=True, first=True), more, back]
    else:
        again = "opt_again" if job.state == "failed" and not steps else "opt_resume"
        parts = [press(again, "resume", main=True, first=True), back, press("opt_anew", "start")]
    return button_row(*parts, KEYS)


# -------------------------------------------------------------------------------------------------------- timeline


def timeline(job: Job, trace: Trace, settings: Any) -> Markup | str:
    """The run from its first step to its last: snapshots to look at, changes as flags, both scores as curves."""
    if not trace.steps:
        return ""
    end = max(settings.timeline()[-1][1].length(), trace.steps[-1], 1)
    flags, rows = _scene_marks(trace, scenes(settings, end), end)
    fork = html(
        '<span class="scrubbed" hidden><span class="at"></span>{}{}'
        '<button type="button" class="quiet" data-now>{}</button></span>',
        button("opt_fork", "fork", step=0),
        button("why", "see", step=0, job=job.id),
        both("opt_now"),
    )
    scores = legend(f"{trace.curve[-1][1]:.3f}", f"{trace.curve[-1][2]:.3f}") if trace.curve else ""
    return html(
        '<section class="timeline" data-job="{}" data-steps="{}" data-end="{}">'
        '<div class="head"><h3>{}</h3><span class="legend">{}</span>{}</div><div class="track">{}'
        '<div class="ticks"><i class="past" style="width:{}"></i>{}{}</div>'
        '<input type="range" min="0" max="{}" value="{}" aria-label="steps, 步数"></div>'
        '{}<ol class="scenes">{}</ol></section>',
        job.id,
        " ".join(map(str, trace.steps)),
        end,
        both("opt_timeline"),
        scores,
        fork,
        curves(trace.curve, end),
        _percent(trace.steps[-1], end),
        _ticks(trace.steps, end),
        flags,
        end,
        trace.steps[-1],
        html('<p class="drift">{}</p>', both("opt_drift")) if _drifts(job) else "",
        rows,
    )


def _percent(step: int, end: int) -> str:
    """Where a step lies on the timeline."""
    return f"{100 * step / end:.2f}%"


def _drifts(job: Job) -> bool:
    """Whether the run pleases CLIP alone: as it says while it runs, or as its last picture says."""
    drift = job.metrics.get("drift") if job.state == "running" else None
    if drift is None and job.pictures:
        return bool(job.pictures[-1].get("drift"))
    return bool(drift)


def _ticks(steps: Sequence[int], end: int) -> Markup:
    """The snapshots, at most MOST_TICKS of them."""
    tick = (
        '<button type="button" class="tick" tabindex="-1" data-scrub="{}" style="left:{}" '
        'title="{}" aria-label="{}"></button>'
    )
    shown = steps[:: -(-len(steps) // MOST_TICKS)]
    return joined(html(tick, step, _percent(step, end), step, step) for step in shown)


def _scene_marks(
    trace: Trace, course: Sequence[tuple[int, str, tuple[str, str]]], end: int
) -> tuple[Markup, Markup]:
    """The scenes of a run as flags on the timeline and as rows below it. Each leads to the first snapshot that saw it."""
    flags, rows = Markup(), Markup()
    for step, prompt, what in course:
        nearest = trace.steps[min(bisect_left(trace.steps, step), len(trace.steps) - 1)]
        if step:
            flags += html(
                '<button type="button" class="flag" tabindex="-1" data-scrub="{}" style="left:{}" '
                'title="{}: {}">⚑</button>',
                nearest,
                _percent(step, end),
                step,
                prompt or what[0],
            )
        rows += html(
            '<li><button type="button" data-scrub="{}"><b>{}</b><span>{}</span></button></li>',
            nearest,
            step,
            prompt or pair(*what),
        )
    return flags, rows


def scenes(settings: Any, end: int) -> list[tuple[int, str, tuple[str, str]]]:
    """(step, prompt, names of what changed in both languages): the course of a run up to `end`.

    The prompt is empty where something else changed.
    """
    entries: list[tuple[int, str, tuple[str, str]]] = []
    course = settings.timeline()
    bounds = [*(step for step, _ in course[1:]), end + 1]
    before, words_before = None, None
    for (since, now), until in zip(course, bounds, strict=True):
        try:
            story = now.story()
        except BadInput:
            story = [(0, now.prompt)]
        listed = False
        for k, (begin, words) in enumerate(story):
            ends = story[k + 1][0] if k + 1 < len(story) else until
            if begin < until and ends > since and words != words_before:
                entries.append((max(begin, since), words, ("", "")))
                words_before, listed = words, True
        if before is not None and not listed:
            names = [knob for knob in KNOBS if getattr(now, knob, None) != getattr(before, knob, None)]
            what = (", ".join(KNOBS[name][0] for name in names), "、".join(KNOBS[name][1] for name in names))
            entries.append((since, "", what))
        before = now
    return entries


def in_force(job: Job) -> dict[str, Any]:
    """The settings of a job, with what was changed last while it ran."""
    settings = {"prompt": "", **job.settings}
    try:
        changes = json.loads(settings.get("changes") or "{}")
        for _, fields in sorted(changes.items(), key=lambda pair: int(pair[0])):
            settings |= fields
    except (ValueError, AttributeError, TypeError):
        pass
    return settings


def rows() -> Markup:
    """Where the script lists the parts of the prompt, each with its weight, and what is told about them."""
    return html(
        '<div class="targets" data-targets></div><div class="reading" data-notes></div>{}', row_words()
    )
