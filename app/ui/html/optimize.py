"""What a run of Optimize looks like: the picture, its controls, its timeline. HTML from a Job; nothing here acts.

The script of the page adds what needs no server: looking back along the timeline and painting a mask, both as layers
over the picture in `.frame`. Every text that a user wrote passes `escape`.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from PIL import Image

from app.jobs.queue import Job
from app.ui.html.generate import button, downloads, eta, example_tiles
from app.ui.i18n import KNOBS, both, both_sentence, pair
from app.ui.link import copy_link
from app.ui.pictures import Pictures, preview_uri
from pipelines.errors import BadInput
from pipelines.optimize.prompts import parse_story

PIXELS = 512  # of the live picture
MORE = 50  # steps that "go further" adds
MOST_TICKS = 200  # snapshots that are drawn; the slider reaches all
CURVE_WIDTH, CURVE_HEIGHT = 1000, 72


@dataclass(frozen=True)
class Trace:
    """What the journal of a run tells the page."""

    steps: tuple[int, ...] = ()  # that have snapshots
    curve: tuple[tuple[int, float, float], ...] = ()  # step, CLIP's and the critic's score


# ---------------------------------------------------------------------------------------------------------- canvas


def empty(pictures: Pictures) -> str:
    """Before anything has been made: what happens here, and pictures to begin with."""
    shown = example_tiles(pictures, 4)
    hint = f"<p>{both('opt_empty_examples')}</p>" if shown else ""
    return (
        f'<section class="stage plate empty" data-state="empty">{shown}<h2>{both("opt_empty_title")}</h2>'
        f"<p>{both('opt_empty_text')}</p>{hint}</section>"
    )


def ready(picture: Image.Image) -> str:
    """A picture to start from lies on the canvas; nothing runs yet."""
    return (
        f'<section class="stage plate ready" data-state="ready">{frame(preview_uri(picture, PIXELS), "", picture.size)}'
        f'<div class="said"><b>{both("opt_ready")}</b><span>{both("opt_ready_text")}</span></div></section>'
    )


def canvas(job: Job, pictures: Pictures, live: Image.Image | None, trace: Trace) -> str:
    """The large place: what a run shows now, and how it stands."""
    prompt = escape(in_force(job)["prompt"])
    facts = f'data-job="{escape(job.id)}" data-state="{job.state}" data-step="{job.done or ""}"'
    if job.pictures:
        inside = _figures(job, pictures, bool(trace.steps))
    elif live is not None:
        inside = frame(preview_uri(live, PIXELS), prompt, live.size)
    elif trace.steps:
        inside = frame(f"glimpse/{escape(job.id)}/{trace.steps[-1]}.jpg", prompt)
    elif str(job.settings.get("init", "")).startswith("data:image/"):
        inside = frame(str(job.settings["init"]), prompt)
    else:
        inside = '<div class="frame waiting"><i></i></div>'
    told = _told(job, trace)
    return f'<section class="stage plate {job.state}" {facts}>{told}{inside}</section>'


def frame(source: str, alt: str, size: tuple[int, int] | None = None) -> str:
    ratio = f' style="--ratio:{size[0] / size[1]:.4f}"' if size else ""
    return f'<div class="frame"{ratio}><img class="now" src="{escape(source)}" alt="{alt}" decoding="sync"></div>'


def _told(job: Job, trace: Trace) -> str:
    """One line on where the run stands, and a sentence when something needs saying."""
    place, share, more = "", 0.0, ""
    step = int(job.pictures[-1].get("step", 0)) if job.pictures else (trace.steps[-1] if trace.steps else 0)
    if job.state == "queued":
        said = both("queued")
        place = both("queued_next") if job.position <= 1 else both("queued_place", position=job.position)
    elif job.state == "running":
        said = both(f"stage_{job.stage}" if job.stage in ("loading", "optimize") else "lane_busy")
        place = both("steps", done=job.done, total=job.total) if job.total else ""
        share = job.done / job.total if job.total else 0.0
    elif job.state == "done":
        said = both("done")
        place = both("opt_after", step=step)
    elif job.state == "stopped":
        said = both("opt_paused")
        place = both("opt_paused_at", step=step) if step else both("opt_paused_none")
    else:
        said = both(job.state if job.state == "failed" else "opt_interrupted")
        place = both("opt_kept", step=step) if step else both("failed_kept")
    if job.state == "failed":
        more = f'<p class="cause">{both_sentence(job.error)}</p>'
    if job.pictures and (ended := job.pictures[-1].get("ended")):
        more = f'<p class="cause">{both_sentence(str(ended))}</p>'
    if job.state in ("queued", "running"):
        more += (
            f'<div class="bar" role="progressbar" aria-label="{escape(in_force(job)["prompt"])}" '
            f'aria-valuenow="{share * 100:.0f}"><i style="width:{share:.1%}"></i></div>'
        )
    when = f'<span class="eta">{eta(job)}</span>'
    return f'<div class="said"><b>{said}</b><span>{place}</span>{when}{_switch(job)}</div>{more}'


def _first(job: Job) -> int:
    """Which picture is shown at first: the critic's best when done, the last one when paused, because there it goes on."""
    return 0 if job.state == "done" else len(job.pictures) - 1


def _switch(job: Job) -> str:
    """Buttons for the critic's best picture and the last one, when they are two."""
    if len(job.pictures) < 2:
        return ""
    buttons = "".join(
        f'<button type="button" data-view="{index}" aria-pressed="{"true" if index == _first(job) else "false"}">'
        f"{both(key, step=job.pictures[index].get('step', '?'))}</button>"
        for index, key in enumerate(("opt_best", "opt_last"))
    )
    return f'<div class="switch" role="group">{buttons}</div>'


def _figures(job: Job, pictures: Pictures, filmed: bool) -> str:
    """The critic's best picture and the last one, of which one is shown."""
    first = _first(job)
    films = ""
    if filmed:
        films = "".join(
            f'<a class="quiet" href="film/{escape(job.id)}.{kind}" download>{name}</a>'
            for kind, name in (("mp4", "MP4"), ("webp", "WebP"))
        )
    prompt = escape(in_force(job)["prompt"])
    figures = ""
    for index, one in enumerate(job.pictures):
        url, name = pictures.url(one["path"]), pictures.name(one["path"])
        told = [both("opt_step", step=one.get("step", "?"))]
        if one.get("clip") is not None:
            told.append(both("opt_clip_is", score=f"{one['clip']:.3f}"))
        if one.get("score") is not None:
            told.append(both("opt_critic_is", score=f"{one['score']:.3f}"))
        told.append(both("seed_is", seed=one["seed"]))
        figures += (
            f'<figure data-figure="{index}"{"" if index == first else " hidden"}>{frame(url, prompt)}'
            f'<figcaption><p class="facts">{"".join(f"<span>{x}</span>" for x in told)}</p>'
            f'<div class="acts">{downloads(url, name, job.settings, "png")}{films}'
            f"{button('opt_begin', 'begin-with', name=name)}{button('edit_this', 'edit', name=name)}"
            f"{copy_link(job.pipeline, job.settings)}"
            "</div></figcaption></figure>"
        )
    return f'<div class="figures">{figures}</div>'


# ------------------------------------------------------------------------------------------------------- transport


def transport(job: Job | None, steps: Sequence[int] = ()) -> str:
    """The buttons of the instrument. The first one is the next thing to do, and what Ctrl+Enter presses."""

    def press(key: str, act: str, *, main: bool = False, first: bool = False) -> str:
        """`first` is what Ctrl+Enter presses."""
        return (
            f'<button type="button" class="{"act" if main else "quiet"}" data-act="{act}"{" data-key" if first else ""}'
            f"{' data-back' if act == 'back' else ''}>{both(key, more=MORE)}</button>"
        )

    back = press("opt_back", "back") if steps else ""
    if job is None:
        parts = [press("opt_start", "start", main=True, first=True)]
    elif job.state == "queued":
        parts = [press("opt_cancel", "pause")]
    elif job.state == "running":
        parts = [press("opt_pause", "pause", main=True), press("opt_apply", "apply", first=True), back]
    elif job.state == "done":
        parts = [press("opt_start", "start", main=True, first=True), press("opt_more", "more"), back]
    else:
        again = "opt_again" if job.state == "failed" and not steps else "opt_resume"
        parts = [press(again, "resume", main=True, first=True), back, press("opt_anew", "start")]
    keys = "<span class='keys'><kbd>Ctrl</kbd> <kbd>Enter</kbd></span>"
    return f'<div class="transport">{"".join(parts)}{keys}</div>'


# -------------------------------------------------------------------------------------------------------- timeline


def timeline(job: Job, trace: Trace, settings: Any) -> str:
    """The run from its first step to its last: snapshots to look at, changes as flags, both scores as curves."""
    end = max(settings.timeline()[-1][1].steps, trace.steps[-1] if trace.steps else 0, 1)
    if not trace.steps:
        return ""

    def nearest(step: int) -> int:
        """The first snapshot that has seen a step, or the last one there is."""
        return trace.steps[min(bisect_left(trace.steps, step), len(trace.steps) - 1)]

    def at(step: float) -> str:
        return f"{100 * step / end:.2f}%"

    ticks = "".join(
        f'<button type="button" class="tick" tabindex="-1" data-scrub="{step}" style="left:{at(step)}" '
        f'title="{step}" aria-label="{step}"></button>'
        for step in trace.steps[:: -(-len(trace.steps) // MOST_TICKS)]
    )
    flags, rows = "", ""
    for step, words, what in scenes(settings, end):
        flag = "⚑" if step else ""
        if flag:
            flags += (
                f'<button type="button" class="flag" tabindex="-1" data-scrub="{nearest(step)}" '
                f'style="left:{at(step)}" title="{step}: {escape(words or what[0])}">{flag}</button>'
            )
        told = escape(words) if words else pair(*(escape(one) for one in what))
        rows += f'<li><button type="button" data-scrub="{nearest(step)}"><b>{step}</b><span>{told}</span></button></li>'
    drift = job.metrics.get("drift") if job.state == "running" else None
    if drift is None and job.pictures:
        drift = float(bool(job.pictures[-1].get("drift")))
    warning = f'<p class="drift">{both("opt_drift")}</p>' if drift else ""
    legend = ""
    if trace.curve:
        _, clip, critic = trace.curve[-1]
        legend = (
            f'<span class="key clip">CLIP {clip:.3f}</span>'
            f'<span class="key critic">{both("opt_critic")} {critic:.3f}</span>'
        )
    fork = (
        f'<span class="scrubbed" hidden><span class="at"></span>{button("opt_fork", "fork", step=0)}'
        f'<button type="button" class="quiet" data-now>{both("opt_now")}</button></span>'
    )
    steps = " ".join(map(str, trace.steps))
    return (
        f'<section class="timeline" data-job="{escape(job.id)}" data-steps="{steps}" data-end="{end}">'
        f'<div class="head"><h3>{both("opt_timeline")}</h3><span class="legend">{legend}</span>{fork}</div>'
        f'<div class="track">{curves(trace.curve, end)}<div class="ticks">'
        f'<i class="past" style="width:{at(trace.steps[-1])}"></i>{ticks}{flags}</div>'
        f'<input type="range" min="0" max="{end}" value="{trace.steps[-1]}" aria-label="steps, 步数"></div>'
        f'{warning}<ol class="scenes">{rows}</ol></section>'
    )


def scenes(settings: Any, end: int) -> list[tuple[int, str, tuple[str, str]]]:
    """(step, prompt, names of what changed in both languages): the course of a run up to `end`.

    The prompt is empty where something else changed.
    """
    found: list[tuple[int, str, tuple[str, str]]] = []
    course = settings.timeline()
    bounds = [*(step for step, _ in course[1:]), end + 1]
    before, words_before = None, None
    for (since, now), until in zip(course, bounds, strict=True):
        try:
            story = parse_story(now.prompt, now.steps)
        except BadInput:
            story = [(0, now.prompt)]
        told = False
        for k, (begin, words) in enumerate(story):
            ends = story[k + 1][0] if k + 1 < len(story) else until
            if begin < until and ends > since and words != words_before:
                found.append((max(begin, since), words, ("", "")))
                words_before, told = words, True
        if before is not None and not told:
            names = [one for one in KNOBS if getattr(now, one, None) != getattr(before, one, None)]
            what = (", ".join(KNOBS[one][0] for one in names), "、".join(KNOBS[one][1] for one in names))
            found.append((since, "", what))
        before = now
    return found


def curves(curve: Sequence[tuple[float, ...]], end: int, *, one_scale: bool = False) -> str:
    """CLIP's and the critic's score over the steps, each on its own scale when what counts is which way they go."""
    if len(curve) < 2:
        return f'<svg class="curves" viewBox="0 0 {CURVE_WIDTH} {CURVE_HEIGHT}" aria-hidden="true"></svg>'
    lines, floor, rise = "", CURVE_HEIGHT - 6, CURVE_HEIGHT - 12
    for index, name in ((1, "clip"), (2, "critic")):
        values = [
            value for point in curve for value in (point[1:] if one_scale else point[index : index + 1])
        ]
        low, span = min(values), max(max(values) - min(values), 0.02)
        points = " ".join(
            f"{CURVE_WIDTH * point[0] / end:.1f},{floor - rise * (point[index] - low) / span:.1f}"
            for point in curve
        )
        lines += f'<polyline class="{name}" points="{points}" vector-effect="non-scaling-stroke"/>'
    return (
        f'<svg class="curves" viewBox="0 0 {CURVE_WIDTH} {CURVE_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="CLIP, critic">{lines}</svg>'
    )


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


def brush() -> str:
    """The tools of the mask. The script of the page does the painting."""
    return (
        '<div class="brush" data-brush hidden>'
        f'<button type="button" class="quiet" data-paint aria-pressed="false">{both("opt_paint")}</button>'
        '<span class="tools">'
        f'<label>{both("opt_brush_size")}<input type="range" data-brush-size min="2" max="40" value="12"></label>'
        f'<button type="button" class="quiet" data-erase aria-pressed="false">{both("opt_erase")}</button>'
        f'<button type="button" class="quiet" data-invert>{both("opt_invert")}</button>'
        f'<button type="button" class="quiet" data-clear>{both("opt_clear")}</button></span>'
        f'<span class="masked">{both("opt_masked")}</span></div>'
    )


def rows() -> str:
    """Where the script lists the parts of the prompt, each with its weight; the words it needs stand beside it."""
    words = "".join(
        f'<span data-word="{name}">{both(f"opt_{name}", **facts)}</span>'
        for name, facts in (
            ("weight", {}),
            ("off", {}),
            ("remove", {}),
            ("add", {}),
            ("scene", {"number": "#"}),
            ("step", {"step": "#"}),
        )
    )
    return f'<div class="targets" data-targets></div><div hidden data-words>{words}</div>'
