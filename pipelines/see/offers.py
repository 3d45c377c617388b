"""What a prompt could go on with, and what could stand for words that a model never saw.

A model whose training texts are known has a closed vocabulary, so help can be exact: names that begin as the prompt ends,
known words of nearly the same spelling, and for a word without any the names whose vectors are nearest by the CLIP that
reads the prompt.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from pipelines.io.visible import REGIONAL
from pipelines.models.base import Clip
from pipelines.see.names import names_in
from pipelines.see.traditional import SIMPLIFIED

MOST = 6  # completions that are offered
MOST_WORDS = 3  # unknown words for which others are offered
EACH = 3  # of them a word
LONGEST = 4  # words at a prompt's end that are completed together
SHORT, LONG = 4, 8  # letters from which a word may be one, or two, letters from a known one
TOGETHER = 64  # names that CLIP reads at once
# words whose pieces CLIP has seen, so that their vectors mean something
READABLE = re.compile("[a-z][a-z ]+")
HAN = re.compile("[\u4e00-\u9fff]")


@dataclass(frozen=True)
class Offers:
    """What is offered for a prompt.

    `tail` is the prompt's end, which each of `completions` stands for. `instead` maps unknown words, as they are written,
    to known ones, the likeliest first.
    """

    tail: str = ""
    completions: tuple[str, ...] = ()
    instead: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])


def completions(prompt: str, words: Iterable[str] = ()) -> tuple[str, tuple[str, ...]]:
    """The end of a prompt and at most MOST names, then `words`, that begin with it; ("", ()) where there are none.

    The end is as many whole words as begin a name, in Chinese as many characters. Names that end in a word come before
    those that begin with its letters alone: "hat" is offered "top hat" before "hatching chick".
    """
    part = re.split(r"[|｜^＾,，;；:：、]", prompt)[-1].lstrip()
    low = part.lower()
    if not low.strip() or low.endswith("  "):
        return "", ()
    for tail in _tails(low):
        names = names_in("zh" if HAN.search(tail) else "en")
        begun = sorted(
            (name for name in names if name.lower().startswith(tail) and name.lower() != tail), key=len
        )
        if " " not in tail and not any(name.lower().startswith(f"{tail} ") for name in begun):
            begun = sorted((name for name in names if name.lower().endswith(f" {tail}")), key=len) + begun
        if not begun and " " not in tail and not HAN.search(tail):
            begun = sorted((name for name in names if f" {tail}" in name.lower()), key=len)
            begun += sorted((one for one in words if one.startswith(tail) and one != tail), key=len)
        if begun:
            return part[len(part) - len(tail) :], tuple(dict.fromkeys(begun))[:MOST]
    return "", ()


def _tails(text: str) -> list[str]:
    """Ends of a text that a name may begin with, the longest first: whole words, or Chinese characters."""
    if match := re.search(r"[\u4e00-\u9fff]+$", text):
        run = match[0][-6:]
        return [run[k:] for k in range(len(run))]
    starts = [match.start() for match in re.finditer(r"(?<!\S)\S", text)][-LONGEST:]
    return [text[start:] for start in starts if len(text[start:].strip()) > 1]


# --------------------------------------------------------------------------------------------------------------- spelling


SOUNDS = (  # spellings of one sound
    *(
        ("ph", "f"),
        ("ck", "k"),
        ("qu", "kw"),
        ("x", "ks"),
        ("ce", "se"),
        ("ci", "si"),
        ("c", "k"),
        ("z", "s"),
    ),
    *(("gh", "g"), ("wh", "w"), ("y", "i")),
)


class Speller:
    """Finds known words by nearly their spelling (symmetric deletes, Garbe 2012) or the same sound, within a millisecond.

    Of words that are equally near, those that more names have come first.
    """

    def __init__(self, words: Iterable[str]):
        self.words = frozenset(
            word for word in words if len(word) > 2 and word.isalpha() and not HAN.search(word)
        )
        self._uses = Counter(word for name in names_in("en") for word in name.lower().split())
        self._by_part: dict[str, list[str]] = {}
        for word in sorted(self.words):
            for part in {*_shortened(word, _tolerance(word)), f"/{sound(word)}"}:
                self._by_part.setdefault(part, []).append(word)

    def near(self, word: str, most: int = EACH) -> list[str]:
        """Known words at most two letters (of a short word one) from this one, or of its sound, the nearest first.

        Two known words that it is put together of come before them: "space ship" for "spaceship".
        """
        word = word.lower()
        tolerance = _tolerance(word)
        if not tolerance or not word.isalpha():
            return []
        parts = {*_shortened(word, tolerance), f"/{sound(word)}"}
        found = {near for part in parts for near in self._by_part.get(part, ())}
        far = {near: distance(word, near) - (sound(word) == sound(near)) for near in found}
        close = [near for near in found if far[near] <= tolerance]
        close.sort(key=lambda near: (far[near], -self._uses[near], near[0] != word[0], near))
        return [*self._halves(word), *close][:most]

    def _halves(self, word: str) -> list[str]:
        """The two known words that a word is put together of, as one text, the most used ones; [] for none."""
        halves = [(word[:k], word[k:]) for k in range(3, len(word) - 2)]
        known = [pair for pair in halves if self.words.issuperset(pair)]
        return (
            [" ".join(max(known, key=lambda pair: min(self._uses[half] for half in pair)))] if known else []
        )


def sound(word: str) -> str:
    """Roughly how a word sounds: spellings of one sound alike, no double letters, no silent e at its end."""
    for written, heard in SOUNDS:
        word = word.replace(written, heard)
    return re.sub(r"(.)\1+", r"\1", word).removesuffix("e")


def _tolerance(word: str) -> int:
    return 0 if len(word) < SHORT else 1 if len(word) < LONG else 2


def _shortened(word: str, count: int) -> set[str]:
    """The word, and what is left of it without one letter up to `count` letters."""
    found = {word}
    for _ in range(count):
        found |= {one[:k] + one[k + 1 :] for one in found for k in range(len(one))}
    return found


def distance(one: str, other: str) -> int:
    """How many letters must be put in, left out, exchanged or swapped with their neighbour (Damerau, Levenshtein)."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        row = [i]
        for j, b in enumerate(other, start=1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]


@cache
def speller(words: frozenset[str]) -> Speller:
    """The speller of a vocabulary, made once."""
    return Speller(words)


# ---------------------------------------------------------------------------------------------------------------- meaning


class NearNames:
    """The known names of one language as vectors of a CLIP's space, read once by `prepare`."""

    def __init__(self, clip: Clip, language: str):
        self.clip, self.names = clip, names_in(language)
        self._vectors: Tensor | None = None
        self._lock = threading.Lock()

    @property
    def is_ready(self) -> bool:
        """Whether the names have been read, which takes seconds."""
        return self._vectors is not None

    @torch.no_grad()
    def prepare(self) -> None:
        """Read the names."""
        with self._lock:
            if self._vectors is None:
                parts = [self.names[k : k + TOGETHER] for k in range(0, len(self.names), TOGETHER)]
                self._vectors = torch.cat([self.clip.encode_text(part) for part in parts])

    @torch.no_grad()
    def nearest(self, texts: Sequence[str], most: int = EACH) -> list[list[str]]:
        """The names nearest to each text by cosine, the nearest first."""
        self.prepare()
        assert self._vectors is not None
        cosines = self.clip.encode_text(list(texts)) @ self._vectors.T
        rows: list[list[int]] = cast(Any, cosines.topk(most).indices).tolist()
        return [[self.names[k] for k in row] for row in rows]


class Advisor:
    """Offers for prompts that one CLIP reads, whose vocabulary is `words`; () for one that is not known."""

    def __init__(self, clip: Clip, words: frozenset[str]):
        self.words, self._sorted = words, tuple(sorted(words))
        self.near = NearNames(clip, "en")  # what is unknown in Chinese is a character that CLIP cannot read

    def prepare(self) -> None:
        """Read the names and the words, so that `offers` answers at once."""
        speller(self.words)
        self.near.prepare()

    def offers(self, prompt: str, unknown: Sequence[str]) -> Offers:
        """What is offered for a prompt and its unknown words. Names by meaning only once they have been read."""
        tail, begun = completions(prompt, self._sorted)
        typed = re.split(r"\s", tail)[-1].lower() if begun else ""
        strange = [word for word in unknown if word != typed and not (HAN.search(word) and word in typed)]
        instead = {word: self._by_letters(word) for word in strange[:MOST_WORDS]}
        unsure = [word for word, known in instead.items() if not self._is_sure(word, known)]
        asked = [word for word in unsure if READABLE.fullmatch(spoken(word))]
        if asked and self.near.is_ready:
            nearest = self.near.nearest([spoken(word) for word in asked])
            for word, found in zip(asked, nearest, strict=True):
                known = instead[word][: EACH - 1]
                instead[word] = (*known, *found[: EACH - len(known)])
        return Offers(
            tail, begun, {word: tuple(dict.fromkeys(known)) for word, known in instead.items() if known}
        )

    def _by_letters(self, word: str) -> tuple[str, ...]:
        called = spoken(word)
        if called != word:
            return (called,) if called in names_in("en") else ()
        if (other := SIMPLIFIED.get(word) or without_accents(word)) != word and other in self.words:
            return (other,)
        return tuple(speller(self.words).near(word))

    @staticmethod
    def _is_sure(word: str, known: tuple[str, ...]) -> bool:
        """Whether the first known word is surely meant: a name of an emoji, or of the same sound."""
        same = (spoken(word), SIMPLIFIED.get(word), without_accents(word))
        return bool(known) and (known[0] in same or sound(word) == sound(known[0]))


# what most people call them
CALLED = {"❤": "red heart", "☺": "smiling face", "☹": "frowning face", "⭐": "star", "✨": "sparkles"}


def without_accents(word: str) -> str:
    """The letters of a word without their accents."""
    return "".join(one for one in unicodedata.normalize("NFD", word) if not unicodedata.combining(one))


def spoken(word: str) -> str:
    """What an emoji or a symbol is called, in lower case; flags and other words as they are."""
    if word[:1] in CALLED:
        return CALLED[word[:1]]
    if word[:1] in REGIONAL or not any(unicodedata.category(one) in ("So", "Sk") for one in word):
        return word
    called = unicodedata.name(word[0], word).lower().replace("-", " ")
    short = (called.removesuffix(ending) for ending in (" sign", " symbol", " with skin tone"))
    return next((one for one in short if one in names_in("en")), called)
