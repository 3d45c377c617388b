"""What a job looks like: HTML from a Job, one function a state. Nothing here asks the lane or changes anything.

Every text that a user wrote passes `escape`. Buttons carry `data-act`; generate.py says what they do.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

from PIL import Image

from app.jobs.queue import Job, Lane
from app.serving import Serving
from app.ui.i18n import both, both_sentence, words
from app.ui.link import copy_link
from app.ui.pictures import SHEET_PIXELS, Pictures, preview_uri
from pipelines.errors import BadInput

MAX_TILES = 64  # previews shown at once


def button(key: str, act: str, **data: Any) -> str:
    """A quiet button that does `act` with `data`."""
    facts = "".join(f' data-{name}="{escape(str(value))}"' for name, value in data.items())
    return f'<button type="button" class="quiet" data-act="{act}"{facts}>{both(key)}</button>'


# ------------------------------------------------------------------------------------------------------------ stage


def stage(job: Job, pictures: Pictures, previews: list[Image.Image] | None = None) -> str:
    """The large place: what a job is doing, or the best of what it has made."""
    if job.state == "done" and job.pictures:
        return _figures(job, pictures)
    if job.state in ("queued", "running"):
        return _working(job, previews)
    return _ended(job, pictures, previews)


def empty(candidates: int, keep: int, pictures: Pictures) -> str:
    """Before anything has been made: what happens here, and examples to click when there are any."""
    names = pictures.example_names()
    tiles = "".join(
        f'<button type="button" data-act="example" data-name="{escape(name)}">'
        f'<img src="example/{escape(name)}" alt="{escape(_example_title(name))}" loading="lazy"></button>'
        for name in names
    )
    if not names:
        tiles = "".join(f"<i style='--i:{index}'></i>" for index in range(16))
    hint = f"<p>{both('empty_examples')}</p>" if names else ""
    columns = min(4, _columns(len(names) or 16))
    return (
        f'<section class="stage empty"><div class="tiles" style="--columns:{columns}">{tiles}</div>'
        f"<h2>{both('empty_title')}</h2><p>{both('empty_text', candidates=candidates, keep=keep)}</p>{hint}</section>"
    )


def missing(pack: str, checkpoints: Sequence[Any]) -> str:
    """Files of the pack that are not there, and where each one comes from."""
    rows = "".join(
        f"<li><b>{escape(one.name)}</b> {escape(one.about)} <small>{escape(one.licence)}</small>"
        f"<small>{escape(one.origin)}</small></li>"
        for one in checkpoints
    )
    go = f'<button type="button" class="quiet" data-tab="models">{both("missing_go")}</button>'
    return (
        f'<section class="stage missing"><h2>{both("missing_title")}</h2>'
        f"<p>{both('missing_text', pack=pack)}</p><ul>{rows}</ul>"
        f'<div class="acts">{go}</div></section>'
    )


def _working(job: Job, previews: list[Image.Image] | None) -> str:
    """Queued or running: one line on where it stands, and the sheet being drawn."""
    prompt = str(job.settings.get("prompt", ""))
    if job.state == "queued":
        said = both("queued")
        place = both("queued_next") if job.position <= 1 else both("queued_place", position=job.position)
        share = 0.0
    else:
        key = f"stage_{job.stage}"
        said = both(key) if key in words() else escape(job.stage)
        place = both("steps", done=job.done, total=job.total) if job.total else ""
        share = job.done / job.total if job.total else 0.0
    count = min(int(job.settings.get("candidates", 1)), 16)
    tiles = _preview_tiles(previews, prompt) if previews else "<i></i>" * count
    columns = _columns(len(previews) if previews else count)
    return (
        f'<section class="stage {job.state}">'
        f'<div class="said"><b>{said}</b><span>{place}</span><span class="eta">{eta(job)}</span></div>'
        f'<div class="bar" role="progressbar" aria-label="{escape(prompt)}" aria-valuenow="{share * 100:.0f}">'
        f'<i style="width:{share:.1%}"></i></div>'
        f'<div class="tiles" style="--columns:{columns}">{tiles}</div>'
        f'<p class="caption">{escape(prompt)}</p></section>'
    )


def _ended(job: Job, pictures: Pictures, previews: list[Image.Image] | None) -> str:
    """Stopped, failed, interrupted: the cause, what was kept, and one next step."""
    kept = len(job.pictures)
    cause = ""
    if job.state == "failed":
        cause = f'<p class="cause">{both_sentence(job.error)}</p>'
        told = both("failed_kept")
    elif job.state == "interrupted":
        told = both("interrupted_text")
    else:
        told = both("stopped_kept", count=kept) if kept else both("stopped_none")
    again = "" if job.state == "done" else button("again", "again", job=job.id)
    prompt = str(job.settings.get("prompt", ""))
    shown = "".join(
        f'<img src="{escape(pictures.url(one["path"]))}" alt="{escape(prompt)}">' for one in job.pictures
    ) or (_preview_tiles(previews, prompt) if previews and job.state == "stopped" else "")
    columns = _columns(kept or len(previews or ()))
    tiles = f'<div class="tiles faded" style="--columns:{columns}">{shown}</div>' if shown else ""
    return (
        f'<section class="stage {job.state}"><h2>{both(job.state)}</h2>{cause}<p>{told}</p>'
        f'<div class="acts">{again}</div>{tiles}<p class="caption">{escape(prompt)}</p></section>'
    )


def _figures(job: Job, pictures: Pictures) -> str:
    """All kept pictures large, of which one is shown; the tiles below choose which."""
    figures = "".join(_figure(job, pictures, index) for index in range(len(job.pictures)))
    return f'<section class="stage done">{figures}</section>'


def _figure(job: Job, pictures: Pictures, index: int) -> str:
    one = job.pictures[index]
    url, name = pictures.url(one["path"]), pictures.name(one["path"])
    prompt = str(job.settings.get("prompt", ""))
    facts = [both("rank", rank=one.get("rank", index + 1), count=one.get("candidates", len(job.pictures)))]
    if one.get("score") is not None:
        facts.append(both("score", score=f"{one['score']:.3f}"))
    facts.append(both("seed_is", seed=one["seed"]))
    acts = [
        downloads(url, name, job.settings),
        button("optimize_this", "optimize", name=name),
        button("edit_this", "edit", name=name),
        button("remix", "remix", name=name),
        button("redraw", "redraw", name=name),
        button("reuse", "reuse", name=name),
        button("reuse_seed", "seed", seed=job.settings.get("seed", 0)),
        copy_link(job.pipeline, job.settings),
    ]
    if "image" in job.settings:
        acts.append(button("variations", "vary", name=name))
        if rows := half_of_rows(one):
            acts.append(button("complete", "complete", name=name, rows=rows))
    lazy = ' loading="lazy"' if index else ""
    return (
        f'<figure data-figure="{index}"{" hidden" if index else ""}>'
        f'<div class="frame"><img src="{escape(url)}" alt="{escape(prompt)}"{lazy}></div>'
        f"<figcaption><p>{escape(prompt)}</p><p class='facts'>{''.join(f'<span>{x}</span>' for x in facts)}</p>"
        f'<div class="acts">{"".join(acts)}</div></figcaption></figure>'
    )


def half_of_rows(one: dict[str, Any]) -> int:
    """Half as many rows as the picture has rows of image tokens; 0 when it does not tell them."""
    tokens = one.get("tokens")
    return math.isqrt(len(tokens)) // 2 if isinstance(tokens, list) else 0


def _preview_tiles(previews: list[Image.Image], prompt: str) -> str:
    shown = previews[:MAX_TILES]
    width = min(256, SHEET_PIXELS // _columns(len(shown)))
    return "".join(
        f'<img src="{preview_uri(image, width)}" decoding="sync" alt="{index}: {escape(prompt)}">'
        for index, image in enumerate(shown, start=1)
    )


def _columns(count: int) -> int:
    return max(1, min(8, math.ceil(math.sqrt(count))))


def eta(job: Job) -> str:
    """How long it will take, in words; nothing when that is not known."""
    if job.eta_seconds is None:
        return ""
    if job.eta_seconds < 90:
        return both("eta", seconds=max(1, round(job.eta_seconds)))
    return both("eta_minutes", minutes=round(job.eta_seconds / 60))


# ------------------------------------------------------------------------------------------------------------ sheet


def sheet(job: Job | None, pictures: Pictures) -> str:
    """The kept candidates in CLIP's order, how far apart they are, and near-duplicates behind a fold."""
    if job is None or job.state != "done" or len(job.pictures) < 2:
        return ""
    first = job.pictures[0]
    apart = [index for index, one in enumerate(job.pictures) if one.get("duplicate_of") is None]
    twins = [index for index in range(len(job.pictures)) if index not in apart]
    stacks = Counter(job.pictures[index]["duplicate_of"] for index in twins)  # seed -> pictures like it
    tiles = "".join(_tile(job, pictures, index, stacks[job.pictures[index]["seed"]]) for index in apart)
    folded = "".join(_tile(job, pictures, index, 0) for index in twins)
    fold = (
        f'<details class="twins"><summary>{both("twins", count=len(twins))}</summary>'
        f'<div class="ranked">{folded}</div></details>'
        if twins
        else ""
    )
    title = both("sheet", keep=len(job.pictures), candidates=first.get("candidates", len(job.pictures)))
    return f'<section class="sheet"><h3>{title}</h3>{_spread(job)}<div class="ranked">{tiles}</div>{fold}</section>'


def _tile(job: Job, pictures: Pictures, index: int, twins: int) -> str:
    one = job.pictures[index]
    score = one.get("score")
    prompt = escape(str(job.settings.get("prompt", "")))
    more = f"<em>+{twins}</em>" if twins else ""
    told = f"<span>{score:.3f}</span>" if score is not None else ""
    return (
        f'<button type="button" class="tile{" stack" if twins else ""}" data-look="{index}" '
        f'aria-pressed="{"true" if index == 0 else "false"}">'
        f'<img src="{escape(pictures.url(one["path"]))}" alt="{prompt}, {index + 1}" loading="lazy">'
        f"<span class='under'><b>{one.get('rank', index + 1)}</b>{told}{more}</span></button>"
    )


def _spread(job: Job) -> str:
    """A line from the lowest to the highest score with a tick for each picture and the noise of the best one."""
    scores = [one["score"] for one in job.pictures if one.get("score") is not None]
    if len(scores) < 2:
        return ""
    first = job.pictures[0]
    noise = float(first.get("noise") or 0) * 2**0.5
    mean = first.get("mean_score")
    marks = [*scores, *([mean] if mean is not None else [])]
    low, high = min(marks), max(marks)
    width = (high - low) or 1e-6
    low, width = low - 0.06 * width, 1.12 * width
    tied = sum(scores[0] - score < noise for score in scores) if noise else 0
    sentence = both("tied", count=tied) if tied > 1 else both("clear_winner") if noise else ""

    def at(value: float) -> str:
        return f"{100 * (value - low) / width:.1f}%"

    ticks = "".join(f'<i class="tick" style="left:{at(score)}"></i>' for score in scores)
    start = max(0.0, (scores[0] - noise - low) / width)
    band = (
        f'<i class="noise" style="left:{start:.1%};right:{1 - (scores[0] - low) / width:.1%}"></i>'
        if noise
        else ""
    )
    average = ""
    if mean is not None:
        average = f'<i class="mean" style="left:{at(mean)}"></i>'
        legend = f"<span class='key mean'>{both('mean')} {mean:.3f}</span>"
    else:
        legend = ""
    if noise:
        legend += f"<span class='key noise'>{both('noise')} ±{noise:.3f}</span>"
    return (
        f'<div class="spread"><div class="axis" aria-hidden="true">{band}{average}{ticks}</div>'
        f'<p><b>{sentence}</b><span class="legend">{min(scores):.3f} – {max(scores):.3f}</span>{legend}</p></div>'
    )


def job_of(lane: Lane, pipeline: str, job_id: str) -> Job | None:
    """The job when it is one of this pipeline's and there is something to show of it."""
    try:
        job = lane.job(job_id) if job_id else None
    except BadInput:
        return None
    if job is None or job.pipeline != pipeline or (job.state == "done" and not job.pictures):
        return None
    return job


def jobs_of(lane: Lane, pipeline: str, visitor: str) -> list[Job]:
    """The visitor's last runs, newest first; those that were given up before their first step aside."""
    found = [one for one in lane.jobs(visitor, 60) if one.pipeline == pipeline] if visitor else []
    return [one for one in found if one.pictures or one.state not in ("done", "stopped")][:12]


def example_tiles(pictures: Pictures, columns: int) -> str:
    """The examples, each a button to begin with; nothing when there are none."""
    tiles = "".join(
        f'<button type="button" data-act="begin" data-name="{escape(name)}" title="{escape(name[3:-4])}">'
        f'<img src="example/{escape(name)}" alt="{escape(name[3:-4])}" loading="lazy"></button>'
        for name in pictures.example_names()
    )
    return f'<div class="tiles" style="--columns:{columns}">{tiles}</div>' if tiles else ""


def earlier(jobs: Sequence[Job], pictures: Pictures, current: str) -> str:
    """The visitor's last runs, each a small picture to go back to."""
    cells = []
    for job in jobs:
        prompt = escape(str(job.settings.get("prompt", "")))
        if job.pictures:
            inside = f'<img src="{escape(pictures.url(job.pictures[0]["path"]))}" alt="" loading="lazy">'
        else:
            inside = f'<span class="mark {job.state}"></span>'
        cells.append(
            f'<button type="button" data-act="open" data-job="{escape(job.id)}" title="{prompt}" '
            f'aria-current="{"true" if job.id == current else "false"}">{inside}<span>{prompt}</span></button>'
        )
    if not cells:
        return ""
    return f'<section class="earlier"><h3>{both("earlier")}</h3><div class="strip">{"".join(cells)}</div></section>'


def announcement(job: Job) -> str:
    """One sentence for those who hear the page; it changes with the state only."""
    prompt = escape(str(job.settings.get("prompt", "")))
    if job.state == "running":
        return f"{both('stage_draw')}: {prompt}"
    if job.state == "failed":
        return f"{both('failed')}. {both_sentence(job.error)}"
    return f"{both(job.state)}: {prompt}"


def reading(read: Any | None) -> str:
    """How the model reads the prompt: tokens used, words it does not know, what was cut. None while there is none."""
    keys = "<span class='keys'><kbd>Ctrl</kbd> <kbd>Enter</kbd></span>"
    if read is None:
        return f'<div class="reading"><p>{keys}</p></div>'
    parts = [both("tokens", used=len(read.tokens), limit=read.limit)]
    if read.unknown:
        unknown = ", ".join(read.unknown[:8]) + (" …" if len(read.unknown) > 8 else "")
        parts.append(f'<span class="warn">{both("unknown", words=unknown)}</span>')
    else:
        parts.append(both("all_known"))
    if read.cut:
        cut = read.cut if len(read.cut) <= 80 else read.cut[:79] + "…"
        parts.append(f'<span class="warn">{both("cut", words=cut)}</span>')
    said = "".join(f"<span>{part}</span>" for part in parts)
    return f'<div class="reading"><p>{said}{keys}</p></div>'


def plain(key: str, **facts: object) -> str:
    """A note that all is well."""
    return f'<p class="note">{both(key, **facts)}</p>'


def trouble(sentence: str) -> str:
    """A note that something is not."""
    return f'<p class="note trouble">{both_sentence(sentence)}</p>'


def lane_line(busy: bool, waiting: int) -> str:
    """The header's word on the lane."""
    said = both("lane_ahead", count=waiting) if waiting else both("lane_busy") if busy else both("lane_idle")
    return f'<span class="lane{" busy" if busy else ""}">{said}</span>'


def header() -> str:
    """Name, language, light and dark. The lane's line stands in its own place beside it."""
    return (
        '<header class="masthead"><h1 class="name"><i></i>Atelier</h1>'
        f'<span class="tools" role="group"><button type="button" data-set-lang="en" data-act="language" data-to="en" '
        'lang="en">EN</button><button type="button" data-set-lang="zh" data-act="language" data-to="zh" '
        f'lang="zh-CN">中文</button><button type="button" data-set-theme class="sun">'
        f'<i aria-hidden="true"></i><span class="only-heard">{both("theme")}</span></button></span></header>'
    )


def served(serving: Serving) -> str:
    """A quiet line for a studio that other machines can reach: who may come in, and who sees what is made."""
    seen = "served_apart" if serving.apart else "served_shared"
    return f'<p class="served">{both(f"served_{serving.protection}")} {both(seen)}</p>'


def downloads(url: str, name: str, settings: dict[str, Any], words: str = "download") -> str:
    """The link that saves a picture, and where pictures were given for it, one that saves it without them."""
    file = f"atelier-{escape(name.rsplit('/', 1)[-1])}"
    link = '<a class="quiet" href="{}?{}" download="{}">{}</a>'
    found = link.format(escape(url), "download", file, both(words))
    if any(isinstance(one, str) and "data:image/" in one for one in settings.values()):
        found += link.format(escape(url), "download=bare", file, both("download_bare"))
    return found


def _example_title(name: str) -> str:
    return name.removesuffix(".png").replace("-", " ").replace("_", " ")
