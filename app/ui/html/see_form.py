"""The form of the tab See: what is asked, in four ways. The script reads it; the style sheet shows one way's fields."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from app.saved_probes import Taught
from app.ui.html.common import KEYS, press
from app.ui.i18n import both, both_aloud, hint, pair
from app.ui.markup import html, joined
from app.ui.tray import MODES, Question
from pipelines.see.labels import ART, PHOTO, PLAIN

LABEL_SETS = (
    ("see_set_animals", "cat, dog, horse, elephant, bird, fish", "猫，狗，马，大象，鸟，鱼"),
    ("see_set_food", "apple, strawberry, cake, pizza, bread, coffee", "苹果，草莓，蛋糕，披萨，面包，咖啡"),
    ("see_set_faces", "happy face, sad face, angry face, sleepy face", "笑脸，哭脸，生气的脸，困倦的脸"),
    (
        "see_set_colours",
        "red, yellow, green, blue, purple, black, white",
        "红色，黄色，绿色，蓝色，紫色，黑色，白色",
    ),
)

WORDINGS = (("see_wordings_art", ART), ("see_wordings_photo", PHOTO), ("see_wordings_plain", PLAIN))


def form(question: Question, taught: Sequence[Taught]) -> Markup:
    """All fields, filled as in `question`; `taught` are label sets of the visitor's own."""
    return html(
        '<div class="see-form"><div class="engines ways" role="radiogroup" aria-label="{}">{}</div>'
        '<div data-ways="name">{}</div><div data-ways="why score">{}</div><div data-ways="teach">{}</div>'
        '<div class="transport">{}{}</div></div>',
        both_aloud("see_ways"),
        joined(_way(mode, question.mode) for mode in MODES),
        _naming(question, taught),
        _prompt(question),
        _teaching(question),
        joined(
            html(
                '<span data-ways="{}">{}</span>', mode, press(f"see_go_{mode}", "ask", main=True, first=True)
            )
            for mode in MODES
        ),
        KEYS,
    )


def _way(mode: str, chosen: str) -> Markup:
    return html(
        '<label><input type="radio" name="mode" value="{}"{}><span>{}</span></label>',
        mode,
        Markup(" checked") if mode == chosen else "",
        both(f"see_mode_{mode}"),
    )


def _naming(question: Question, taught: Sequence[Taught]) -> Markup:
    """Labels, sets of them to click, sets that were taught, and the wordings in a fold."""
    sets = joined(
        html(
            '<button type="button" data-fill="labels" data-en="{}" data-zh="{}">{}</button>',
            english,
            chinese,
            both(key),
        )
        for key, english, chinese in LABEL_SETS
    )
    own = joined(
        html(
            '<button type="button" class="own" data-taught="{}" aria-pressed="{}" title="{}">{}</button>',
            each.name,
            "true" if each.name == question.taught else "false",
            ", ".join(each.labels[:40]),
            pair(_told(each, ", ", "{} taught"), _told(each, "、", "教过的 {}")),
        )
        for each in taught
    )
    return html(
        '<label class="big"><span>{}</span><textarea name="labels" rows="3" maxlength="20000"'
        '{}>{}</textarea></label><input type="hidden" name="taught" value="{}">'
        '<div class="chips">{}{}<button type="button" data-fill="labels" data-en="" data-zh="">{}</button></div>'
        '<details class="more-settings"><summary>{}</summary><label class="field"><textarea name="templates" rows="5" '
        'spellcheck="false" aria-label="{}">{}</textarea><small>{}</small></label><div class="chips">{}</div></details>',
        both("see_labels"),
        hint("see_labels_hint"),
        question.labels,
        question.taught,
        sets,
        own,
        both("see_set_known"),
        both("see_templates"),
        both_aloud("see_templates"),
        question.templates or ART.text,
        both("see_templates_text"),
        joined(
            html('<button type="button" data-wordings="{}">{}</button>', templates.text, both(key))
            for key, templates in WORDINGS
        ),
    )


def _told(taught: Taught, between: str, words: str) -> str:
    """A label set in a few words: its first labels."""
    first = between.join(taught.labels[:3]) + ("…" if len(taught.labels) > 3 else "")
    return words.format(first)


def _prompt(question: Question) -> Markup:
    return html(
        '<label class="big"><span>{}</span><textarea name="prompt" rows="2" maxlength="2000"{}>'
        "{}</textarea></label>",
        both("see_prompt"),
        hint("see_prompt_hint"),
        question.prompt,
    )


def _teaching(question: Question) -> Markup:
    return html(
        '<label class="big"><span>{}</span><textarea name="label" rows="1" maxlength="200"{}>{}</textarea>'
        '</label><p class="acts"><button type="button" class="quiet" data-choose>{}</button></p><p class="small">{}</p>',
        both("see_label"),
        hint("see_label_hint"),
        question.label,
        both("see_add"),
        both("see_teach_text"),
    )
