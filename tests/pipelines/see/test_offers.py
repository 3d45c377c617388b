"""What is offered for a prompt."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipelines.see.offers import Advisor, completions, distance, speller, spoken
from tests.support.tiny import tiny_clip

WORDS = frozenset((Path(__file__).parents[3] / "assets/tiny/words.txt").read_text("utf-8").split())


@pytest.mark.parametrize(
    ("prompt", "tail", "first"),
    [
        ("a castle | red app", "red app", "red apple"),
        ("a gre", "gre", "grey heart"),
        ("birthday c", "birthday c", "birthday cake"),
        ("a big FRO", "FRO", "frog"),
        ("一只小青", "青", "青蛙"),
    ],
)
def test_names_begin_as_the_prompt_ends(prompt: str, tail: str, first: str) -> None:
    end, found = completions(prompt)
    assert end == tail
    assert first in found


def test_names_that_end_in_a_word_come_before_those_that_begin_with_its_letters() -> None:
    end, found = completions("a cat wearing a hat")
    assert end == "hat" and found.index("top hat") < found.index("hatching chick")


def test_nothing_is_offered_for_what_is_complete_or_unknown() -> None:
    assert completions("") == completions("xyzzy") == completions("a castle | ") == ("", ())


@pytest.mark.parametrize(
    ("word", "known"),
    [
        ("grene", "green"),
        ("frogg", "frog"),
        ("elefant", "elephant"),
        ("buterfly", "butterfly"),
        ("rokcet", "rocket"),
        ("spaceship", "space ship"),  # of two known words
    ],
)
def test_words_of_nearly_the_same_spelling(word: str, known: str) -> None:
    assert speller(WORDS).near(word)[0] == known


def test_distance_counts_swaps_as_one() -> None:
    assert [
        distance(*pair) for pair in (("grene", "green"), ("frogg", "frog"), ("cat", "act"), ("a", ""))
    ] == [1, 1, 1, 1]


def test_emoji_are_called_by_their_names() -> None:
    assert spoken("🐱") == "cat face"
    assert spoken("cat") == "cat"


def test_words_without_a_like_get_names_by_meaning_once_they_are_read() -> None:
    advisor = Advisor(tiny_clip(), WORDS)
    assert advisor.offers("🐱 limousine", ["limousine", "🐱"]).instead == {"🐱": ("cat face",)}
    advisor.near.names = advisor.near.names[:40]
    advisor.prepare()
    instead = advisor.offers("grene limousine", ["grene", "limousine"]).instead
    assert instead["grene"][0] == "green" and set(instead["limousine"]) <= set(advisor.near.names)


def test_what_clip_cannot_read_gets_nothing_by_meaning() -> None:
    advisor = Advisor(tiny_clip(), WORDS)
    advisor.near.names = advisor.near.names[:40]
    advisor.prepare()
    for word in ("ねこ", "кот", "🇫🇷", "1\u20e3", "12345", "瓛"):
        assert advisor.offers(word, [word]).instead == {}, word
    instead = advisor.offers("汽車 café", ["車", "café"]).instead
    assert instead == {"車": ("车",), "café": ("cafe",)}


def test_spelling_and_completion_answer_at_once() -> None:
    find = speller(WORDS)
    completions("a")
    begun = time.process_time()
    for word in ("grene", "frogg", "elefant", "buterflies"):
        find.near(word)
        completions(f"a red {word[:3]}", sorted(WORDS))
    assert time.process_time() - begun < 4 * 0.05
