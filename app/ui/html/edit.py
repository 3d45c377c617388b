"""What Edit looks like: before and after, the strip of strengths, the form, the shelf. HTML; nothing here acts.

The script of the page adds what needs no server: the wipe between before and after, the choice of a strength, the brush.
Every text that a user wrote passes `escape`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from app.jobs.queue import Job
from app.saved_directions import Kept
from app.ui.components import plain_field
from app.ui.html.generate import button, downloads, eta, example_tiles
from app.ui.html.optimize import Trace, curves, frame
from app.ui.i18n import both, both_sentence, pair, say
from app.ui.link import copy_link
from app.ui.pictures import Pictures, preview_uri
from pipelines.core.settings import Knob
from pipelines.edit.results import strip
from pipelines.edit.settings import MODES
from pipelines.errors import BadInput
from pipelines.io.images import on_white, open_picture

PIXELS = 768  # of the picture before a run
LIVE_PIXELS = 512
PAIRS = (  # from, to, and both in Chinese
    ("a face", "an angry face", "一张脸", "一张生气的脸"),
    ("a red apple", "a green apple", "红苹果", "绿苹果"),
    ("a cat face", "a fox face", "猫脸", "狐狸脸"),
    ("a heart", "a purple heart", "一颗心", "一颗紫色的心"),
)
STAGES = ("loading", "purify", "invert", "learn", "draw")


def signed(strength: float) -> str:
    """A strength as it is read: a true minus, no trailing zeros."""
    return f"{strength:g}".replace("-", "−")


# ----------------------------------------------------------------------------------------------------------- stage


def empty(pictures: Pictures) -> str:
    """Before there is a picture: how to give one, and some to begin with."""
    shown = example_tiles(pictures, 6)
    return (
        '<section class="stage plate proof empty" data-state="empty"><div class="lay">'
        f"<h2>{both('edit_empty_title')}</h2><p>{both('edit_empty_text')}</p>"
        f'<p class="acts"><button type="button" class="quiet" data-choose>{both("edit_choose")}</button></p></div>'
        f"{shown}<p>{both('edit_empty_example')}</p></section>"
    )


def ready(picture: Image.Image) -> str:
    """The picture to edit; nothing runs yet."""
    return (
        '<section class="stage plate proof ready" data-state="ready"><div class="said">'
        f"<b>{both('edit_ready')}</b><span>{picture.width} × {picture.height}</span>{_others()}</div>"
        f"{frame(preview_uri(on_white(picture), PIXELS), say('edit_ready', 'en'), picture.size)}</section>"
    )


def _others() -> str:
    """Another picture, or none."""
    return (
        f'<span class="others"><button type="button" class="quiet" data-choose>{both("edit_another")}</button>'
        f"{button('edit_none', 'remove')}</span>"
    )


def show(job: Job, pictures: Pictures, live: list[Image.Image] | None, trace: Trace) -> str:
    """The large place: what a run shows now, and how it stands."""
    facts = f'data-job="{escape(job.id)}" data-state="{job.state}"'
    if job.pictures:
        inside = _made(job, pictures)
    else:
        inside = _making(job, live)
    return f'<section class="stage plate proof {job.state}" {facts}>{_told(job, trace)}{inside}</section>'


def _told(job: Job, trace: Trace) -> str:
    """One line on where the run stands, and a sentence when something needs saying."""
    place, share, more = "", 0.0, ""
    updates = int(job.pictures[0].get("updates", 0)) if job.pictures else (trace.steps or (0,))[-1]
    if job.state == "queued":
        said = both("queued")
        place = both("queued_next") if job.position <= 1 else both("queued_place", position=job.position)
    elif job.state == "running":
        said = both(f"edit_stage_{job.stage}" if job.stage in STAGES else "lane_busy")
        place = both("steps", done=job.done, total=job.total) if job.total else ""
        share = job.done / job.total if job.total else 0.0
    elif job.state == "done":
        said = both("done")
        place = both("edit_after", updates=updates) if updates else ""
    elif job.state == "stopped":
        said = both("stopped")
        place = both("edit_stopped_at", updates=updates) if updates else both("edit_stopped_none")
    else:
        said = both(job.state if job.state == "failed" else "edit_interrupted")
        place = both("edit_kept", updates=updates) if updates else both("failed_kept")
    if job.state == "failed":
        more = f'<p class="cause">{both_sentence(job.error)}</p>'
    if job.state in ("queued", "running"):
        more += (
            f'<div class="bar" role="progressbar" aria-label="{escape(_title(job))}" '
            f'aria-valuenow="{share * 100:.0f}"><i style="width:{share:.1%}"></i></div>'
        )
    return (
        f'<div class="said"><b>{said}</b><span>{place}</span><span class="eta">{eta(job)}</span></div>{more}'
    )


def _title(job: Job) -> str:
    return f"{job.settings.get('source', '')} → {job.settings.get('prompt', '')}"


def _making(job: Job, live: list[Image.Image] | None) -> str:
    """What there is to see before the first picture is finished."""
    if live:
        chosen = live[_chosen(job, len(live)) if len(live) > 1 and job.stage == "draw" else 0]
        small = ""
        if len(live) > 1 and job.stage == "draw":
            small = "".join(f'<img src="{preview_uri(one, 160)}" alt="">' for one in live)
            small = f'<div class="strengths live">{small}</div>'
        return frame(preview_uri(chosen, LIVE_PIXELS), escape(_title(job)), chosen.size) + small
    if before := _given(job.id, str(job.settings.get("image", ""))):
        return frame(before[0], escape(_title(job)), before[1])
    return '<div class="frame waiting"><i></i></div>'


def _chosen(job: Job, count: int) -> int:
    """Which of the strip is the strength that was asked for."""
    strength = float(job.settings.get("strength", 1))
    return min(range(count), key=lambda k: abs(strip(strength, count)[k] - strength))


@lru_cache(maxsize=16)
def _given(job_id: str, source: str) -> tuple[str, tuple[int, int]] | None:
    """The picture that a job was given, small, and its size."""
    try:
        picture = on_white(open_picture(source)) if source else None
    except BadInput:
        return None
    return None if picture is None else (preview_uri(picture, PIXELS), picture.size)


def _score(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


@lru_cache(maxsize=64)
def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def _made(job: Job, pictures: Pictures) -> str:
    """The strip, of which one is compared with the picture as it was."""
    order = sorted(range(len(job.pictures)), key=lambda k: job.pictures[k].get("strength", 0))
    urls = [pictures.url(one["path"]) for one in job.pictures]
    zero = next((k for k in order if job.pictures[k].get("strength") == 0), None)
    given = _given(job.id, str(job.settings.get("image", "")))
    before = urls[zero] if zero is not None else given[0] if given else ""
    title, size = escape(_title(job)), _size(Path(job.pictures[0]["path"]))
    wipe = ""
    if before and before != urls[0]:
        wipe = (
            f'<img class="before" src="{escape(before)}" alt="{escape(say("edit_before", "en"))}" decoding="sync">'
            f'<i class="seam"></i><span class="tag left">{both("edit_before")}</span>'
            f'<span class="tag right">{both("edit_now")}</span>'
            '<input type="range" class="wipe" min="0" max="100" value="50" step="1" '
            f'aria-label="{escape(say("edit_wipe", "en"))}, {escape(say("edit_wipe", "zh"))}">'
        )
    shown = (
        f'<div class="frame" style="--ratio:{size[0] / size[1]:.4f};--cut:50%">'
        f'<img class="now" src="{escape(urls[0])}" alt="{title}" decoding="sync">{wipe}</div>'
    )
    buttons, figures = "", ""
    for k in order:
        strength = float(job.pictures[k].get("strength", 0))
        label = f"<small>{both('edit_untouched')}</small>" if strength == 0 else ""
        buttons += (
            f'<button type="button" data-strength="{k}" data-src="{escape(urls[k])}" '
            f'aria-pressed="{"true" if k == 0 else "false"}"><img src="{escape(urls[k])}" alt="{title}, {strength:g}">'
            f"<b>{signed(strength)}</b>{label}</button>"
        )
        figures += _caption(job, pictures, k, urls[k])
    strengths = (
        f'<div class="strengths" role="group" aria-label="{escape(say("knob_strength", "en"))}">{buttons}</div>'
        if len(order) > 1
        else ""
    )
    return shown + strengths + figures


def _caption(job: Job, pictures: Pictures, k: int, url: str) -> str:
    """The figures of one picture, and what can be done with it."""
    one = job.pictures[k]
    name = pictures.name(one["path"])
    told = []
    for key, word in (("clip direction", "edit_clip"), ("critic direction", "edit_critic")):
        if one.get(key) is not None and one.get("strength") != 0:
            told.append(both(word, score=_score(one[key])))
    if one.get("critic target") is not None and one.get("strength") != 0:
        now, then = one["critic target"], one.get("critic target before", one["critic target"])
        told.append(both("edit_target", before=f"{then:.2f}", now=f"{now:.2f}"))
    if one.get("L1") is not None:
        told.append(both("edit_changed", share=f"{one['L1'] * 100:.1f}"))
    if one.get("SSIM") is not None:
        told.append(both("edit_ssim", value=f"{one['SSIM']:.2f}"))
    acts = (
        f"{downloads(url, name, job.settings)}{button('edit_further', 'begin-with', name=name)}"
        f"{button('edit_optimize', 'optimize', name=name)}{copy_link(job.pipeline, job.settings)}"
    )
    return (
        f'<figure data-figure="{k}"{" hidden" if k else ""}><figcaption><p class="facts">'
        f'{"".join(f"<span>{each}</span>" for each in told)}</p><div class="acts">{acts}</div></figcaption></figure>'
    )


# -------------------------------------------------------------------------------------------------------- learning


def learning(job: Job | None, trace: Trace) -> str:
    """How the learning went: both judges as curves, snapshots to look back at, and the direction to keep."""
    if job is None or not (trace.steps or trace.curve):
        return ""
    last = max([*trace.steps, *(int(row[0]) for row in trace.curve)])
    end = max(last, int(job.total) if job.state == "running" and job.stage == "learn" else 0, 1)
    legend = ""
    if trace.curve:
        _, clip, critic = trace.curve[-1]
        legend = (
            f'<span class="key clip">CLIP {_score(clip)}</span>'
            f'<span class="key critic">{both("opt_critic")} {_score(critic)}</span>'
        )
    over, slider = "", ""
    if job.is_over and trace.steps:
        ticks = "".join(f'<i style="left:{100 * step / end:.2f}%"></i>' for step in trace.steps[:200])
        slider = (
            f'<div class="ticks"><i class="past" style="width:{100 * last / end:.2f}%"></i>{ticks}</div>'
            f'<input type="range" data-learned min="0" max="{end}" value="{last}" '
            f'aria-label="{escape(say("edit_look_back", "en"))}, {escape(say("edit_look_back", "zh"))}">'
        )
        slider += (
            f'<div class="look"><span class="hint">{both("edit_look_back")}</span><span class="scrubbed" hidden>'
            f'<span class="at">{both("edit_update", update="#")}</span>{button("edit_use_this", "until", step=0)}'
            f'<button type="button" class="quiet" data-present>{both("opt_now")}</button></span>'
            f"{button('edit_keep', 'keep')}</div>"
        )
    if job.pictures and (since := int(job.pictures[0].get("overshot") or 0)):
        nearest = max((one for one in trace.steps if one <= since), default=min(trace.steps, default=0))
        back = (
            f'<button type="button" class="quiet" data-act="until" data-step="{nearest}">'
            f"{both('edit_back_to', update=nearest)}</button>"
            if nearest
            else ""
        )
        over = f'<div class="drift"><p>{both("edit_overshot", update=since)}</p>{back}</div>'
    steps = " ".join(map(str, trace.steps))
    return (
        f'<section class="learning" data-job="{escape(job.id)}" data-steps="{steps}"><div class="head">'
        f'<h3>{both("edit_learning")}</h3><span class="legend">{legend}</span></div>'
        f'<div class="track">{curves(trace.curve, end, one_scale=True)}{slider}</div>{over}</section>'
    )


# ------------------------------------------------------------------------------------------------------------ form


def form(knobs: dict[str, Knob], basics: Sequence[str]) -> str:
    """From and to, how, how far, and the rest folded away: inputs named as the settings. The script reads them."""
    chips = "".join(pair(*(_chip(*words) for words in ((one[0], one[1]), (one[2], one[3])))) for one in PAIRS)
    modes = "".join(
        f'<label class="mode"><input type="radio" name="mode" value="{mode}"'
        f"{' checked' if mode == knobs['mode'].default else ''}><b>{both(f'edit_mode_{mode}')}</b>"
        f"<small>{both(f'edit_mode_{mode}_says')}</small></label>"
        for mode in MODES
    )
    shown = ("prompt", "source", "image", "mode", "strength", "mask", "directions", *basics)
    rest = "".join(plain_field(one, "edit") for one in knobs.values() if one.name not in shown)
    strength = knobs["strength"]
    low, high = strength.lo or 0, strength.hi or 1
    seed = (
        f'<label class="field"><b>{both("edit_seed")}</b><span class="with"><input type="number" name="seed" min="0" '
        f'max="4294967295" value="{knobs["seed"].default}"><button type="button" class="quiet" data-roll '
        f'aria-label="{escape(say("dice", "en"))}, {escape(say("dice", "zh"))}">⚄</button></span></label>'
    )
    return (
        '<div class="edit-form"><input type="hidden" name="source_of" value="">'
        '<div class="words">'
        f'<label><span>{both("edit_from")}</span><input type="text" name="source" maxlength="2000" '
        f'value="{escape(PAIRS[0][0])}" autocomplete="off" spellcheck="false"></label><i aria-hidden="true">→</i>'
        f'<label><span>{both("edit_to")}</span><input type="text" name="prompt" maxlength="2000" '
        f'value="{escape(PAIRS[0][1])}" autocomplete="off" spellcheck="false"></label></div>'
        f'<div class="chips">{chips}</div>'
        f'<div class="modes" role="radiogroup" aria-label="{escape(say("knob_mode", "en"))}">{modes}</div>'
        f'<p class="resting note">{both("edit_resting")}</p>'
        f'<label class="how-far"><span><b>{both("edit_strength")}</b><output>1</output></span>'
        f'<input type="range" name="strength" min="{low:g}" max="{high:g}" step="0.05" value="{strength.default:g}">'
        f'<span class="scale" aria-hidden="true"><i style="left:0">{both("edit_opposite")}</i>'
        f'<i style="left:40%">{both("edit_zero")}</i><i style="left:80%">{both("edit_target_is")}</i></span></label>'
        '<div class="rest"><div class="basics">'
        f"{''.join(seed if name == 'seed' else plain_field(knobs[name], 'edit') for name in basics)}</div>"
        f'<details class="more-settings"><summary>{both("advanced")}</summary><div class="fields">{rest}</div></details>'
        "</div></div>"
    )


def _chip(source: str, target: str) -> str:
    return (
        f'<button type="button" data-from="{escape(source)}" data-to="{escape(target)}">'
        f"{escape(source)} → {escape(target)}</button>"
    )


def transport(job: Job | None) -> str:
    """The button that is next; Ctrl+Enter presses it. What happened is said for those who hear the page."""
    heard = ""
    if job is not None:
        cause = f". {both_sentence(job.error)}" if job.state == "failed" else ""
        word = "edit_stage_learn" if job.state == "running" else job.state
        heard = f'<span class="only-heard" role="status">{both(word)}{cause}</span>'
    go = f'<button type="button" class="act" data-act="edit" data-key>{both("edit_go")}</button>'
    keys = "<span class='keys'><kbd>Ctrl</kbd> <kbd>Enter</kbd></span>"
    if job is not None and not job.is_over:
        stop = "stop" if job.state == "running" else "opt_cancel"
        return (
            f'<div class="transport"><button type="button" class="act" data-act="stop">{both(stop)}</button>'
            f"{heard}</div>"
        )
    again = ""
    if job is not None and job.state in ("stopped", "failed", "interrupted"):
        learned = any(one.get("updates") for one in job.pictures[:1])
        again = button("edit_go_on" if learned else "opt_again", "resume")
    return f'<div class="transport">{go}{again}{keys}{heard}</div>'


def waiting() -> str:
    """Before the first outlook: the models are being read."""
    return f'<div class="outlook"><div><span>{both("edit_waiting")}</span></div></div>'


def outlook(found: Any, settings: Any, survives: float | None) -> str:
    """What can be expected, before any waiting: four quiet figures, and a sentence where one is needed."""
    cells = []
    if found.match is not None and not settings.directions:
        weak = "source does not describe it" in found.warnings
        cells.append(
            _cell(
                f"{found.match:.0%}".replace("%", " %"),
                both("edit_match", source=_short(settings.source)),
                found.match,
                warn=weak,
            )
        )
    if not settings.directions and not settings.examples:
        apart = 1 - found.alike
        far = "far apart" in found.warnings
        word = "edit_far" if far else "edit_near" if apart < 0.15 else "edit_between"
        cells.append(_cell(both(word), both("edit_apart", value=f"{apart:.2f}"), min(apart, 1.0), warn=far))
    if survives is None:
        cells.append(_cell(str(found.return_step), both("edit_return"), found.return_step / 1000))
    else:
        said = both("edit_survives", step=found.return_step)
        cells.append(_cell(f"{survives:.0%}".replace("%", " %"), said, survives))
    seconds = max(1, round(found.seconds))
    if seconds < 90:
        time = pair(f"{seconds} s", f"{seconds} 秒")
    else:
        time = pair(f"{seconds / 60:.0f} min", f"{seconds / 60:.0f} 分钟")
    cells.append(_cell(f"≈ {time}", both("edit_memory", megabytes=f"{found.megabytes:,.0f}")))
    said = ""
    if "far apart" in found.warnings:
        said += f'<p class="note trouble">{both("edit_far_apart")}</p>'
    if "source does not describe it" in found.warnings:
        said += f'<p class="note trouble">{both("edit_not_described", source=_short(settings.source))}</p>'
    return f'<div class="outlook">{"".join(cells)}</div>{said}'


def _cell(value: str, label: str, share: float | None = None, *, warn: bool = False) -> str:
    meter = "" if share is None else f'<i class="meter"><i style="width:{max(0.0, share):.0%}"></i></i>'
    return f"<div{' class=weak' if warn else ''}><b>{value}</b>{meter}<span>{label}</span></div>"


def _short(text: str) -> str:
    return text if len(text) <= 32 else text[:31] + "…"


# ----------------------------------------------------------------------------------------------------------- shelf


def shelf(kept: Sequence[Kept], uses: dict[str, float]) -> str:
    """The directions that were kept; those that are ticked are used instead of the texts."""
    rows = ""
    for one in kept:
        source, target = (escape(words) for words in one.words)
        used = one.name in uses
        strength = uses.get(one.name, 1.0)
        figures = one.facts.get("figures")
        told = [both(f"edit_mode_{one.facts['mode']}") if one.facts["mode"] in MODES else ""]
        if isinstance(one.facts.get("updates"), int):
            told.append(both("edit_updates", updates=one.facts["updates"]))
        if isinstance(figures, dict) and isinstance(figures.get("critic direction"), (int, float)):
            told.append(both("opt_critic_is", score=_score(figures["critic direction"])))
        told.append(f"{max(1, round(one.size / 1000))} kB")
        name = escape(one.name)
        rows += (
            f'<li data-direction="{name}"><label><input type="checkbox" data-use{" checked" if used else ""}>'
            f"<span><b>{source} → {target}</b><small>{' · '.join(each for each in told if each)}</small></span></label>"
            f'<span class="how-much"><input type="range" min="-1" max="1.5" step="0.05" value="{strength:g}" '
            f'aria-label="{escape(say("knob_strength", "en"))}: {target}"><output>{signed(strength)}</output></span>'
            f'<a class="quiet" href="direction/{name}" download="{name}" aria-label="{escape(say("save", "en"))}: '
            f'{target}">↓</a></li>'
        )
    inside = f"<ul>{rows}</ul>" if rows else f"<p>{both('edit_shelf_empty')}</p>"
    return (
        f'<section class="shelf"><div class="head"><h3>{both("edit_shelf")}</h3>'
        f'<button type="button" class="quiet" data-choose>{both("edit_shelf_open")}</button></div>{inside}</section>'
    )
