"""Tokens joined to words, words found again, and two prompts put side by side."""

from __future__ import annotations

import pytest
import torch

from pipelines.models.clip.tokenizer import Tokenizer
from pipelines.models.words import PromptTokens, align
from pipelines.weights.catalog import ASSETS
from tests.support.tiny import tiny_diffuse


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(ASSETS / "tiny" / "tokenizer.json")


def tokens_of(tokenizer: Tokenizer, prompt: str) -> PromptTokens:
    text, spans = tokenizer.spans(prompt)
    return PromptTokens(text, tuple(spans), 2)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("A red  heart", ["a", "red", "heart"]),
        ("a green-eyed brontosaurus, the cat’s", ["a", "green-eyed", "brontosaurus", ",", "the", "cat’s"]),
        ("两只猫", ["两", "只", "猫"]),
        ("蓝心 heart", ["蓝", "心", "heart"]),
        ("黄色背景上的猫", ["黄", "色背景上的", "猫"]),  # one token is of five characters
    ],
)
def test_tokens_are_joined_to_words(tokenizer: Tokenizer, prompt: str, words: list[str]) -> None:
    tokens = tokens_of(tokenizer, prompt)
    assert [word.text for word in tokens.words] == words
    keys = [key for word in tokens.words for key in word.keys]
    assert keys == list(range(2, 2 + len(tokenizer.encode(prompt))))  # each token is of one word
    assert [word.text for word in tokens.words if not word.is_spoken] == [
        word for word in words if word == ","
    ]


def test_words_that_were_cut_off_are_none() -> None:
    tokens = PromptTokens("a red heart", ((0, 1), (1, 5)), 1)
    assert [word.text for word in tokens.words] == ["a", "red"] and tokens.end == 3


def test_a_word_is_found_wherever_it_stands(tokenizer: Tokenizer) -> None:
    tokens = tokens_of(tokenizer, "a cat and a catfish and a Cat")
    places = {word.keys for word in tokens.words if word.text == "cat"}
    assert len(places) == 2 and set(tokens.keys_of("CAT")) == {key for keys in places for key in keys}
    assert tokens.keys_of("dog") == tokens.keys_of(" ") == ()
    both = tokens.keys_of("and a")
    assert len(both) == 4
    chinese = tokens_of(tokenizer, "红苹果和红心")
    assert len(chinese.keys_of("红")) == 2 and chinese.keys_of("苹果")
    assert set(chinese.keys_of("红苹")) > set(chinese.keys_of("苹"))


def test_stable_diffusion_counts_its_start_token() -> None:
    tokens = tiny_diffuse("1.5").diffusion.prompt_tokens("a red cat")  # type: ignore[attr-defined]
    assert [word.text for word in tokens.words] == ["a", "red", "cat"]
    assert [word.keys for word in tokens.words] == [(1,), (2, 3, 4), (5, 6, 7)]  # one token a letter
    long = tiny_diffuse("1.5").diffusion.prompt_tokens("a " * 40)  # type: ignore[attr-defined]
    assert long.end == 15  # 14 of 16 places are for the text


def plain(text: str) -> PromptTokens:
    """One token a letter, one place before the text."""
    return PromptTokens(text, tuple((k, k + 1) for k, letter in enumerate(text) if letter != " "), 1)


def moved(source: str, target: str, source_count: int = 12, target_count: int = 12) -> dict[int, list[float]]:
    """Key of the target -> what it takes of each key of the source, for keys that are not new."""
    matrix, paired = align(plain(source), plain(target)).matrix(source_count, target_count)
    assert ((matrix.sum(0) > 0) == paired).all()
    return {key: matrix[:, key].nonzero().flatten().tolist() for key in paired.nonzero().flatten().tolist()}


def test_words_that_stay_keep_their_keys() -> None:
    same = align(plain("a cat"), plain("a cat")).matrix(9, 9)
    assert torch.equal(same[0], torch.eye(9)) and same[1].all()
    found = moved("a cat", "a big cat", 8, 12)
    assert found == {
        0: [0],
        1: [1],
        5: [2],
        6: [3],
        7: [4],
        8: [5],
        9: [6],
        10: [7],
    }  # "big" and the last are new


def test_a_word_that_replaces_another_stands_for_it() -> None:
    assert moved("cat nap", "fox nap", 8, 8) == {k: [k] for k in range(8)}
    found = moved("a cat", "a red fox", 6, 9)
    assert found == {0: [0], 1: [1], 5: [2], 6: [3], 7: [4], 8: [5]}  # the fox is where the cat was
    matrix, paired = align(plain("ab"), plain("wxyz")).matrix(4, 6)
    assert (
        torch.equal(matrix[1:3, 1:5], torch.full((2, 4), 0.25)) and paired.all()
    )  # the sum is shared evenly
    assert matrix.sum(1).tolist() == [1, 1, 1, 1]
    assert moved("a cat", "a", 6, 6) == {0: [0], 1: [1], 2: [5]}  # what was left out goes nowhere


@pytest.mark.parametrize(
    ("source", "target", "pairs"),
    [
        ("小猫", "小狗", [((2,), (2,)), ((3,), (3, 4, 5))]),  # a cat of one token, a dog of three
        ("一只猫", "一只狗", [((2, 3), (2, 3))]),  # read without 一只
        ("熊猫", "老虎", [((2, 3), (2, 3)), ((4,), (4, 5))]),
    ],
)
def test_chinese_names_stand_for_one_another(
    tokenizer: Tokenizer, source: str, target: str, pairs: list[tuple[tuple[int, ...], tuple[int, ...]]]
) -> None:
    alignment = align(tokens_of(tokenizer, source), tokens_of(tokenizer, target))
    assert list(alignment.pairs) == [((0,), (0,)), ((1,), (1,)), *pairs]
