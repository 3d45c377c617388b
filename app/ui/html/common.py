"""What Generate, Optimize, Edit and plain tabs show alike: notes, buttons, how a run stands, scores, earlier runs.

HTML only: nothing here asks the queue or changes anything. Buttons carry `data-act`; the tabs say what they do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from markupsafe import Markup
from PIL import Image

from app.jobs.queue import Job
from app.ui.i18n import about, both, both_aloud, both_sentence, pair, words
from app.ui.link import copy_link
from app.ui.markup import html, joined
from app.ui.pictures import Pictures, preview_uri
from pipelines.core.prompts import Target, said, written_scenes
from pipelines.errors import Message
from pipelines.export.presets import LOOKED_UP, TABLE
from pipelines.see.offers import Offers

CURVE_WIDTH, CURVE_HEIGHT = 1000, 72
KEYS = Markup("<span class='keys'><kbd>Ctrl</kbd> <kbd>Enter</kbd></span>")
WAITING = Markup('<div class="frame waiting"><i></i></div>')  # in place of a picture


@dataclass(frozen=True)
class Trace:
    """What the journal of a run tells the page."""

    steps: tuple[int, ...] = ()  # that have snapshots
    curve: tuple[tuple[float, ...], ...] = ()  # step, CLIP's and the critic's score


# --------------------------------------------------------------------------------------------- notes and buttons


def button(key: str, act: str, **data: object) -> Markup:
    """A quiet button that does `act` with `data`."""
    facts = joined(html(' data-{}="{}"', name, value) for name, value in data.items())
    return html('<button type="button" class="quiet" data-act="{}"{}>{}</button>', act, facts, both(key))


def press(key: str, act: str, *, main: bool = False, first: bool = False, **facts: object) -> Markup:
    """A button of the row below a form. `main` is the large one; `first` is what Ctrl+Enter presses."""
    return html(
        '<button type="button" class="{}" data-act="{}"{}{}>{}</button>',
        "act" if main else "quiet",
        act,
        " data-key" if first else "",
        " data-back" if act == "back" else "",
        both(key, **facts),
    )


def button_row(*parts: str) -> Markup:
    """The row of buttons below a form."""
    return html('<div class="transport">{}</div>', joined(parts))


def info_note(key: str, **facts: object) -> Markup:
    """A note that all is well."""
    return html('<p class="note">{}</p>', both(key, **facts))


def error_note(problem: Message | Exception) -> Markup:
    """A note that something is not."""
    return html('<p class="note trouble">{}</p>', both_sentence(problem))


def chips(prompts: Iterable[tuple[str, str]]) -> Markup:
    """Prompts to click, each in English and Chinese, in the language of the page."""
    chip = '<button type="button" data-act="chip" data-prompt="{0}">{0}</button>'
    shown = joined(pair(*(html(chip, prompt) for prompt in prompt_pair)) for prompt_pair in prompts)
    return html('<div class="chips">{}</div>', shown)


def rows_of(prompt: str, grammar: str) -> str:
    """The parts of a prompt as JSON, from which the script draws rows: its text, and scenes of targets.

    A target's `said` is its text as the script writes it back.
    """
    scenes = [asdict(scene) for scene in written_scenes(prompt, grammar)]
    for target in (target for scene in scenes for target in scene["targets"]):
        target["said"] = said(Target(target["text"], -2.0)).removesuffix(":-2")
    return json.dumps({"text": prompt, "scenes": scenes})


def row_words() -> Markup:
    """The words that rows need, hidden."""
    words_of_rows = joined(
        html('<span data-word="{}">{}</span>', name, both(f"opt_{name}", **facts))
        for name, facts in (
            ("weight", {}),
            ("off", {}),
            ("remove", {}),
            ("add", {}),
            ("scene", {"number": "#"}),
            ("step", {"step": "#"}),
        )
    )
    return html("<div hidden data-words>{}</div>", words_of_rows)


def warnings(notes: Iterable[Message]) -> Markup:
    """What is told about a prompt, a line each."""
    return joined(html('<p class="warn">{}</p>', both_sentence(note)) for note in notes)


def remarks(notes: Iterable[Message]) -> Markup:
    """Notes that all is well, one a line."""
    return joined(html('<p class="note">{}</p>', both_sentence(note)) for note in notes)


def told(notes: Sequence[Message]) -> Markup:
    """A note with what is told about a run that was asked for; empty for nothing."""
    return html('<div class="note">{}</div>', warnings(notes)) if notes else Markup()


def offered(offers: Offers) -> Markup:
    """Chips for what a prompt could go on with, and for what could stand for its unknown words. The script takes them."""
    chip = '<button type="button" data-offer="{}" data-{}="{}">{}</button>'
    lines = Markup()
    for word, known in offers.instead.items():
        chips = joined(html(chip, one, "word", word, one) for one in known)
        lines += html("<span>{}</span>{}", both("offer_instead", word=word), chips)
    if offers.completions:
        chips = joined(html(chip, name, "tail", offers.tail, name) for name in offers.completions)
        lines += html("<span>{}</span>{}", both("offer_more"), chips)
    if not lines:
        return lines
    return html('<div class="offers" role="group" aria-label="{}">{}</div>', both_aloud("offer_more"), lines)


def downloads(url: str, name: str, settings: dict[str, Any], words: str = "download") -> Markup:
    """The link that saves a picture, and where pictures were given for it, one that saves it without them."""
    file = "atelier-" + name.rsplit("/", 1)[-1]
    link = '<a class="quiet" href="{}?{}" download="{}">{}</a>'
    links = html(link, url, "download", file, both(words))
    if any(isinstance(value, str) and "data:image/" in value for value in settings.values()):
        links += html(link, url, "download=bare", file, both("download_bare"))
    return links + exports(url)


def exports(url: str) -> Markup:
    """The menu that saves a picture of the page, by its address there, cut out for each place that takes a single one."""
    address, _, key = url.removeprefix("picture/").partition("?")
    rows = joined(
        html(
            '<li><a href="export/{0}/{1}{2}">{3}</a> <small>{4}</small> '
            '<a class="outlined" href="export/{0}/{1}{5}" aria-label="{6}">{7}</a></li>',
            preset.name,
            address,
            f"?{key}" if key else "",
            pair(*preset.label),
            pair(*preset.note),
            f"?{key}&outline=1" if key else "?outline=1",
            f"{', '.join(preset.label)}, {both_aloud('export_outlined')}",
            both("export_outlined"),
        )
        for preset in TABLE
        if preset.fewest == 1
    )
    return html(
        '<details class="menu exports"><summary class="quiet">{}</summary><div class="list"><ul>{}</ul>'
        '<p class="small">{}</p></div></details>',
        both("export"),
        rows,
        both("export_note", date=LOOKED_UP),
    )


# ------------------------------------------------------------------------------------------------ how a run stands


def title_of(job: Job) -> str:
    """What a run is called: its prompt, or that it has none."""
    return str(job.settings.get("prompt", "")) or both_aloud("no_prompt")


def underway(job: Job, prefix: str = "stage_") -> tuple[str, str, float]:
    """What a queued or running job is doing, how far it is, and the share of its stage that is done, from 0 to 1.

    The words of a stage are `prefix` and its name; a stage without words is called by its name.
    """
    if job.state == "queued":
        place = both("queued_next") if job.position == 1 else both("queued_place", position=job.position)
        place = place if job.position else both("queued_paused")
        return both("queued"), place, 0.0
    key = prefix + job.stage
    doing = both(key) if key in words() else job.stage or both("queue_busy")
    if not job.total:
        return doing, "", 0.0
    return doing, both("steps", done=job.done, total=job.total), job.done / job.total


def standing(
    job: Job,
    title: str,
    ended: tuple[str, str],
    *,
    prefix: str = "stage_",
    beside: str = "",
    cause: Message | None = None,
) -> Markup:
    """One line on where a run stands, a sentence when it failed or `cause` says more, and a bar while it works.

    `ended` is what is said of a job that is over, and where it ended; `beside` is put at the end of the line.
    """
    doing, place, share = (*ended, 0.0) if job.is_over else underway(job, prefix)
    reason = cause or (job.problem if job.state == "failed" else None)
    return html(
        '<div class="said"><b>{}</b><span>{}</span><span class="eta">{}</span>{}</div>{}{}',
        doing,
        place,
        eta(job),
        beside,
        html('<p class="cause">{}</p>', both_sentence(reason)) if reason else "",
        "" if job.is_over else bar(title, share),
    )


def bar(title: str, share: float) -> Markup:
    """How much of a stage is done, from 0 to 1."""
    return html(
        '<div class="bar" role="progressbar" aria-label="{}" aria-valuenow="{:.0f}">'
        '<i style="width:{:.1%}"></i></div>',
        title,
        share * 100,
        share,
    )


def eta(job: Job) -> str:
    """How long it will take, in words; nothing when that is not known."""
    if job.eta_seconds is None:
        return ""
    if job.eta_seconds < 90:
        return both("eta", seconds=max(1, round(job.eta_seconds)))
    return both("eta_minutes", minutes=round(job.eta_seconds / 60))


def announcement(job: Job) -> Markup:
    """One sentence for those who hear the page; it changes with the state only."""
    if job.state == "failed":
        return html("{}. {}", both("failed"), both_sentence(job.problem) if job.problem else "")
    return html("{}: {}", both("stage_draw" if job.state == "running" else job.state), title_of(job))


# -------------------------------------------------------------------------------------------------------- pictures


def frame(source: str, alt: str, size: tuple[int, int] | None = None) -> Markup:
    """A large picture; `size` is its width and height, where they are known."""
    ratio = html(' style="--ratio:{:.4f}"', size[0] / size[1]) if size else ""
    return html(
        '<div class="frame"{}><img class="now" src="{}" alt="{}" decoding="sync"></div>', ratio, source, alt
    )


def figure(index: int, shown: bool, inside: str, facts: Iterable[str], acts: Iterable[str]) -> Markup:
    """One of the pictures of a run, of which one is shown, with its figures and what can be done with it."""
    return html(
        '<figure data-figure="{}"{}>{}<figcaption>{}<div class="acts">{}</div></figcaption></figure>',
        index,
        "" if shown else " hidden",
        inside,
        figures_line(facts),
        joined(acts),
    )


def figures_line(facts: Iterable[str]) -> Markup:
    """What is said of a picture, one after another."""
    return html('<p class="facts">{}</p>', joined(html("<span>{}</span>", fact) for fact in facts))


def link_of(job: Job) -> Markup:
    """The button that copies a link with the settings of a job."""
    return copy_link(job.pipeline, job.settings)


def preview_tiles(previews: Sequence[Image.Image], width: int, title: str) -> Markup:
    """Small pictures of what is being drawn."""
    return joined(
        html('<img src="{}" decoding="sync" alt="{}: {}">', preview_uri(image, width), index, title)
        for index, image in enumerate(previews, start=1)
    )


def example_tiles(pictures: Pictures, columns: int) -> Markup | str:
    """The examples, each a button to begin with; nothing when there are none."""
    tiles = joined(
        html(
            '<button type="button" data-act="begin" data-name="{}" title="{}">'
            '<img src="example/{}" alt="{}" loading="lazy"></button>',
            name,
            name[3:-4],
            name,
            name[3:-4],
        )
        for name in pictures.example_names()
    )
    return html('<div class="tiles" style="--columns:{}">{}</div>', columns, tiles) if tiles else ""


def earlier(jobs: Sequence[Job], pictures: Pictures, current: str) -> Markup | str:
    """The visitor's last runs, each a small picture to go back to."""
    cells = []
    for job in jobs:
        if job.pictures:
            url = pictures.url(job.pictures[0]["path"])
            inside = html('<img src="{}" alt="" loading="lazy">', url)
        else:
            inside = html('<span class="mark {}"></span>', job.state)
        cells.append(
            html(
                '<button type="button" data-act="open" data-job="{}" title="{}" aria-current="{}">'
                "{}<span>{}</span></button>",
                job.id,
                title_of(job),
                "true" if job.id == current else "false",
                inside,
                title_of(job),
            )
        )
    if not cells:
        return ""
    compare = compare_button() if sum(len(job.pictures) for job in jobs) > 1 else ""
    strip = (
        '<section class="earlier"><div class="head"><h3>{}</h3>{}</div><div class="strip">{}</div></section>'
    )
    return html(strip, both("earlier"), compare, joined(cells))


def compare_button() -> Markup:
    """The button that lays results of the tab under a slider, which the script does."""
    return html('<button type="button" class="quiet" data-compare>{}</button>', both("compare_open"))


def missing(pack: str, checkpoints: Sequence[Any]) -> Markup:
    """Files of the pack that are not there, and where each one comes from."""
    rows = joined(
        html(
            "<li><b>{}</b> {} <small>{}</small><small>{}</small></li>",
            checkpoint.name,
            about(checkpoint),
            checkpoint.licence,
            checkpoint.origin,
        )
        for checkpoint in checkpoints
    )
    return html(
        '<section class="stage missing"><h2>{}</h2><p>{}</p><ul>{}</ul><div class="acts">'
        '<button type="button" class="quiet" data-tab="models">{}</button></div></section>',
        both("missing_title"),
        both("missing_text", pack=pack),
        rows,
        both("missing_go"),
    )


def brush() -> Markup:
    """The tools of the mask. The script of the page does the painting."""
    return html(
        '<div class="brush" data-brush hidden>'
        '<button type="button" class="quiet" data-paint aria-pressed="false">{}</button><span class="tools">'
        '<label>{}<input type="range" data-brush-size min="2" max="40" value="12"></label>'
        '<button type="button" class="quiet" data-erase aria-pressed="false">{}</button>'
        '<button type="button" class="quiet" data-invert>{}</button>'
        '<button type="button" class="quiet" data-clear>{}</button><span class="steps">{}{}{}'
        '<button type="button" class="quiet" data-zoom="0" data-zoom-told aria-label="{}">100 %</button>{}</span></span>'
        '<span class="masked">{}</span></div>',
        *(both(f"opt_{name}") for name in ("paint", "brush_size", "erase", "invert", "clear")),
        _tool("undo", "", "↶"),
        _tool("redo", "", "↷"),
        _tool("zoom", "-1", "−"),
        both_aloud("brush_whole"),
        _tool("zoom", "1", "+"),
        both("opt_masked"),
    )


def _tool(name: str, value: str, sign: str) -> Markup:
    """One small button of the mask's tools; its words are read aloud and shown on hover."""
    words_of = {"-1": "brush_further", "1": "brush_closer"}.get(value, f"brush_{name}")
    tool = '<button type="button" class="quiet" data-{}="{}" aria-label="{}" title="{}">{}</button>'
    return html(tool, name, value, both_aloud(words_of), both_aloud(words_of), sign)


# ---------------------------------------------------------------------------------------------------------- scores


def curves(curve: Sequence[tuple[float, ...]], end: int, *, one_scale: bool = False) -> Markup:
    """CLIP's and the critic's score over the steps, each on its own scale when what counts is which way they go."""
    if len(curve) < 2:
        return html(
            '<svg class="curves" viewBox="0 0 {} {}" aria-hidden="true"></svg>', CURVE_WIDTH, CURVE_HEIGHT
        )
    lines, floor, rise = Markup(), CURVE_HEIGHT - 6, CURVE_HEIGHT - 12
    for index, name in ((1, "clip"), (2, "critic")):
        values = [
            value for point in curve for value in (point[1:] if one_scale else point[index : index + 1])
        ]
        low, span = min(values), max(max(values) - min(values), 0.02)
        points = " ".join(
            f"{CURVE_WIDTH * point[0] / end:.1f},{floor - rise * (point[index] - low) / span:.1f}"
            for point in curve
        )
        lines += html('<polyline class="{}" points="{}" vector-effect="non-scaling-stroke"/>', name, points)
    return html(
        '<svg class="curves" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" '
        'aria-label="CLIP, critic">{}</svg>',
        CURVE_WIDTH,
        CURVE_HEIGHT,
        lines,
    )


def legend(clip: str, critic: str) -> Markup:
    """The last scores, each in the colour of its curve."""
    return html(
        '<span class="key clip">CLIP {}</span><span class="key critic">{} {}</span>',
        clip,
        both("opt_critic"),
        critic,
    )
