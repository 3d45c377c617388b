"""DALL·E mini's tokenizer against min-dalle's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.errors import BadInput
from pipelines.models.dalle_mini.tokenizer import DalleMiniTokenizer
from tests.support.dalle_mini import PROMPTS, made_up_words, tokenizer_files


def test_token_ids_of_ascii_equal_min_dalles(reference: Path, tmp_path: Path) -> None:
    tokenizer = DalleMiniTokenizer.load(tokenizer_files(tmp_path))
    theirs = json.loads((reference / "ids.json").read_text())
    assert [tokenizer.encode(prompt) for prompt in PROMPTS] == theirs
    assert any(3 in ids for ids in theirs) and tokenizer.vocabulary_size == len(made_up_words()[0])


def test_a_tokenizer_json_gives_the_same_ids(tmp_path: Path) -> None:
    tokenizer = DalleMiniTokenizer.load(tokenizer_files(tmp_path))
    (tmp_path / "tokenizer.json").write_text(tokenizer.vocabulary.to_str(), "utf-8")
    again = DalleMiniTokenizer.load(tmp_path / "tokenizer.json")
    assert all(again.encode(prompt) == tokenizer.encode(prompt) for prompt in PROMPTS)


def test_letters_lose_accents_and_what_is_left_is_told(tmp_path: Path) -> None:
    tokenizer = DalleMiniTokenizer.load(tokenizer_files(tmp_path))
    for text, plain in {
        "Ça Naïve Çåt": "ca naive cat",
        "“red”\u00a0hat…": '"red" hat...',
        "Łódź straße": "lodz strasse",
        "a 🐶": "a dog face",
        "½ hat\n\tred": "1/2 hat red",
    }.items():
        assert tokenizer.encode(text) == tokenizer.encode(plain), text
        assert tokenizer.unknown_words(text) == []
    assert tokenizer.encode("red 猫 hat") == tokenizer.encode("red hat")
    assert tokenizer.unknown_words("red 猫 hat, кошка ~ 猫") == ["猫", "кошка", "~"]


def test_pieces_read_as_the_text(tmp_path: Path) -> None:
    tokenizer = DalleMiniTokenizer.load(tokenizer_files(tmp_path))
    assert tokenizer.pieces("Red cats, hat") == [" red", " cats", ",", " hat"]


def test_damaged_vocabularies_are_refused(tmp_path: Path) -> None:
    path = tokenizer_files(tmp_path)
    (tmp_path / "merges_mini.txt").write_text("#version: 0.2\nq q\n", "utf-8")
    with pytest.raises(BadInput, match=r"vocab_mini\.json with merges_mini\.txt"):
        DalleMiniTokenizer.load(path)
    (tmp_path / "merges_mini.txt").unlink()
    with pytest.raises(BadInput, match=r"vocab_mini\.json with merges_mini\.txt"):
        DalleMiniTokenizer.load(path)
