"""The pictures of the Library as HTML: on the wall, large, beside others, and where each comes from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from markupsafe import Markup

from app.library import Broken, Entry, Found, Lineage, Progress, Relative
from app.ui.html.common import downloads
from app.ui.html.library import closing, does, sending, tool_name
from app.ui.i18n import KNOBS, both, both_aloud, both_sentence, knob_words, pair, value_words
from app.ui.link import copy_link
from app.ui.markup import html, joined
from pipelines.core.record import Record
from pipelines.studio import PIPELINES

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
MOST_DIFFERENCES = 8
MOST_LETTERS = 160  # of a value that is shown
LETTERS = "ABCD"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Addresses:
    """Where a browser finds a picture: its thumbnail and its file.

    `name` is what the other tabs call it; the empty text for a picture of a folder from elsewhere.
    """

    thumbnail: Callable[[Entry], str]
    file: Callable[[Entry], str]
    name: Callable[[Entry], str]


# ------------------------------------------------------------------------------------------------------------ the wall


def cells(found: Iterable[Found], addresses: Addresses, *, days: bool = False) -> Markup:
    """Pictures of the wall, with `days` under the day on which they were made."""
    parts, last = [], None
    for place in found:
        try:
            cell, day = _cell(place, addresses), _day(place.entry)
        except Exception:  # a record that nobody here wrote takes away its own picture only
            log.exception("the picture %r cannot be shown", place.entry.id)
            continue
        if days and day != last:
            last = day
            parts.append(_heading(day))
        parts.append(cell)
    return joined(parts)


def _day(entry: Entry) -> date:
    """The day on which a picture was made, the first of 1970 for one beyond all calendars."""
    try:
        return date.fromtimestamp(entry.modified)
    except (OverflowError, OSError, ValueError):
        return date(1970, 1, 1)


def _heading(day: date) -> Markup:
    english, chinese = (
        f"{day.day} {MONTHS[day.month - 1]} {day.year}",
        f"{day.year}年{day.month}月{day.day}日",
    )
    return html('<h3 class="day" data-day="{}">{}</h3>', day.isoformat(), pair(english, chinese))


def _cell(place: Found, addresses: Addresses) -> Markup:
    """A button that is a picture: pressed when it is chosen. Nothing of a record is believed to be HTML."""
    entry = place.entry
    title = _title(entry)
    likeness = html('<span class="nearness">{:.3f}</span>', place.score) if place.score is not None else ""
    behind = html('<span class="pile">{}</span>', len(place.stack) + 1) if place.stack else ""
    return html(
        '<button type="button" class="shot{}" data-id="{}" data-name="{}" data-file="{}" data-star="{}"'
        ' data-stack="{}" aria-pressed="false" tabindex="-1"><img src="{}" alt="{}" loading="lazy" decoding="async"'
        ' draggable="false"><span class="tick" aria-hidden="true"></span><span class="starred" aria-hidden="true">★'
        '</span>{}{}<span class="under" aria-hidden="true">{}</span></button>',
        " stack" if place.stack else "",
        entry.id,
        addresses.name(entry),
        addresses.file(entry),
        "yes" if entry.marks.star else "",
        "\n".join(place.stack),
        addresses.thumbnail(entry),
        title,
        behind,
        likeness,
        title,
    )


def _title(entry: Entry) -> str:
    """What a picture is called: its prompt, else the name of its file."""
    return " ".join((entry.prompt or entry.path.stem).split())[:MOST_LETTERS]


def nothing(reason: str) -> Markup:
    """What stands in the place of an empty wall: "new", "found" or "binned" says why it is empty."""
    if reason == "new":
        go = html('<button type="button" class="quiet" data-tab="generate">{}</button>', both("lib_empty_go"))
        return html("<h2>{}</h2><p>{}</p>{}", both("lib_empty_title"), both("lib_empty_text"), go)
    if reason == "binned":
        return html("<h2>{}</h2><p>{}</p>", both("lib_bin_empty"), both("lib_bin_text"))
    return html(
        "<h2>{}</h2><p>{}</p>{}", both("lib_no_find"), both("lib_no_find_text"), does("lib_no_find_go", "all")
    )


def filling(progress: Progress, broken: int) -> Markup | str:
    """How far the index is, with what stops it or lets it go on; nothing when it is done and all files are good."""
    which = html(
        "<span>{}</span>{}",
        both("lib_broken", count=f"{broken:,}"),
        does("lib_broken_which", "broken", classes="link"),
    )
    if progress.stage == "done":
        return which if broken else ""
    if progress.stage == "stopped":
        return html(
            "<span>{}</span>{}{}",
            both("lib_halted"),
            does("lib_go_on", "index", classes="link", to="start"),
            which if broken else "",
        )
    share = progress.done / progress.total if progress.total else 0.0
    return html(
        '<span>{}</span><span>{}</span><div class="bar" role="progressbar" aria-label="{}" aria-valuenow="{:.0f}">'
        '<i style="width:{:.1%}"></i></div>{}',
        both(f"lib_{progress.stage}"),
        both("lib_done_of", done=f"{progress.done:,}", total=f"{progress.total:,}") if progress.total else "",
        both_aloud("lib_see"),
        share * 100,
        share,
        does("stop", "index", classes="quiet", to="stop"),
    )


def broken_files(broken: Sequence[Broken]) -> Markup:
    """The files that were passed over, each with its reason."""
    rows = joined(html("<li><b>{}</b>{}</li>", each.id, both_sentence(each.problem)) for each in broken)
    return html(
        "<header><h2>{}</h2>{}</header><ul>{}</ul>",
        both("lib_broken", count=f"{len(broken):,}"),
        closing(),
        rows,
    )


# --------------------------------------------------------------------------------------------------------- one picture


def large(entry: Entry, addresses: Addresses, *, own: bool) -> Markup:
    """One picture as the largest thing on the page, with all that can be done with it."""
    return html(
        '<article data-id="{}" data-star="{}" data-name="{}" data-file="{}"><div class="stand">'
        '<button type="button" class="bare turn" data-do="turn" data-by="-1" aria-label="{}">‹</button>'
        '<img src="{}" alt="{}">'
        '<button type="button" class="bare turn" data-do="turn" data-by="1" aria-label="{}">›</button></div>'
        '<div class="about">{}<p class="prompt">{}</p>{}{}<div class="acts deeds">{}</div>{}{}{}'
        '<section class="family" data-fill="family"></section></div></article>',
        entry.id,
        "yes" if entry.marks.star else "",
        addresses.name(entry),
        addresses.file(entry),
        both_aloud("lib_before"),
        addresses.file(entry),
        _title(entry),
        both_aloud("lib_after"),
        closing(),
        entry.prompt or entry.path.name,
        _facts(entry),
        _acts(entry, addresses),
        joined(_deeds(entry, own)),
        _tags(entry),
        _note(entry),
        _other(entry),
    )


def _facts(entry: Entry) -> Markup:
    score = entry.record.picture.get("score") if entry.record else None
    facts = [
        tool_name(entry.tool) if entry.tool else "",
        both("seed_is", seed=entry.seed) if entry.seed is not None else "",
        both("lib_score", score=f"{score:.3f}") if isinstance(score, (int, float)) else "",
        entry.foreign.model if entry.foreign else "",
        _day(entry).isoformat(),
        entry.id,
    ]
    return html('<p class="facts">{}</p>', joined(html("<span>{}</span>", fact) for fact in facts if fact))


def _acts(entry: Entry, addresses: Addresses) -> Markup:
    """Where it can be sent, what of its settings can be used again, and its file."""
    name, record = addresses.name(entry), entry.record
    settings: Mapping[str, Any] = record.settings if record else {}
    again = [does("reuse", "send", to="reuse", name=name), does("remix", "send", to="remix", name=name)]
    link = copy_link(record.pipeline, record.settings) if record and record.pipeline in PIPELINES else ""
    return html(
        '<div class="acts send">{}</div><div class="acts">{}{}{}</div>',
        joined(sending(name)),
        joined(again) if record or entry.foreign else "",
        _saving(entry, addresses, dict(settings)),
        link,
    )


def _saving(entry: Entry, addresses: Addresses, settings: dict[str, Any]) -> Markup:
    file, name = addresses.file(entry), entry.path.name
    if addresses.name(entry):
        return downloads(file.split("?")[0], name, settings)
    return html('<a class="quiet" href="{}" download="{}">{}</a>', file, name, both("save"))


def _deeds(entry: Entry, own: bool) -> Iterable[Markup]:
    star = '<button type="button" class="quiet" data-do="star" aria-pressed="{}"><i aria-hidden="true">★</i>{}</button>'
    yield html(star, "true" if entry.marks.star else "false", both("lib_star"))
    yield does("lib_like_one", "like")
    yield does("lib_unlike_one", "unlike")
    if own:
        yield does("lib_restore", "restore") if entry.binned else does("lib_delete", "bin")


def _tags(entry: Entry) -> Markup:
    tags = joined(
        html(
            '<span class="tagged">{}<button type="button" class="bare" data-do="untag" data-tag="{}"'
            ' aria-label="{}: {}">×</button></span>',
            tag,
            tag,
            both_aloud("lib_tag_remove"),
            tag,
        )
        for tag in entry.marks.tags
    )
    return html(
        '<section class="tagging"><h3>{}</h3><div class="tags">{}<form class="line" data-set="add-tag">'
        '<label class="typed"><input type="text" name="add-tag" placeholder=" " autocomplete="off" aria-label="{}">'
        '<span class="hint" aria-hidden="true">{}</span></label></form></div></section>',
        both("lib_tags"),
        tags,
        both_aloud("lib_tag_add"),
        both("lib_tag_add"),
    )


def _note(entry: Entry) -> Markup:
    return html(
        '<form class="noting" data-set="note"><h3>{}</h3><label class="typed"><textarea name="note" rows="2"'
        ' maxlength="4000" placeholder=" " aria-label="{}">{}</textarea><span class="hint" aria-hidden="true">{}</span>'
        '</label><button type="submit" class="quiet">{}</button></form>',
        both("lib_note"),
        both_aloud("lib_note"),
        entry.marks.note,
        both("lib_note_hint"),
        both("lib_save_note"),
    )


def _other(entry: Entry) -> Markup | str:
    if not entry.text:
        return ""
    words = '<details class="other"><summary>{}</summary><pre tabindex="0">{}</pre></details>'
    return html(words, both("lib_other_text"), entry.text)


# ------------------------------------------------------------------------------------------------------------- lineage


def family(lineage: Lineage, addresses: Addresses) -> Markup:
    """What a picture was made from and what came of it, as a tree; then those of the same run."""
    parts = []
    if lineage.parents:
        parts.append(_branch("lib_made_from", lineage.parents, addresses))
    if lineage.children:
        parts.append(_branch("lib_became", lineage.children, addresses))
    if lineage.siblings:
        row = joined(_relative(entry, addresses) for entry in lineage.siblings)
        parts.append(html('<h4>{}</h4><div class="row">{}</div>', both("lib_siblings"), row))
    inside = joined(parts) if parts else html('<p class="small">{}</p>', both("lib_alone"))
    return html("<h3>{}</h3>{}", both("lib_family"), inside)


def _branch(key: str, relatives: Sequence[Relative], addresses: Addresses) -> Markup:
    return html("<h4>{}</h4>{}", both(key), _tree(relatives, addresses))


def _tree(relatives: Sequence[Relative], addresses: Addresses) -> Markup | str:
    if not relatives:
        return ""
    rows = joined(
        html(
            "<li>{}{}</li>",
            _relative(each.entry, addresses, each.setting),
            _tree(each.relatives, addresses),
        )
        for each in relatives
    )
    return html('<ul class="tree">{}</ul>', rows)


def _relative(entry: Entry, addresses: Addresses, setting: str = "") -> Markup:
    """A small picture that opens; `setting` is the one by which it was given on."""
    words = html(
        "<span><b>{}</b>{}</span>",
        tool_name(entry.tool) if entry.tool else "",
        html("<small>{}</small>", _setting(setting) if setting else ""),
    )
    return html(
        '<button type="button" class="kin" data-do="look" data-id="{}"><img src="{}" alt="{}" loading="lazy">{}</button>',
        entry.id,
        addresses.thumbnail(entry),
        _title(entry),
        words if setting else "",
    )


# ----------------------------------------------------------------------------------------------------- beside each other


def beside(entries: Sequence[Entry], addresses: Addresses) -> Markup:
    """Two to four pictures side by side, or two of them under a slider; below each what its settings have of its own."""
    differing = _differing([entry.record for entry in entries])
    panes = joined(
        html(
            '<figure><button type="button" class="pane" data-pane="{}" aria-pressed="{}"><img src="{}" alt="{}"></button>'
            "<figcaption><b>{}</b><p>{}</p>{}</figcaption></figure>",
            k,
            "true" if k < 2 else "false",
            addresses.file(entry),
            _title(entry),
            LETTERS[k],
            _title(entry),
            _own(entry, differing),
        )
        for k, entry in enumerate(entries)
    )
    ways = joined(
        html(
            '<label><input type="radio" name="library-way" value="{}"{}><span>{}</span></label>',
            way,
            Markup(" checked") if way == "side" else "",
            both(f"lib_{way}"),
        )
        for way in ("side", "slide")
    )
    return html(
        '<header><div class="engines" role="radiogroup" aria-label="{}">{}</div>{}</header>'
        '<div class="versus" hidden><div class="over"><img alt=""><img class="cut" alt="">'
        '<input type="range" class="wipe" min="0" max="100" value="50" aria-label="{}"></div></div>'
        '<div class="panes" style="--count:{}">{}</div>{}',
        both_aloud("lib_compare"),
        ways,
        closing(),
        both_aloud("lib_divide"),
        len(entries),
        panes,
        html('<p class="small pick" hidden>{}</p>', both("lib_slide_text")) if len(entries) > 2 else "",
    )


def _differing(records: Sequence[Record | None]) -> list[str]:
    """The names of settings that are not the same in all records, without pictures and seeds."""
    known = [record.settings for record in records if record is not None]
    names = dict.fromkeys(name for settings in known for name in settings)
    return [
        name
        for name in names
        if name not in ("seed", "prompt")
        and len({_shown(settings.get(name)) for settings in known}) > 1
        and not any("data:image/" in str(settings.get(name)) for settings in known)
    ][:MOST_DIFFERENCES]


def _own(entry: Entry, differing: Sequence[str]) -> Markup:
    """The facts of one of several pictures: its tool, seed, score, and its values of the settings in which they differ."""
    record = entry.record
    rows = joined(
        html("<div><dt>{}</dt><dd>{}</dd></div>", _setting(name), _value(record, name))
        for name in differing
        if record and name in record.settings
    )
    return html("{}<dl>{}</dl>", _facts(entry), rows) if rows else _facts(entry)


def _setting(name: str) -> Markup:
    label, chinese, _ = knob_words(name) if name in KNOBS else (name.replace("_", " "), name, "")
    return pair(label, chinese)


def _value(record: Record, name: str) -> Markup:
    english, chinese = value_words(record.pipeline, name, record.settings[name])
    return pair(_shown(english), _shown(chinese))


def _shown(value: Any) -> str:
    return str(value)[:MOST_LETTERS]
