"""The parts of a prompt: its phrases, which can be left out, and its words, which can be looked for in a picture."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipelines.see.labels import is_chinese

MOST_PARTS = 8
JOINING = "and|with|without|on|in|at|by|of|under|over|behind|beside|near|from|for|to|into|wearing|holding|riding|eating"
# Where a phrase ends: punctuation, and before a word that joins, which belongs to the phrase after it.
ENGLISH_ENDS = re.compile(rf"\s*[,;|.!?]+\s*|\s+(?=(?:{JOINING})\s)", re.IGNORECASE)
CHINESE_ENDS = re.compile(r"[,;|，；、。！？.!?\s]+|(?<=的)|(?=[和与跟及在]|穿着|戴着|拿着|骑着|带着)")
ARTICLES = "a|an|the|or|next|front|is|are|its|his|her|their|this|that|some|very"
STOPS = frozenset(f"{JOINING}|{ARTICLES}".split("|"))
CHINESE_STOPS = re.compile(r"^[和与跟及在]+|(?:上的|里的|中的|下的|的)$")
EDGES = ",;|.!?，；、。！？ \t"


@dataclass(frozen=True)
class Part:
    """A part of a prompt: `text` as it reads alone, and the prompt `without` it, empty when nothing is left."""

    text: str
    without: str


def phrases(prompt: str) -> list[Part]:
    """The phrases of a prompt, at most MOST_PARTS, in order; of a prompt of one phrase its words.

    Empty when it is a single word: nothing can be left out.
    """
    spans = _spans(prompt, CHINESE_ENDS if is_chinese(prompt) else ENGLISH_ENDS)
    if len(spans) < 2:
        spans = _spans(prompt, _word_ends(prompt))
    parts = [Part(_alone(prompt[start:end]), _without(prompt, start, end)) for start, end in spans]
    return [part for part in parts if part.text and part.without][:MOST_PARTS]


def words(prompt: str) -> list[str]:
    """What can be looked for in a picture: the phrases and their own words, each once, in order, at most MOST_PARTS."""
    found: list[str] = []
    for text in [part.text for part in phrases(prompt)] or [_alone(prompt)]:
        pieces = [_alone(text[start:end]) for start, end in _spans(text, _word_ends(text))]
        content = [piece for piece in pieces if piece]
        found += [text, *content] if len(content) > 1 else [text]
    return list(dict.fromkeys(word for word in found if word and word != prompt))[:MOST_PARTS]


def _word_ends(text: str) -> re.Pattern[str]:
    """What stands between words. Chinese has no spaces: four characters are taken as two words, which they mostly are."""
    if not is_chinese(text):
        return re.compile(r"\s+")
    return re.compile(r"(?<=^\S\S)") if len(text) == 4 and "的" not in text else re.compile(r"(?<=的)")


def _spans(text: str, ends: re.Pattern[str]) -> list[tuple[int, int]]:
    """Where the pieces between the matches of `ends` begin and end; empty ones are left out."""
    spans: list[tuple[int, int]] = []
    start = 0
    for match in ends.finditer(text):
        spans.append((start, match.start()))
        start = match.end()
    spans.append((start, len(text)))
    return [(first, last) for first, last in spans if text[first:last].strip()]


def _without(prompt: str, start: int, end: int) -> str:
    """The prompt without a piece, and without what would then join nothing. Of a second mark in a row one is left."""
    before, after = prompt[:start].rstrip(EDGES), prompt[end:].strip(EDGES)
    if not before:
        joined = rf"^(?:{JOINING})\s+|^[和与跟及在]+"
        return re.sub(joined, "", after, flags=re.IGNORECASE).strip(EDGES)
    if not after:
        return before
    mark = next((character for character in prompt[end:] if character in EDGES), "")
    return before + (mark if mark in ("", " ") else f"{mark} " if mark in ",;|.!?" else mark) + after


def _alone(piece: str) -> str:
    """A piece without words that only join at its beginning and its end; empty when none is left."""
    if is_chinese(piece):
        return CHINESE_STOPS.sub("", piece) or piece
    listed = piece.strip(EDGES).split()
    while listed and listed[0].lower() in STOPS:
        listed.pop(0)
    while listed and listed[-1].lower() in STOPS:
        listed.pop()
    return " ".join(listed)
