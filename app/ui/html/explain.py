"""The panel on how a picture was drawn: where the words look, what each step took the picture for, the schedule."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup
from PIL import Image

from app.ui.html.common import button
from app.ui.i18n import both, both_aloud
from app.ui.markup import html, joined
from app.ui.pictures import preview_uri
from pipelines.diffuse.walkthrough import Explanation, Moment, WordMap, word_map_picture
from pipelines.diffuse.word_weights import parse_word_weights

MOST_MOMENTS = 10  # that are shown, evenly over the steps
MAP_PIXELS, GUESS_PIXELS = 192, 128
LEAST, MOST = -1, 3  # of a word's slider
CHART = (1000, 120)  # width and height of the schedule


def busy() -> Markup:
    """While the picture is drawn once more."""
    return html('<section class="explained busy" role="status"><p>{}</p></section>', both("explain_busy"))


def panel(found: Explanation, name: str) -> Markup:
    """All that was seen of the picture that the page calls `name`."""
    return html(
        '<section class="explained" data-explained><header><h3>{}</h3>{}</header>'
        '<p class="caption">{}</p>{}{}{}</section>',
        both("explain"),
        button("explain_close", "explain-close"),
        found.settings.prompt,
        _words(found, name),
        _guesses(found),
        _schedule(found.moments),
    )


def _words(found: Explanation, name: str) -> Markup:
    weights = dict(parse_word_weights(found.settings.word_weights))
    word_maps = joined(
        _word_map(found.picture, word, weights.get(word.text, 1.0)) for word in found.word_maps
    )
    return html(
        "<h4>{}</h4><p>{}</p><div class='gazes'>{}</div><div class='acts'>{}<span>{}</span></div>",
        both("explain_words"),
        both("explain_words_text"),
        word_maps,
        button("explain_again", "weigh", name=name, weights=found.settings.word_weights),
        both("explain_weights_text"),
    )


def _word_map(picture: Image.Image, word: WordMap, weight: float) -> Markup:
    shown = preview_uri(word_map_picture(picture, word.map, MAP_PIXELS), MAP_PIXELS)
    return html(
        '<figure><img src="{}" alt="{}"><figcaption><b>{}</b><span>{:.0%}</span></figcaption>'
        '<label><input type="range" min="{}" max="{}" step="0.25" value="{}" data-weigh="{}" '
        'aria-label="{} {}"><output>{:g}</output></label></figure>',
        shown,
        word.text,
        word.text,
        word.share,
        LEAST,
        MOST,
        weight,
        word.text,
        both_aloud("explain_weight_of"),
        word.text,
        weight,
    )


def _guesses(found: Explanation) -> Markup:
    places = shown_places(len(found.moments))
    moments = [(place + 1, found.moments[place]) for place in places]
    rows = _row(
        both("explain_on", scale=f"{found.settings.guidance or 0:g}"),
        [(step, moment.guess) for step, moment in moments],
    )
    plain = [(step, moment.unguided) for step, moment in moments if moment.unguided is not None]
    if plain:
        rows += _row(both("explain_off"), plain)
    return html(
        '<h4>{}</h4><p>{}</p><div class="guesses" tabindex="0">{}</div>',
        both("explain_guesses"),
        both("explain_guesses_text"),
        rows,
    )


def _row(words: str, guesses: Sequence[tuple[int, Image.Image]]) -> Markup:
    cells = joined(
        html(
            '<figure><img src="{}" alt="" loading="lazy"><figcaption>{}</figcaption></figure>',
            preview_uri(image, GUESS_PIXELS),
            both("explain_step", step=step),
        )
        for step, image in guesses
    )
    return html('<div><b>{}</b><div class="guess-row">{}</div></div>', words, cells)


def shown_places(count: int) -> list[int]:
    """Which of so many moments are shown: at most MOST_MOMENTS, evenly, the first and the last among them."""
    if count <= MOST_MOMENTS:
        return list(range(count))
    return [round(k * (count - 1) / (MOST_MOMENTS - 1)) for k in range(MOST_MOMENTS)]


def _schedule(moments: Sequence[Moment]) -> Markup:
    """The shares of picture and of noise over the steps, as lines."""
    width, height = CHART
    lines = Markup()
    for kind, values in (
        ("noise", [moment.noise for moment in moments]),
        ("signal", [moment.picture for moment in moments]),
    ):
        points = " ".join(
            f"{width * (k + 0.5) / len(values):.1f},{height - 4 - (height - 8) * value:.1f}"
            for k, value in enumerate(values)
        )
        lines += html('<polyline class="{}" points="{}" vector-effect="non-scaling-stroke"/>', kind, points)
    return html(
        '<h4>{}</h4><svg class="schedule" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" '
        'aria-label="{}">{}</svg><p class="legend"><span class="key noise">{}</span>'
        '<span class="key signal">{}</span></p>',
        both("explain_schedule"),
        width,
        height,
        both_aloud("explain_schedule"),
        lines,
        both("explain_noise"),
        both("explain_signal"),
    )
