"""The form of Edit, what to expect of a run, and the shelf of directions. HTML; nothing here acts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from app.jobs.queue import Job
from app.saved_directions import Kept
from app.ui.components import plain_field
from app.ui.html import axes
from app.ui.html.common import KEYS, button, button_row, press
from app.ui.html.edit import signed, signed_score
from app.ui.i18n import both, both_aloud, both_sentence, knob_words, pair, say
from app.ui.markup import html, joined
from pipelines.core.looks import ANY, LOOKS
from pipelines.core.settings import Knob
from pipelines.edit.settings import MODES
from pipelines.see.changes import TextChange

PAIRS = (  # from, to, and both in Chinese
    ("a face", "an angry face", "一张脸", "一张生气的脸"),
    ("a red apple", "a green apple", "红苹果", "绿苹果"),
    ("a cat face", "a fox face", "猫脸", "狐狸脸"),
    ("a heart", "a purple heart", "一颗心", "一颗紫色的心"),
)


def form(knobs: dict[str, Knob], basics: Sequence[str]) -> Markup:
    """From and to, how, how far, and the rest folded away: inputs named as the settings. The script reads them."""
    apart = (
        "prompt",
        "source",
        "image",
        "mode",
        "strength",
        "mask",
        "directions",
        "style",
        "x",
        "y",
        *basics,
    )
    entries = joined(
        _seed(knobs[name]) if name == "seed" else plain_field(knobs[name], "edit") for name in basics
    )
    return html(
        '<div class="edit-form"><input type="hidden" name="source_of" value="">{}{}{}'
        '<p class="resting note">{}</p>{}<div class="rest"><div class="basics">{}</div>{}'
        '<details class="more-settings"><summary>{}</summary><div class="fields">{}</div></details></div></div>',
        _texts(),
        _looks(knobs["style"]),
        _modes(knobs["mode"]),
        both("edit_resting"),
        _how_far(knobs["strength"]),
        entries,
        axes.form(("edit",)),
        both("advanced"),
        joined(plain_field(knob, "edit") for knob in knobs.values() if knob.name not in apart),
    )


def _texts() -> Markup:
    """From what to what, and pairs of texts to click."""
    entry = (
        '<label><span>{}</span><input type="text" name="{}" maxlength="2000" value="{}" autocomplete="off" '
        'spellcheck="false"></label>'
    )
    chips = joined(pair(_chip(*words[:2]), _chip(*words[2:])) for words in PAIRS)
    return html(
        '<div class="words">{}<i aria-hidden="true">→</i>{}</div><div class="chips">{}</div>',
        html(entry, both("edit_from"), "source", PAIRS[0][0]),
        html(entry, both("edit_to"), "prompt", PAIRS[0][1]),
        chips,
    )


def _looks(knob: Knob) -> Markup:
    """The looks that the target may have, a chip each, of which one is chosen; the first is none in particular."""
    chip = '<label class="look"><input type="radio" name="style" value="{}"{}><span>{}</span></label>'
    chips = [html(chip, ANY, " checked" if knob.default == ANY else "", both("look_any"))]
    chips += [html(chip, name, "", pair(look.english, look.chinese)) for name, look in LOOKS.items()]
    label, chinese, _ = knob_words("style")
    return html(
        '<div class="looks" role="radiogroup" aria-label="{}, {}"><b>{}</b>{}</div>',
        label,
        chinese,
        both("edit_looks"),
        joined(chips),
    )


def _modes(knob: Knob) -> Markup:
    """The ways to edit, of which one is chosen."""
    modes = joined(
        html(
            '<label class="mode"><input type="radio" name="mode" value="{}"{}><b>{}</b><small>{}</small></label>',
            mode,
            " checked" if mode == knob.default else "",
            _mode(mode),
            both(f"edit_mode_{mode}_says"),
        )
        for mode in MODES
    )
    label = say("knob_mode", "en")
    return html('<div class="modes" role="radiogroup" aria-label="{}">{}</div>', label, modes)


def _mode(mode: str) -> Markup:
    """What a way to edit is called."""
    english, chinese = MODES[mode]
    return pair(english.capitalize(), chinese)


def _how_far(knob: Knob) -> Markup:
    """The slider of the strength, from the opposite of the target to beyond it."""
    return html(
        '<label class="how-far"><span><b>{}</b><output>1</output></span>'
        '<input type="range" name="strength" min="{:g}" max="{:g}" step="0.05" value="{:g}">'
        '<span class="scale" aria-hidden="true"><i style="left:0">{}</i>'
        '<i style="left:40%">{}</i><i style="left:80%">{}</i></span></label>',
        both("edit_strength"),
        knob.lo or 0,
        knob.hi or 1,
        knob.default,
        both("edit_opposite"),
        both("edit_zero"),
        both("edit_target_is"),
    )


def _seed(knob: Knob) -> Markup:
    return html(
        '<label class="field"><b>{}</b><span class="with"><input type="text" name="seed" inputmode="numeric" '
        'pattern="[0-9]*" autocomplete="off" value="{}">'
        '<button type="button" class="quiet" data-roll aria-label="{}">⚄</button></span></label>',
        both("edit_seed"),
        knob.default,
        both_aloud("dice"),
    )


def _chip(source: str, target: str) -> Markup:
    chip = '<button type="button" data-from="{0}" data-to="{1}">{0} → {1}</button>'
    return html(chip, source, target)


def controls(job: Job | None) -> Markup:
    """The button that is next; Ctrl+Enter presses it. What happened is said for those who hear the page."""
    heard = ""
    if job is not None:
        cause = html(". {}", both_sentence(job.problem)) if job.state == "failed" and job.problem else ""
        word = "edit_stage_learn" if job.state == "running" else job.state
        heard = html('<span class="only-heard" role="status">{}{}</span>', both(word), cause)
    if job is not None and not job.is_over:
        return button_row(press("stop" if job.state == "running" else "opt_cancel", "stop", main=True), heard)
    again = ""
    if job is not None and job.state in ("stopped", "failed", "interrupted"):
        learned = any(picture.get("updates") for picture in job.pictures[:1])
        again = button("edit_go_on" if learned else "opt_again", "resume")
    return button_row(press("edit_go", "edit", main=True, first=True), again, KEYS, heard)


def waiting() -> Markup:
    """Before the first outlook: the models are being read."""
    return html('<div class="estimate"><div><span>{}</span></div></div>', both("edit_waiting"))


def estimate(forecast: Any, settings: Any, survives: float | None) -> Markup:
    """What can be expected, before any waiting: four quiet figures, and a sentence where one is needed."""
    cells = []
    if forecast.match is not None and not settings.directions:
        weak = "source does not describe it" in forecast.warnings
        cells.append(
            _cell(
                f"{forecast.match:.0%}".replace("%", " %"),
                both("edit_match", source=_short(settings.source)),
                forecast.match,
                warn=weak,
            )
        )
    if not settings.directions and not settings.target_images:
        apart = 1 - forecast.alike
        far = "far apart" in forecast.warnings
        word = "edit_far" if far else "edit_near" if apart < 0.15 else "edit_between"
        cells.append(_cell(both(word), both("edit_apart", value=f"{apart:.2f}"), min(apart, 1.0), warn=far))
    if survives is None:
        cells.append(_cell(str(forecast.return_step), both("edit_return"), forecast.return_step / 1000))
    else:
        label = both("edit_survives", step=forecast.return_step)
        cells.append(_cell(f"{survives:.0%}".replace("%", " %"), label, survives))
    seconds = max(1, round(forecast.seconds))
    if seconds < 90:
        time = pair(f"{seconds} s", f"{seconds} 秒")
    else:
        time = pair(f"{seconds / 60:.0f} min", f"{seconds / 60:.0f} 分钟")
    cells.append(_cell(html("≈ {}", time), both("edit_memory", megabytes=f"{forecast.megabytes:,.0f}")))
    notes = ""
    if "far apart" in forecast.warnings:
        notes += html('<p class="note trouble">{}</p>', both("edit_far_apart"))
    if "source does not describe it" in forecast.warnings:
        notes += html(
            '<p class="note trouble">{}</p>', both("edit_not_described", source=_short(settings.source))
        )
    return html('<div class="estimate">{}</div>{}', joined(cells), notes)


def could_become(known: Sequence[TextChange]) -> Markup:
    """Chips that fill both texts: what the picture shows, and what it could."""
    chips = joined(
        html(
            '<button type="button" class="quiet" data-from="{}" data-to="{}">{}</button>',
            change.source,
            change.target,
            change.target,
        )
        for change in known
    )
    return (
        html('<div class="become"><span>{}</span>{}</div>', both("edit_become"), chips) if known else Markup()
    )


def _cell(value: str, label: str, share: float | None = None, *, warn: bool = False) -> Markup:
    meter = (
        "" if share is None else html('<i class="meter"><i style="width:{:.0%}"></i></i>', max(0.0, share))
    )
    return html("<div{}><b>{}</b>{}<span>{}</span></div>", " class=weak" if warn else "", value, meter, label)


def _short(text: str) -> str:
    return text if len(text) <= 32 else text[:31] + "…"


# ----------------------------------------------------------------------------------------------------------- shelf


def shelf(kept: Sequence[Kept], uses: dict[str, float]) -> Markup:
    """The directions that were kept; those that are ticked are used instead of the texts."""
    rows = joined(_direction(direction, uses.get(direction.name)) for direction in kept)
    return html(
        '<section class="shelf"><div class="head"><h3>{}</h3>'
        '<button type="button" class="quiet" data-choose>{}</button></div>{}</section>',
        both("edit_shelf"),
        both("edit_shelf_open"),
        html("<ul>{}</ul>", rows) if rows else html("<p>{}</p>", both("edit_shelf_empty")),
    )


def _direction(direction: Kept, used: float | None) -> Markup:
    """One direction of the shelf; `used` is its strength when it is ticked."""
    source, target = direction.words
    strength = 1.0 if used is None else used
    return html(
        '<li data-direction="{0}"><label><input type="checkbox" data-use{1}>'
        "<span><b>{2} → {3}</b><small>{4}</small></span></label>"
        '<span class="how-much"><input type="range" min="-1" max="1.5" step="0.05" value="{5:g}" '
        'aria-label="{6}: {3}"><output>{7}</output></span>'
        '<a class="quiet" href="direction/{0}" download="{0}" aria-label="{8}: {3}">↓</a></li>',
        direction.name,
        "" if used is None else " checked",
        source,
        target,
        Markup(" · ").join(fact for fact in _direction_facts(direction) if fact),
        strength,
        say("knob_strength", "en"),
        signed(strength),
        say("save", "en"),
    )


def _direction_facts(direction: Kept) -> list[str]:
    """How a direction was learned, what the critic says of it, and its size."""
    facts, figures = direction.facts, direction.facts.get("figures")
    parts: list[str] = [_mode(facts["mode"]) if facts["mode"] in MODES else ""]
    if isinstance(facts.get("updates"), int):
        parts.append(both("edit_updates", updates=facts["updates"]))
    if isinstance(figures, dict) and isinstance(figures.get("critic direction"), (int, float)):
        parts.append(both("opt_critic_is", score=signed_score(figures["critic direction"])))
    return [*parts, f"{max(1, round(direction.size / 1000))} kB"]
