"""Tokenizers with the published vocabularies (tests/vocabularies), against the publishers' own code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from app.ui.i18n import words
from pipelines.models.openai_clip.convert import write_tokenizer
from pipelines.models.openai_clip.tokenizer import ClipTokenizer, WordPieceTokenizer
from pipelines.models.rudalle.tokenizer import RudalleTokenizer
from pipelines.weights.open_weights import OPEN_WEIGHTS
from tests.support.openai_clip import simple_tokenizer

ROOT = Path(__file__).parents[3]
VOCABULARIES = ROOT / "tests" / "vocabularies"
IDS: dict[str, list[tuple[str, list[int]]]] = json.loads((VOCABULARIES / "ids.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> ClipTokenizer:
    path = tmp_path_factory.mktemp("words") / "clip.json"
    write_tokenizer(VOCABULARIES / "bpe_simple_vocab_16e6.txt.gz", path)
    return ClipTokenizer.load(path)


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> WordPieceTokenizer:
    path = tmp_path_factory.mktemp("words") / "chinese.json"
    write_tokenizer(VOCABULARIES / "chinese_clip_vocab.txt", path)
    return WordPieceTokenizer.load(path)


def test_the_files_are_the_published_ones() -> None:
    (pinned,) = OPEN_WEIGHTS["clip-chinese-tokenizer"].files
    for name, sha256 in {
        "bpe_simple_vocab_16e6.txt.gz": "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a",
        "chinese_clip_vocab.txt": pinned.sha256,
    }.items():
        assert hashlib.sha256((VOCABULARIES / name).read_bytes()).hexdigest() == sha256


def test_english_ids_are_openais(english: ClipTokenizer) -> None:
    """In their notebook "Hello World!" is 3306 1002 256 between the ends; and so is every line of our documents."""
    assert english.encode("Hello World!") == [3306, 1002, 256]
    assert (english.vocabulary_size, english.start, english.end) == (49408, 49406, 49407)
    theirs = simple_tokenizer()
    lines = [
        line
        for file in ("README.md", "ARCHITECTURE.md")
        for line in (ROOT / file).read_text("utf-8").split("\n")
    ]
    lines += [sentence for pair in words().values() for sentence in pair]
    assert len(lines) > 600
    for line in lines:
        assert english.encode(line) == theirs.encode(line), line


def test_chinese_ids_are_those_of_cn_clip(chinese: WordPieceTokenizer) -> None:
    """But for a final sigma and for words of more than a hundred letters, of which there are none here."""
    assert chinese.encode("皮卡丘") == [4649, 1305, 687]
    for text, ids in IDS["chinese_clip"]:
        assert chinese.encode(text) == ids, text
    assert chinese.vocabulary_size == 21128


def test_ids_of_a_file_that_youtokentome_wrote(tmp_path: Path) -> None:
    tokenizer = RudalleTokenizer.load(VOCABULARIES / "youtokentome.model")
    assert tokenizer.vocabulary_size == 300
    for text, ids in IDS["youtokentome"]:
        assert tokenizer.encode(text) == ids, text
