"""The vocabulary: bytes, Chinese, dropout, damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import BadInput
from pipelines.models.clip.tokenizer import Tokenizer, clean, words_in
from tests.support.tiny import TEXTS, tiny_tokenizer


def test_every_text_comes_back() -> None:
    book = tiny_tokenizer()
    for text in [*TEXTS, "zebra ünïcode 🦓 漢字", "x" * 300]:
        assert book.vocabulary.decode(book.encode(text)).strip() == " ".join(text.lower().split())


def test_case_width_and_space_do_not_matter() -> None:
    book = tiny_tokenizer()
    assert book.encode("A  Red\tHEART") == book.encode("a red heart") == book.encode("ａ ｒｅｄ heart")


def test_no_dropout_is_the_library_and_full_dropout_is_bytes() -> None:
    book, rng = tiny_tokenizer(), np.random.default_rng(0)
    for text in [*TEXTS, "a blue zebra"]:
        assert book.encode_with_dropout(text, 0.0, rng) == book.encode(text)
        assert len(book.encode_with_dropout(text, 1.0, rng)) == len(f" {text}".encode())
    some = {tuple(book.encode_with_dropout("a red heart", 0.3, rng)) for _ in range(50)}
    assert len(some) > 3
    assert all(book.vocabulary.decode(list(ids)) == " a red heart" for ids in some)


def test_words() -> None:
    assert words_in("A red-hot 红心, red!") == ["a", "red", "hot", "红", "心"]
    book = tiny_tokenizer()
    assert book.unknown_words("red hearts and a 龙") == ["and", "龙"]
    assert Tokenizer(book.vocabulary).unknown_words("anything") == []


def test_a_damaged_vocabulary_is_refused(tmp_path: Path) -> None:
    for text in (None, "{", '{"model": 1}'):
        if text is not None:
            (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(BadInput, match=r"tokenizer\.json is missing or damaged"):
            Tokenizer.load(tmp_path / "tokenizer.json")


def test_a_chinese_article_is_left_out() -> None:
    assert clean("一只猫") == "猫" and clean("一辆红色的汽车和一只狗") == "红色的汽车和狗"
    for kept in ("两只猫", "一百分", "第一个", "万一只有", "一只", "one 一"):
        assert clean(kept) == kept
