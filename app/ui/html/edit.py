"""What a run of Edit looks like: before and after, the strip of strengths, what was learned. HTML from a Job.

The script of the page adds what needs no server: the wipe between before and after, the choice of a strength, the brush.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from app.jobs.queue import Job
from app.ui.html import axes
from app.ui.html.common import (
    WAITING,
    Trace,
    button,
    curves,
    downloads,
    example_tiles,
    figure,
    frame,
    legend,
    link_of,
    standing,
)
from app.ui.i18n import both, both_aloud, say
from app.ui.markup import html, joined
from app.ui.pictures import Pictures, preview_uri
from pipelines.edit.strip import strip
from pipelines.errors import BadInput
from pipelines.io.images import on_white, open_picture

PIXELS = 768  # of the picture before a run
LIVE_PIXELS = 512
MOST_SEEN = 16  # given pictures that are remembered, small
_seen: dict[str, tuple[str, tuple[int, int]]] = {}  # job -> the picture that it was given, and its size


def signed(strength: float) -> str:
    """A strength as it is read: a true minus, no trailing zeros."""
    return f"{strength:g}".replace("-", "−")


# ----------------------------------------------------------------------------------------------------------- stage


def empty(pictures: Pictures) -> Markup:
    """Before there is a picture: how to give one, and some to begin with."""
    shown = example_tiles(pictures, 6)
    return html(
        '<section class="stage plate proof empty" data-state="empty"><div class="lay">'
        "<h2>{}</h2><p>{}</p>"
        '<p class="acts"><button type="button" class="quiet" data-choose>{}</button></p></div>'
        "{}<p>{}</p></section>",
        both("edit_empty_title"),
        both("edit_empty_text"),
        both("edit_choose"),
        shown,
        both("edit_empty_example"),
    )


def ready(picture: Image.Image) -> Markup:
    """The picture to edit; nothing runs yet."""
    return html(
        '<section class="stage plate proof ready" data-state="ready"><div class="said">'
        "<b>{}</b><span>{} × {}</span>{}</div>"
        "{}</section>",
        both("edit_ready"),
        picture.width,
        picture.height,
        _others(),
        frame(preview_uri(on_white(picture), PIXELS), say("edit_ready", "en"), picture.size),
    )


def _others() -> Markup:
    """Another picture, or none."""
    return html(
        '<span class="others"><button type="button" class="quiet" data-choose>{}</button>{}</span>',
        both("edit_another"),
        button("edit_none", "remove"),
    )


def show(job: Job, pictures: Pictures, live: list[Image.Image] | None, trace: Trace) -> Markup:
    """The large place: what a run shows now, and how it stands."""
    facts = html('data-job="{}" data-state="{}"', job.id, job.state)
    return html(
        '<section class="stage plate proof {}" {}>{}{}</section>',
        job.state,
        facts,
        _standing(job, trace),
        _made(job, pictures) if job.pictures else _making(job, live),
    )


def _standing(job: Job, trace: Trace) -> Markup:
    """One line on where the run stands, and a sentence when something needs saying."""
    updates = int(job.pictures[0].get("updates", 0)) if job.pictures else (trace.steps or (0,))[-1]
    if job.state == "done":
        ended = both("done"), both("edit_after", updates=updates) if updates else ""
    elif job.state == "stopped":
        kept = both("edit_stopped_at", updates=updates) if updates else both("edit_stopped_none")
        ended = both("stopped"), kept
    else:
        how = both("failed" if job.state == "failed" else "edit_interrupted")
        ended = how, both("edit_kept", updates=updates) if updates else both("failed_kept")
    return standing(job, _title(job), ended, prefix="edit_stage_")


def _title(job: Job) -> str:
    return f"{job.settings.get('source', '')} → {job.settings.get('prompt', '')}"


def _making(job: Job, live: list[Image.Image] | None) -> Markup:
    """What there is to see before the first picture is finished."""
    if live:
        chosen = live[_chosen(job, len(live)) if len(live) > 1 and job.stage == "draw" else 0]
        small = ""
        if len(live) > 1 and job.stage == "draw":
            shown = joined(html('<img src="{}" alt="">', preview_uri(image, 160)) for image in live)
            small = html('<div class="strengths live">{}</div>', shown)
        return frame(preview_uri(chosen, LIVE_PIXELS), _title(job), chosen.size) + small
    if before := _given(job.id, str(job.settings.get("image", ""))):
        return frame(before[0], _title(job), before[1])
    return WAITING


def _chosen(job: Job, count: int) -> int:
    """Which of the strip is the strength that was asked for."""
    strength = float(job.settings.get("strength", 1))
    return min(range(count), key=lambda k: abs(strip(strength, count)[k] - strength))


def _given(job_id: str, source: str) -> tuple[str, tuple[int, int]] | None:
    """The picture that a job was given, small, and its size. Remembered by the job alone: the picture itself is large."""
    if not source:
        return None
    if job_id not in _seen:
        try:
            picture = on_white(open_picture(source))
        except BadInput:
            return None
        _seen[job_id] = preview_uri(picture, PIXELS), picture.size
        while len(_seen) > MOST_SEEN:
            _seen.pop(next(iter(_seen)), None)
    return _seen.get(job_id)


def signed_score(value: float) -> str:
    """A score of which the sign counts, with a true minus."""
    return f"{value:+.2f}".replace("-", "−")


@lru_cache(maxsize=64)
def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def _made(job: Job, pictures: Pictures) -> Markup:
    """The strip, of which one is compared with the picture as it was."""
    sheet = axes.is_sheet(job)
    order = sorted(range(len(job.pictures)), key=lambda k: job.pictures[k].get("strength", 0))
    urls = [pictures.url(picture["path"]) for picture in job.pictures]
    zero = next((k for k in order if job.pictures[k].get("strength") == 0), None)
    start = _given(job.id, str(job.settings.get("image", "")))
    before = urls[zero] if zero is not None else start[0] if start else ""
    width, height = _size(Path(job.pictures[0]["path"]))
    shown = html(
        '<div class="frame" style="--ratio:{:.4f};--cut:50%">'
        '<img class="now" src="{}" alt="{}" decoding="sync">{}</div>',
        width / height,
        urls[0],
        _title(job),
        _wipe(before) if before and before != urls[0] and not sheet else "",
    )
    strengths = html(
        '<div class="strengths" role="group" aria-label="{}">{}</div>',
        say("knob_strength", "en"),
        joined(_strength(job, k, urls[k]) for k in order),
    )
    if sheet:
        strengths = axes.cells(job, urls, lambda k: html('data-strength="{}" data-src="{}"', k, urls[k]))
    captions = joined(_caption(job, pictures, k, urls[k]) for k in order)
    return html("{}{}{}", shown, strengths if len(order) > 1 else "", captions)


def _wipe(before: str) -> Markup:
    """The picture as it was, over the one that is shown, and the slider that moves the seam between them."""
    return html(
        '<img class="before" src="{}" alt="{}" decoding="sync">'
        '<i class="seam"></i><span class="tag left">{}</span><span class="tag right">{}</span>'
        '<input type="range" class="wipe" min="0" max="100" value="50" step="1" aria-label="{}">',
        before,
        say("edit_before", "en"),
        both("edit_before"),
        both("edit_now"),
        both_aloud("edit_wipe"),
    )


def _strength(job: Job, k: int, url: str) -> Markup:
    """The button that shows one picture of the strip."""
    strength = float(job.pictures[k].get("strength", 0))
    return html(
        '<button type="button" data-strength="{}" data-src="{}" aria-pressed="{}">'
        '<img src="{}" alt="{}, {:g}"><b>{}</b>{}</button>',
        k,
        url,
        "true" if k == 0 else "false",
        url,
        _title(job),
        strength,
        signed(strength),
        html("<small>{}</small>", both("edit_untouched")) if strength == 0 else "",
    )


def _caption(job: Job, pictures: Pictures, k: int, url: str) -> Markup:
    """The figures of one picture, and what can be done with it."""
    name = pictures.name(job.pictures[k]["path"])
    acts = (
        downloads(url, name, job.settings),
        button("edit_further", "begin-with", name=name),
        button("edit_optimize", "optimize", name=name),
        button("why", "see", name=name),
        link_of(job),
    )
    return figure(k, k == 0, "", _facts(job.pictures[k]), acts)


def _facts(picture: dict[str, Any]) -> list[Markup]:
    """What the judges say of one picture, and how much of it has changed."""
    facts = []
    changed = picture.get("strength") != 0
    for name, key in (("clip direction", "edit_clip"), ("critic direction", "edit_critic")):
        if picture.get(name) is not None and changed:
            facts.append(both(key, score=signed_score(picture[name])))
    if picture.get("critic target") is not None and changed:
        now, then = picture["critic target"], picture.get("critic target before", picture["critic target"])
        facts.append(both("edit_target", before=f"{then:.2f}", now=f"{now:.2f}"))
    if picture.get("L1") is not None:
        facts.append(both("edit_changed", share=f"{picture['L1'] * 100:.1f}"))
    if picture.get("SSIM") is not None:
        facts.append(both("edit_ssim", value=f"{picture['SSIM']:.2f}"))
    return facts


# -------------------------------------------------------------------------------------------------------- learning


def learning(job: Job | None, trace: Trace) -> Markup | str:
    """How the learning went: both judges as curves, snapshots to look back at, and the direction to keep."""
    if job is None or not (trace.steps or trace.curve):
        return ""
    last = max([*trace.steps, *(int(row[0]) for row in trace.curve)])
    end = max(last, int(job.total) if job.state == "running" and job.stage == "learn" else 0, 1)
    scores = ""
    if trace.curve:
        _, clip, critic = trace.curve[-1]
        scores = legend(signed_score(clip), signed_score(critic))
    return html(
        '<section class="learning" data-job="{}" data-steps="{}"><div class="head"><h3>{}</h3>'
        '<span class="legend">{}</span></div><div class="track">{}{}</div>{}</section>',
        job.id,
        " ".join(map(str, trace.steps)),
        both("edit_learning"),
        scores,
        curves(trace.curve, end, one_scale=True),
        _look_back(trace, last, end) if job.is_over and trace.steps else "",
        _overshot(job, trace),
    )


def _look_back(trace: Trace, last: int, end: int) -> Markup:
    """The slider over the snapshots, and what can be done with the one that is looked at."""
    ticks = joined(html('<i style="left:{:.2f}%"></i>', 100 * step / end) for step in trace.steps[:200])
    return html(
        '<div class="ticks"><i class="past" style="width:{:.2f}%"></i>{}</div>'
        '<input type="range" data-learned min="0" max="{}" value="{}" aria-label="{}">'
        '<div class="glance"><span class="hint">{}</span><span class="scrubbed" hidden>'
        '<span class="at">{}</span>{}<button type="button" class="quiet" data-present>{}</button></span>{}</div>',
        100 * last / end,
        ticks,
        end,
        last,
        both_aloud("edit_look_back"),
        both("edit_look_back"),
        both("edit_update", update="#"),
        button("edit_use_this", "until", step=0),
        both("opt_now"),
        button("edit_keep", "keep"),
    )


def _overshot(job: Job, trace: Trace) -> Markup | str:
    """A sentence when the run pleased CLIP alone from some update on, and the way back to it."""
    since = int(job.pictures[0].get("overshot") or 0) if job.pictures else 0
    if not since:
        return ""
    nearest = max((step for step in trace.steps if step <= since), default=min(trace.steps, default=0))
    back = ""
    if nearest:
        back = html(
            '<button type="button" class="quiet" data-act="until" data-step="{}">{}</button>',
            nearest,
            both("edit_back_to", update=nearest),
        )
    return html('<div class="drift"><p>{}</p>{}</div>', both("edit_overshot", update=since), back)
