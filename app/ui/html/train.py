"""What the tab Train shows: the form, what was found in a folder, and how a training goes.

HTML only. The script of the tab puts the parts where they belong and draws the curves; `data-do` is done by the script.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from app.trainings.manager import Standing
from app.trainings.order import SIZES
from app.ui.i18n import both, both_aloud, both_sentence, words
from app.ui.markup import html, joined
from pipelines.errors import Message
from pipelines.training.data.folder import Check

FIRST = ("pack", "prior", "dalle", "codec", "vqgan", "clip")  # shown at once, the others behind "more"
TOLD_ELSEWHERE = (
    "training.check_pictures",
    "training.check_skipped",
)  # in the title, and above what is left out
MINUTES = ("10", "60", "240", "600")
MOST_SKIPPED = 200  # that are listed


def frame() -> Markup:
    """The tab before the server was asked: places that the script fills."""
    return html(
        '<section class="train" data-state="" aria-label="{}"><div class="train-form"></div>'
        '<div class="train-run" hidden><div class="head"></div><div class="going"></div><div class="board">'
        '<figure class="sample" hidden><img alt="{}"><figcaption></figcaption></figure>'
        '<div class="told-by"><div class="plots"></div><div class="figures"></div></div></div>'
        '<div class="strip film" role="group" aria-label="{}"></div></div>'
        '<div class="toast" role="status" hidden></div>{}{}</section>',
        both_aloud("tab_train"),
        both_aloud("train_sheet"),
        both_aloud("train_film"),
        _sure(),
        _said(),
    )


def closed(problem: Message | Exception) -> Markup:
    """The tab where nothing can be trained, and why."""
    return html(
        '<section class="train" data-state="closed"><div class="stage empty"><h2>{}</h2><p>{}</p></div></section>',
        both("train_title"),
        both_sentence(problem),
    )


def _said() -> Markup:
    """What the script says by itself, in templates; `#` is a number."""
    said = {
        "trouble": both("lib_trouble"),
        "checking": both("train_checking"),
        "sheet": both("train_sheet_of", step="#"),
        "step": both("train_step", step="#"),
        "undrawn": both("train_undrawn"),
    }
    return joined(html('<template class="{}">{}</template>', name, word) for name, word in said.items())


def _sure() -> Markup:
    return html(
        '<dialog class="sure" aria-label="{}"><p>{}</p><div class="acts">{}{}</div></dialog>',
        both_aloud("train_forget"),
        both("train_forget_sure"),
        does("lib_cancel", "close"),
        does("train_forget_yes", "forget", classes="quiet danger"),
    )


def does(key: str, do: str, *, classes: str = "quiet", **data: object) -> Markup:
    """A button whose work the script does."""
    facts = joined(html(' data-{}="{}"', name, value) for name, value in data.items())
    return html('<button type="button" class="{}" data-do="{}"{}>{}</button>', classes, do, facts, both(key))


# ----------------------------------------------------------------------------------------------------------- the form


def form(networks: Sequence[str]) -> Markup:
    """What is asked before a training."""
    return html(
        '<form class="ask-for" autocomplete="off">{}{}<fieldset><legend><b class="number">3</b>{}</legend>'
        '<div class="row">{}{}</div>{}</fieldset>'
        '<div class="transport"><button type="submit" class="act">{}</button><p class="small">{}</p></div></form>'
        '<div class="found" aria-live="polite">{}</div>',
        _pictures(),
        _networks(networks),
        both("train_budget"),
        _minutes(),
        _field("pack", "train_pack", value="my-pack", note="train_pack_note", most=40),
        _more(),
        both("train_start"),
        both("train_keeps"),
        nothing_checked(),
    )


def _pictures() -> Markup:
    return html(
        '<fieldset class="from"><legend><b class="number">1</b>{}</legend>'
        '<div class="line"><label class="typed"><input type="text" name="folder" placeholder=" " spellcheck="false" '
        'maxlength="1000" aria-label="{}"><span class="hint" aria-hidden="true">{}</span></label>'
        '<button type="button" class="quiet" data-do="check">{}</button></div><p class="small">{}</p></fieldset>',
        both("train_pictures"),
        both_aloud("train_folder"),
        both("train_folder_hint"),
        both("train_check"),
        both("train_captions"),
    )


def _choice(name: str, value: str, word: Markup, *, checked: bool = False) -> Markup:
    return html(
        '<label><input type="radio" name="{}" value="{}"{}><span>{}</span></label>',
        name,
        value,
        Markup(" checked") if checked else "",
        word,
    )


def _networks(networks: Sequence[str]) -> Markup:
    shown = [name for name in FIRST if name in networks]
    rest = [name for name in networks if name not in shown]
    cards = joined(_network(name, checked=name == shown[0]) for name in shown)
    more = html(
        '<details class="more-settings"><summary>{}</summary><div class="modes">{}</div></details>',
        both("train_more_networks"),
        joined(_network(name) for name in rest),
    )
    return html(
        '<fieldset class="what"><legend><b class="number">2</b>{}</legend><div class="modes">{}</div>{}</fieldset>',
        both("train_network"),
        cards,
        more if rest else "",
    )


def network_name(name: str) -> Markup:
    """What a network is called on the page."""
    key = f"train_net_{name}"
    return both(key) if key in words() else html("{}", name)


def _network(name: str, *, checked: bool = False) -> Markup:
    key = f"train_net_{name}_text"
    return html(
        '<label class="mode"><input type="radio" name="network" value="{}"{}><b>{} <code>{}</code></b>'
        "<small>{}</small></label>",
        name,
        Markup(" checked") if checked else "",
        network_name(name),
        name,
        both(key) if key in words() else "",
    )


def _minutes() -> Markup:
    presets = joined(
        html('<button type="button" data-do="minutes" data-value="{}">{}</button>', minutes, minutes)
        for minutes in MINUTES
    )
    return html(
        '<div class="field"><label><b>{}</b><input type="number" name="minutes" value="60" min="0.5" max="100000" '
        'step="any" inputmode="decimal"></label><div class="chips">{}</div></div>',
        both("train_minutes"),
        presets,
    )


def _field(name: str, key: str, *, value: str, note: str = "", most: int = 60) -> Markup:
    return html(
        '<label class="field"><b>{}</b><input type="text" name="{}" value="{}" maxlength="{}" spellcheck="false">'
        "<small>{}</small></label>",
        both(key),
        name,
        value,
        most,
        both(note) if note else "",
    )


def _more() -> Markup:
    sizes = joined(
        _choice("size", size, both(f"train_size_{size}"), checked=size == "tiny") for size in SIZES
    )
    return html(
        '<details class="more-settings"><summary>{}</summary><div class="fields"><div class="field"><b>{}</b>'
        '<div class="engines" role="radiogroup" aria-label="{}">{}</div><small>{}</small></div>{}{}</div></details>',
        both("train_more"),
        both("train_size"),
        both_aloud("train_size"),
        sizes,
        both("train_size_note"),
        _field("seed", "train_seed", value="0", most=10),
        _field("licence", "train_licence", value="", note="train_licence_note", most=200),
    )


# --------------------------------------------------------------------------------------------------- what was found


def nothing_checked() -> Markup:
    """The place of what was found, before anything was looked at."""
    steps = joined(html("<li>{}</li>", both(f"train_way_{k}")) for k in range(1, 5))
    return html(
        '<div class="stage empty way"><h2>{}</h2><p>{}</p><ol>{}</ol></div>',
        both("train_title"),
        both("train_text"),
        steps,
    )


def found(check: Check, sheet: str) -> Markup:
    """What a look at a folder found, in sentences, with a sheet of some pictures and what is left out."""
    lines = [line for line in check.sentences() if line.code not in TOLD_ELSEWHERE]
    return html(
        '<div class="stage checked"><h3>{}</h3><img class="mosaic" src="{}" alt="{}"><ul class="told-of">{}</ul>{}</div>',
        both("train_found", count=f"{check.pictures:,}", held_out=f"{check.held_out:,}"),
        sheet,
        both_aloud("train_mosaic"),
        joined(html("<li>{}</li>", both_sentence(line)) for line in lines),
        _skipped([(one.name, one.problem) for one in check.skipped]) if check.skipped else "",
    )


def _skipped(skipped: Sequence[tuple[str, Message]]) -> Markup:
    rows = joined(
        html("<li><b>{}</b> <span>{}</span></li>", name, both_sentence(problem))
        for name, problem in skipped[:MOST_SKIPPED]
    )
    more = len(skipped) - MOST_SKIPPED
    return html(
        '<details class="left-out"{}><summary>{}</summary><ul tabindex="0">{}{}</ul></details>',
        Markup(" open") if len(skipped) <= 6 else "",
        both("train_left_out" if len(skipped) > 1 else "train_left_out_one", count=f"{len(skipped):,}"),
        rows,
        html("<li>{}</li>", both("train_left_more", count=f"{more:,}")) if more > 0 else "",
    )


# --------------------------------------------------------------------------------------------------- how it goes


def head(now: Standing) -> Markup:
    """What is trained, how it stands in a sentence, and what can be done; it changes only when one of these does."""
    return html(
        '<div class="title"><h2>{}</h2><p class="facts">{}</p></div><div class="acts">{}</div>'
        '<p class="standing {}" role="status">{}</p>{}',
        both("train_doing", network=network_name(now.network), pack=now.order.pack),
        joined(html("<span>{}</span>", fact) for fact in _facts(now)),
        _deeds(now),
        "busy" if now.state == "running" and not now.waits else now.state,
        _standing(now),
        _trouble(now) if now.state == "failed" else "",
    )


def _facts(now: Standing) -> Iterable[Markup | str]:
    yield now.order.data
    if now.part[1] > 1:
        yield both("train_part", part=now.part[0], parts=now.part[1])
    if now.facts:
        parameters = now.facts.get("parameters", 0)
        yield both("train_parameters", count=f"{parameters / 1e6:.1f}", wan=f"{parameters / 1e4:,.0f}")
        yield both("train_batch", count=now.facts.get("batch", 0))
        yield str(now.facts.get("hardware", ""))


def _standing(now: Standing) -> Markup:
    if now.state == "running":
        key = f"asked_{now.asked}" if now.asked else now.stage or "preparing"
        return both("train_waits" if now.waits else f"train_is_{key}")
    return both(f"train_is_{now.state}", step=f"{now.step:,}", pack=now.order.pack)


def _trouble(now: Standing) -> Markup:
    words_of = html("<pre>{}</pre>", now.last_words) if now.last_words else ""
    problem = both_sentence(now.problem) if now.problem else ""
    return html('<div class="cause">{}{}</div>', problem, words_of)


def _deeds(now: Standing) -> Markup:
    if now.state == "running":
        return joined([does("opt_pause", "pause"), does("train_stop", "stop")]) if not now.asked else Markup()
    if now.state == "ended":
        return joined([does("train_use", "models"), does("train_new", "new", classes="act")])
    stop = does("train_stop", "stop") if now.step else ""
    return joined(
        [
            does("train_resume", "resume", classes="act"),
            stop,
            does("train_forget", "sure", classes="quiet danger"),
        ]
    )


def going(now: Standing) -> Markup:
    """The bar and the numbers below it."""
    numbers = joined(
        html("<div><dt>{}</dt><dd>{}</dd></div>", both(f"train_n_{key}"), value)
        for key, value in _numbers(now)
    )
    return html(
        '<progress max="1" value="{}" aria-label="{}"></progress><dl class="numbers">{}</dl>',
        f"{now.share:.4f}",
        both_aloud("train_progress"),
        numbers,
    )


def _numbers(now: Standing) -> Iterable[tuple[str, Markup | str]]:
    if now.total:
        yield "step", both("train_of_about", step=f"{now.step:,}", total=f"{now.total:,}")
    if now.order.steps is None and now.state != "ended":
        yield (
            "spent",
            both(
                "train_minutes_of", done=f"{now.share * now.order.minutes:.1f}", of=f"{now.order.minutes:g}"
            ),
        )
    if now.steps_a_second:
        yield "speed", _speed(now)
    if now.seconds_left is not None:
        yield "left", duration(now.seconds_left)


def _speed(now: Standing) -> Markup:
    samples = (now.steps_a_second or 0) * now.facts.get("batch", 0)
    return both("train_speed", steps=f"{now.steps_a_second:.3g}", samples=f"{samples:,.0f}")


def duration(seconds: float) -> Markup:
    """A time as people say it, in both languages."""
    if seconds < 90:
        return both("train_seconds", count=f"{max(1, round(seconds))}")
    if seconds < 5400:
        return both("train_minutes_long", count=f"{round(seconds / 60)}")
    return both("train_hours", hours=int(seconds // 3600), minutes=f"{int(seconds % 3600 // 60):02}")


def figures(now: Standing) -> Markup:
    """The newest figures on pictures that it was not shown."""
    if not now.figures:
        return Markup()
    rows = joined(
        html("<div><dt>{}</dt><dd>{:.4g}</dd></div>", figure_name(name), value)
        for name, value in now.figures.items()
    )
    return html('<h3>{}</h3><dl class="numbers">{}</dl>', both("train_figures"), rows)


def figure_name(name: str) -> Markup:
    """A figure or a loss by its name, in Chinese where there are words for it."""
    key = "train_figure_" + re.sub(r"\W+", "_", name.lower())
    return both(key) if key in words() else html("{}", name.replace("_", " "))
