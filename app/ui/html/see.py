"""What the tab See looks like: the pictures with the heat of a word over one of them, and the answers. HTML only.

The script of the tab chooses the picture and the word that are shown.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from markupsafe import Markup

from app.ui.html.common import button, error_note, example_tiles
from app.ui.i18n import both, both_aloud
from app.ui.markup import html, joined
from app.ui.pictures import Pictures
from app.ui.tray import Shown, Tray
from pipelines.io.images import picture_to_uri
from pipelines.see.classify import Classification
from pipelines.see.explain import Explanation, Rival
from pipelines.see.overlay import heat
from pipelines.see.relevance import Relevance
from pipelines.see.score import Score, to_csv

HEAT_SIDE = 64  # pixels of a map as it is sent; the browser makes it as large as the picture
BARS = 8  # labels of a picture
SURE, UNSURE = 0.9, 0.6  # shares of views and wordings


# ----------------------------------------------------------------------------------------------------------- stage


def empty(pictures: Pictures) -> Markup:
    """Before there is a picture: how to give one, and some to begin with."""
    return html(
        '<section class="stage plate seen proof empty" data-state="empty"><div class="lay"><h2>{}</h2><p>{}</p>'
        '<p class="acts"><button type="button" class="quiet" data-choose>{}</button></p></div>{}</section>',
        both("see_empty_title"),
        both("see_empty_text"),
        both("see_choose"),
        example_tiles(pictures, 6),
    )


def stage(tray: Tray, at: int, captions: Sequence[str] = ()) -> Markup:
    """The picture that is looked at, and all of them below it; `captions` say what they were taken for."""
    chosen = tray.pictures[at]
    cells = joined(
        _cell(picture, k, at, captions[k] if k < len(captions) else picture.name)
        for k, picture in enumerate(tray.pictures)
    )
    return html(
        '<section class="stage plate seen" data-state="full" data-at="{}"><div class="said"><b>{}</b>'
        '<span class="others"><button type="button" class="quiet" data-choose>{}</button>{}{}</span></div>'
        '<div class="frame"><img class="now" src="{}" alt="{}"><img class="layer heat" alt="" hidden></div>'
        '<div class="strip">{}</div></section>',
        at,
        both("see_count", count=len(tray.pictures)) if len(tray.pictures) > 1 else both("see_one"),
        both("see_more"),
        button("see_remove", "remove"),
        button("see_clear", "clear") if len(tray.pictures) > 1 else "",
        chosen.large,
        chosen.name,
        cells,
    )


def _cell(picture: Shown, k: int, at: int, caption: str) -> Markup:
    return html(
        '<button type="button" data-see="{}" data-large="{}" data-prompt="{}" aria-current="{}" title="{}">'
        '<img src="{}" alt="{}"><span>{}</span></button>',
        k,
        picture.large,
        picture.prompt,
        "true" if k == at else "false",
        caption,
        picture.small,
        picture.name,
        caption,
    )


# --------------------------------------------------------------------------------------------------------- answers


def busy(mode: str) -> Markup:
    """While the answer is worked out."""
    return html(
        '<section class="answer busy"><p class="eye-line"><i></i>{}</p></section>', both(f"see_busy_{mode}")
    )


def trouble(problem: Exception) -> Markup:
    """Why there is no answer."""
    return html('<section class="answer">{}</section>', error_note(problem))


def bar_row(label: str | Markup, share: float, figure: str, *, first: bool = False) -> Markup:
    """A label, a bar from 0 to 1, and its figure."""
    return html(
        '<li{}><span class="label">{}</span><i class="gauge"><i style="width:{:.1f}%"></i></i><b>{}</b></li>',
        Markup(' class="first"') if first else "",
        label,
        100 * min(max(share, 0.0), 1.0),
        figure,
    )


def percent(share: float) -> str:
    """A probability as it is read: no decimals but for what is small, never 100 % for what is not."""
    if share >= 0.995:
        return "> 99 %" if share < 1 else "100 %"
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %" if share >= 0.0005 else "0 %"


def names(found: Classification, at: int, taught: bool) -> Markup:
    """The likeliest labels of each picture as bars; the script shows those of the picture that is looked at."""
    lists = joined(
        html(
            '<ul class="gauges" data-for="{}"{}>{}</ul>',
            k,
            "" if k == at else " hidden",
            joined(
                bar_row(label, share, percent(share), first=place == 0)
                for place, (label, share, _) in enumerate(found.best(k, BARS))
            ),
        )
        for k in range(len(found.probabilities))
    )
    if found.independent:
        says = both("see_independent")
    elif taught:
        says = both("see_by_taught")
    else:
        says = both("see_softmax", count=len(found.labels))
    return html(
        '<section class="answer"><h3>{}</h3>{}<p class="small">{}</p></section>',
        both("see_name_title"),
        lists,
        says,
    )


def reasons(found: Explanation, at: int, ranked: Sequence[int] = ()) -> Markup:
    """Why a picture fits its prompt: how sure, where its words are, what each phrase adds, the closest other name.

    `ranked` are a candidate's rank, how many there were, and how many were within noise of the best.
    """
    place = ""
    if ranked:
        rank, count, tied = ranked
        says = both("tied", count=tied) if tied > 1 else both("clear_winner")
        place = html('<p class="small">{} · {}</p>', both("rank", rank=rank, count=count), says)
    return html(
        '<section class="answer reasons" data-at="{}">{}{}{}{}{}</section>',
        at,
        _verdict(found),
        place,
        _words(found.maps, at),
        _phrases(found),
        _closest(found),
    )


def _verdict(found: Explanation) -> Markup:
    """How sure it is, in a sentence."""
    rival = found.rival
    if rival is None:
        return html('<p class="verdict">{}</p>', both("see_score_is", score=f"{found.score:.3f}"))
    kind = "sure" if rival.wins >= SURE else "unsure" if rival.wins >= UNSURE else "wrong"
    return html(
        '<div class="verdict {}"><p>{}</p>{}<p class="small">{}</p></div>',
        kind,
        both(f"see_{kind}", name=rival.name),
        _dots(rival),
        both("see_wins", share=f"{100 * rival.wins:.0f}", rank=found.rank, count=f"{found.names + 1:,}"),
    )


def _dots(rival: Rival) -> Markup:
    """The margin over the closest other name on a line with zero in it, with its deviation."""
    reach = max(abs(rival.margin) + 2 * rival.spread, 0.02)

    def place(value: float) -> float:
        return 50 + 50 * max(-1.0, min(1.0, value / reach))

    return html(
        '<div class="margin" aria-hidden="true"><i class="spread-of" style="left:{:.1f}%;right:{:.1f}%"></i>'
        '<i class="zero"></i><i class="dot" style="left:{:.1f}%"></i></div>',
        place(rival.margin - rival.spread),
        100 - place(rival.margin + rival.spread),
        place(rival.margin),
    )


def _words(maps: Sequence[Relevance], at: int) -> Markup | str:
    """The words, each a button that lays its heat over the picture. The first that is not the whole prompt is pressed."""
    if not maps:
        return ""
    first = 1 if len(maps) > 1 else 0
    buttons = joined(
        html(
            '<button type="button" data-heat="{}" data-at="{}" data-x="{:.3f}" data-y="{:.3f}" '
            'aria-pressed="{}">{}</button>',
            picture_to_uri(heat(found, (HEAT_SIDE, HEAT_SIDE))),
            at,
            *found.peak,
            "true" if k == first else "false",
            both("see_whole") if k == 0 else found.text,
        )
        for k, found in enumerate(maps)
    )
    return html(
        '<h3>{}</h3><div class="chips heats" role="group" aria-label="{}">{}</div>',
        both("see_where"),
        both_aloud("see_where"),
        buttons,
    )


def _phrases(found: Explanation) -> Markup | str:
    """What each phrase adds, on both sides of zero."""
    if not found.phrases:
        return ""
    reach = max(0.01, *(abs(phrase.adds) for phrase in found.phrases))
    rows = joined(
        html(
            '<li title="{}"><span class="label">{}</span><i class="gauge two {}"><i style="{}:50%;width:{:.1f}%"></i></i>'
            "<b>{}</b></li>",
            phrase.without,
            phrase.text,
            "plus" if phrase.adds >= 0 else "minus",
            "left" if phrase.adds >= 0 else "right",
            50 * abs(phrase.adds) / reach,
            f"{phrase.adds:+.3f}".replace("-", "−"),
        )
        for phrase in found.phrases
    )
    return html('<h3>{}</h3><ul class="gauges">{}</ul>', both("see_adds"), rows)


def _closest(found: Explanation) -> Markup | str:
    """The prompt and the closest other name, by their scores."""
    if found.rival is None:
        return ""
    top = max(found.score, found.rival.score, 0.05)
    rows = (
        bar_row(found.prompt, found.score / top, f"{found.score:.3f}", first=True),
        bar_row(found.rival.name, found.rival.score / top, f"{found.rival.score:.3f}"),
    )
    return html('<h3>{}</h3><ul class="gauges">{}</ul>', both("see_closest"), joined(rows))


def scores(rows: Sequence[Score], pictures: Sequence[Shown]) -> Markup:
    """The pictures by CLIP's score, with the critic's, and the table as a file."""
    order = sorted(range(len(rows)), key=lambda k: -(rows[k].clip or -1))
    top = max(0.05, *(value for row in rows for value in (row.clip, row.critic) if value is not None))
    cells = joined(
        html(
            '<li><button type="button" data-see="{}"><img src="{}" alt="{}"></button><div>{}{}</div></li>',
            k,
            pictures[k].small,
            pictures[k].name,
            _judge("clip", rows[k].clip, top),
            _judge("critic", rows[k].critic, top),
        )
        for k in order
    )
    named = [
        Score(picture.name, row.prompt, row.clip, row.critic)
        for picture, row in zip(pictures, rows, strict=True)
    ]
    data = base64.b64encode(to_csv(named).encode()).decode("ascii")
    return html(
        '<section class="answer"><h3>{}</h3><ul class="scored">{}</ul>'
        '<p class="acts"><a class="quiet" href="data:text/csv;base64,{}" download="scores.csv">{}</a></p></section>',
        both("see_score_title"),
        cells,
        data,
        both("see_csv"),
    )


def _judge(who: str, value: float | None, top: float) -> Markup | str:
    """One judge's score as a bar."""
    if value is None:
        return ""
    return html(
        '<p class="judge {}"><span>{}</span><i class="gauge"><i style="width:{:.1f}%"></i></i><b>{:.3f}</b></p>',
        who,
        both("see_critic") if who == "critic" else "CLIP",
        100 * max(value, 0.0) / top,
        value,
    )
