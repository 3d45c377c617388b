"""The weights of words, as a setting writes them: `big=1.5, red=0.5`.

An equals sign and commas, so that it cannot be mistaken for the grammar of Optimize's prompts, where `a | b:0.5` gives the
weights of whole targets.
"""

from __future__ import annotations

import re
import unicodedata

from pipelines.errors import BadInput

MAX_WEIGHT = 5.0  # the largest, and below zero the least
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)")


def parse_word_weights(text: str) -> list[tuple[str, float]]:
    """Pairs of a word of the prompt, or several words in a row, and its weight in [-MAX_WEIGHT, MAX_WEIGHT].

    Weights of 1 are left out. Full-width signs are read as plain ones. BadInput for parts without a word or a number, and
    for a word that is given twice.
    """
    found: dict[str, float] = {}
    for part in re.split(r"[,;、]", unicodedata.normalize("NFKC", text)):
        if not part.strip():
            continue
        word, sign, number = (piece.strip() for piece in part.rpartition("="))
        if not sign or not word or not NUMBER.fullmatch(number):
            raise BadInput("diffuse.word_weight_form", part=part.strip()[:40])
        if abs(float(number)) > MAX_WEIGHT:
            raise BadInput("diffuse.word_weight_range", word=word[:40], weight=number[:20], most=MAX_WEIGHT)
        if word.lower() in found:
            raise BadInput("diffuse.word_weight_twice", word=word[:40])
        found[word.lower()] = float(number)
    return [(word, weight) for word, weight in found.items() if weight != 1]
