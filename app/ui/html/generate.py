"""What a run of Generate looks like: the stage with its pictures, the sheet of the candidates. HTML from a Job.

What belongs to one engine has the class that `only_for` names; the style sheet shows that of the engine that is chosen.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup
from PIL import Image

from app.jobs.queue import Job
from app.ui.html import axes
from app.ui.html.common import (
    KEYS,
    bar,
    brush,
    button,
    compare_button,
    downloads,
    eta,
    figures_line,
    link_of,
    offered,
    preview_tiles,
    row_words,
    rows_of,
    title_of,
    underway,
    warnings,
)
from app.ui.i18n import both, both_aloud, both_sentence
from app.ui.markup import html, joined
from app.ui.pictures import SHEET_PIXELS, Pictures
from pipelines.errors import Message
from pipelines.see.offers import Offers

MAX_TILES = 64  # previews shown at once


# ---------------------------------------------------------------------------------------------------------- engines


def mask() -> Markup:
    """Where the script lays the picture, to paint on it where it is drawn anew; and a mask from a file."""
    return html(
        '<div class="paints" id="draw-brush"><div class="frame"><img class="now" alt=""></div>{}'
        '<label class="quiet">{}<input type="file" accept="image/png,image/jpeg,image/webp"></label></div>',
        brush(),
        both("mask_file"),
    )


def engines(offered: Sequence[str], chosen: str, group: str = "engine") -> Markup:
    """The chip that chooses the engine, hidden where there is only one. `group` names the inputs and their data."""
    choices = joined(
        html(
            '<label><input type="radio" name="{0}" value="{1}" data-act="{0}" data-{0}="{1}"{2}>'
            "<span>{3}</span></label>",
            group,
            engine,
            " checked" if engine == chosen else "",
            both("engine_" + engine),
        )
        for engine in offered
    )
    return html(
        '<div class="engines" role="radiogroup" aria-label="{}"{}>{}</div>',
        both_aloud("engine"),
        " hidden" if len(offered) < 2 else "",
        choices,
    )


def only_for(engine: str) -> str:
    """The class of what is shown only while this engine is chosen."""
    return f"only-{engine}"


# ------------------------------------------------------------------------------------------------------------ stage


def stage(job: Job, pictures: Pictures, previews: list[Image.Image] | None = None) -> Markup:
    """The large place: what a job is doing, or the best of what it has made."""
    if job.state == "done" and job.pictures:
        return _figures(job, pictures)
    if job.state in ("queued", "running"):
        return _working(job, previews)
    return _ended(job, pictures, previews)


def empty(pictures: Pictures) -> Markup:
    """Before anything has been made: what happens here, and examples to click when there are any."""
    names = pictures.example_names()
    tiles = joined(
        html(
            '<button type="button" data-act="example" data-name="{}">'
            '<img src="example/{}" alt="{}" loading="lazy"></button>',
            name,
            name,
            _example_title(name),
        )
        for name in names
    )
    if not names:
        tiles = joined(html("<i style='--i:{}'></i>", index) for index in range(16))
    return html(
        '<section class="stage empty">{}<h2>{}</h2><p>{}</p>{}</section>',
        _tiles(min(4, _columns(len(names) or 16)), tiles),
        both("empty_title"),
        both("empty_text"),
        html("<p>{}</p>", both("empty_examples")) if names else "",
    )


def _working(job: Job, previews: list[Image.Image] | None) -> Markup:
    """Queued or running: one line on where it stands, and the sheet being drawn."""
    doing, place, share = underway(job)
    count = min(int(job.settings.get("candidates") or 16), 16)
    tiles = _previews(previews, title_of(job)) if previews else Markup("<i></i>") * count
    return html(
        '<section class="stage {}" data-job="{}"><div class="said"><b>{}</b><span>{}</span>'
        '<span class="eta">{}</span></div>{}{}<p class="caption">{}</p></section>',
        job.state,
        job.id,
        doing,
        place,
        eta(job),
        bar(title_of(job), share),
        _tiles(_columns(len(previews) if previews else count), tiles),
        title_of(job),
    )


def _ended(job: Job, pictures: Pictures, previews: list[Image.Image] | None) -> Markup:
    """Stopped, failed, interrupted: the cause, what was kept, and one next step."""
    kept, title = len(job.pictures), title_of(job)
    if job.state == "failed":
        outcome = both("failed_kept")
    elif job.state == "interrupted":
        outcome = both("interrupted_text")
    else:
        outcome = both("stopped_kept", count=kept) if kept else both("stopped_none")
    shown = joined(
        html('<img src="{}" alt="{}">', pictures.url(picture["path"]), title) for picture in job.pictures
    )
    if not shown and previews and job.state == "stopped":
        shown = _previews(previews, title)
    return html(
        '<section class="stage {}"><h2>{}</h2>{}<p>{}</p><div class="acts">{}</div>{}'
        '<p class="caption">{}</p></section>',
        job.state,
        both(job.state),
        html('<p class="cause">{}</p>', both_sentence(job.problem))
        if job.state == "failed" and job.problem
        else "",
        outcome,
        "" if job.state == "done" else button("again", "again", job=job.id),
        _tiles(_columns(kept or len(previews or ())), shown, "tiles faded") if shown else "",
        title,
    )


def _figures(job: Job, pictures: Pictures) -> Markup:
    """All kept pictures large, of which one is shown; the tiles below choose which."""
    figures = joined(_figure(job, pictures, index) for index in range(len(job.pictures)))
    return html('<section class="stage done">{}</section>', figures)


def _figure(job: Job, pictures: Pictures, index: int) -> Markup:
    picture = job.pictures[index]
    url, name = pictures.url(picture["path"]), pictures.name(picture["path"])
    acts = [
        downloads(url, name, job.settings),
        button("optimize_this", "optimize", name=name),
        button("edit_this", "edit", name=name),
        button("why", "see", name=name),
        button("remix", "remix", name=name),
        button("redraw", "redraw", name=name),
        button("reuse", "reuse", name=name),
        button("reuse_seed", "seed", seed=job.settings.get("seed", 0)),
        link_of(job),
    ]
    if len(job.pictures) > 1:
        acts.insert(4, compare_button())
    if job.pipeline == "diffuse":
        acts += [button("explain", "explain", name=name), button("keep_layout", "layout", name=name)]
    if "image" in job.settings:
        acts.append(button("variations", "vary", name=name))
        if "place" in job.settings:
            acts.append(button("beyond", "beyond", name=name))
        if rows := half_of_rows(picture):
            acts.append(button("complete", "complete", name=name, rows=rows))
    if index == 0 and axes.is_sheet(job):  # no picture to go on from
        acts = [downloads(url, name, job.settings), button("reuse", "reuse", name=name), link_of(job)]
    return html(
        '<figure data-figure="{}"{}><div class="frame"><img src="{}" alt="{}"{}></div>'
        '<figcaption><p>{}</p>{}<div class="acts">{}</div></figcaption></figure>',
        index,
        " hidden" if index else "",
        url,
        title_of(job),
        Markup(' loading="lazy"') if index else "",
        title_of(job),
        figures_line(_facts(job, index)),
        joined(acts),
    )


def _facts(job: Job, index: int) -> list[str]:
    """What is told of one picture: its place among the candidates or on the sheet, its score, its seed, who drew it."""
    picture, facts = job.pictures[index], list[str]()
    if axes.is_sheet(job):
        facts.append(axes.place_of(job, index))
    else:
        count = picture.get("candidates", len(job.pictures))
        facts.append(both("rank", rank=picture.get("rank", index + 1), count=count))
    if picture.get("score") is not None:
        facts.append(both("score", score=f"{picture['score']:.3f}"))
    return [*facts, both("seed_is", seed=picture["seed"]), both("made_" + job.pipeline)]


def half_of_rows(picture: dict[str, Any]) -> int:
    """Half as many rows as the picture has rows of image tokens; 0 when it does not tell them."""
    tokens = picture.get("tokens")
    return math.isqrt(len(tokens)) // 2 if isinstance(tokens, list) else 0


def _previews(previews: list[Image.Image], title: str) -> Markup:
    shown = previews[:MAX_TILES]
    return preview_tiles(shown, min(256, SHEET_PIXELS // _columns(len(shown))), title)


def _tiles(columns: int, tiles: Markup, kind: str = "tiles") -> Markup:
    return html('<div class="{}" style="--columns:{}">{}</div>', kind, columns, tiles)


def _columns(count: int) -> int:
    return max(1, min(8, math.ceil(math.sqrt(count))))


def _example_title(name: str) -> str:
    return name.removesuffix(".png").replace("-", " ").replace("_", " ")


# ------------------------------------------------------------------------------------------------------------ sheet


def sheet(job: Job | None, pictures: Pictures) -> Markup | str:
    """The kept candidates in CLIP's order, how far apart they are, and near-duplicates behind a fold."""
    if job is None or job.state != "done" or len(job.pictures) < 2:
        return ""
    if axes.is_sheet(job):
        urls = [pictures.url(picture["path"]) for picture in job.pictures]
        cells = axes.cells(job, urls, lambda k: html('data-look="{}"', k))
        return html('<section class="sheet"><h3>{}</h3>{}</section>', both("axes_title"), cells)
    first = job.pictures[0]
    apart = [index for index, picture in enumerate(job.pictures) if picture.get("duplicate_of") is None]
    twins = [index for index in range(len(job.pictures)) if index not in apart]
    stacks = Counter(job.pictures[index]["duplicate_of"] for index in twins)  # seed -> pictures like it
    tiles = joined(_tile(job, pictures, index, stacks[job.pictures[index]["seed"]]) for index in apart)
    fold = (
        html(
            '<details class="twins"><summary>{}</summary><div class="ranked">{}</div></details>',
            both("twins", count=len(twins)),
            joined(_tile(job, pictures, index, 0) for index in twins),
        )
        if twins
        else ""
    )
    return html(
        '<section class="sheet"><h3>{}</h3>{}<div class="ranked">{}</div>{}</section>',
        both("sheet", keep=len(job.pictures), candidates=first.get("candidates", len(job.pictures))),
        _spread(job),
        tiles,
        fold,
    )


def _tile(job: Job, pictures: Pictures, index: int, twins: int) -> Markup:
    picture = job.pictures[index]
    score = picture.get("score")
    return html(
        '<button type="button" class="tile{}" data-look="{}" aria-pressed="{}">'
        '<img src="{}" alt="{}, {}" loading="lazy">'
        "<span class='under'><b>{}</b>{}{}</span></button>",
        " stack" if twins else "",
        index,
        "true" if index == 0 else "false",
        pictures.url(picture["path"]),
        title_of(job),
        index + 1,
        picture.get("rank", index + 1),
        html("<span>{:.3f}</span>", score) if score is not None else "",
        html("<em>+{}</em>", twins) if twins else "",
    )


def _spread(job: Job) -> Markup | str:
    """A line from the lowest to the highest score with a tick for each picture and the noise of the best one."""
    scores = [picture["score"] for picture in job.pictures if picture.get("score") is not None]
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

    def at(value: float) -> str:
        return f"{100 * (value - low) / width:.1f}%"

    axis, legend = Markup(), Markup()
    if noise:
        start = max(0.0, (scores[0] - noise - low) / width)
        right = 1 - (scores[0] - low) / width
        axis += html('<i class="noise" style="left:{:.1%};right:{:.1%}"></i>', start, right)
    if mean is not None:
        axis += html('<i class="mean" style="left:{}"></i>', at(mean))
        legend += html("<span class='key mean'>{} {:.3f}</span>", both("mean"), mean)
    axis += joined(html('<i class="tick" style="left:{}"></i>', at(score)) for score in scores)
    if noise:
        legend += html("<span class='key noise'>{} ±{:.3f}</span>", both("noise"), noise)
    return html(
        '<div class="spread"><div class="axis" aria-hidden="true">{}</div>'
        '<p><b>{}</b><span class="legend">{:.3f} – {:.3f}</span>{}</p></div>',
        axis,
        both("tied", count=tied) if tied > 1 else both("clear_winner") if noise else "",
        min(scores),
        max(scores),
        legend,
    )


# ---------------------------------------------------------------------------------------------------------- reading


def several(text: str, prompts: Sequence[str], notes: Sequence[Message] = ()) -> Markup:
    """How a text of several prompts is read; `notes` are what is told about the first. There are no rows."""
    shown = " · ".join(prompts[:6]) + (" …" if len(prompts) > 6 else "")
    said = both("several", count=len(prompts), prompts=shown)
    rows = html('<div hidden data-parsed="{}"></div>', json.dumps({"text": text, "scenes": []}))
    return html('<div class="reading"><p><span>{}</span>{}</p>{}{}</div>', said, KEYS, warnings(notes), rows)


def reading(
    read: Any | None, prompt: str = "", notes: Sequence[Message] = (), offers: Offers | None = None
) -> Markup:
    """How the model reads the prompt: tokens used, words it does not know or reads as others, what was cut.

    None while there is none.

    The script draws the parts of `prompt` as rows; `notes` are what is told about it, `offers` what it could be instead.
    """
    rows = html('<div hidden data-parsed="{}"></div>{}', rows_of(prompt, "terms"), row_words())
    if read is None:
        return html('<div class="reading"><p>{}</p>{}{}</div>', KEYS, warnings(notes), rows)
    parts = [both("tokens", used=len(read.tokens), limit=read.limit)]
    if read.known_as:
        parts.append(both("known_as", words=read.known_as))
    elif read.unknown:
        unknown = ", ".join(read.unknown[:8]) + (" …" if len(read.unknown) > 8 else "")
        parts.append(html('<span class="warn">{}</span>', both("unknown", words=unknown)))
    else:
        parts.append(both("all_known"))
    if read.cut:
        cut = read.cut if len(read.cut) <= 80 else read.cut[:79] + "…"
        parts.append(html('<span class="warn">{}</span>', both("cut", words=cut)))
    return html(
        '<div class="reading"><p>{}{}</p>{}{}{}</div>',
        joined(html("<span>{}</span>", part) for part in parts),
        KEYS,
        "" if offers is None else offered(offers),
        warnings(notes),
        rows,
    )
