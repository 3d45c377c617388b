"""The tiny pack's tokenizer: a byte-level BPE for English and Chinese, shared by its CLIP and DALL·E."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import tokenizers

from pipelines.errors import BadInput
from pipelines.io.chinese import HAN, MEASURES
from pipelines.io.visible import symbols
from pipelines.models.thesaurus import THESAURUS, Thesaurus

WORDS = "words.txt"  # beside a vocabulary: the words of the training captions, one a line
END = "<|end|>"  # token 0 ends a text; tokens after it are padding
A = re.compile(f"(?:(?<!{HAN})|(?<=[和与及]))一[{MEASURES}](?={HAN})")  # a Chinese "a"


class Tokenizer:
    """Byte-level BPE (Sennrich et al. 2016, on bytes): every text can be encoded, and there is no unknown token.

    Texts are NFKC-normalized and lower-cased first. `vocabulary_size` counts END, which is token 0.
    """

    def __init__(
        self,
        vocabulary: tokenizers.Tokenizer,
        words: frozenset[str] = frozenset(),
        thesaurus: Thesaurus | None = None,
    ):
        self.vocabulary, self.words, self.thesaurus = vocabulary, words, thesaurus or Thesaurus({})
        self.vocabulary_size = vocabulary.get_vocab_size()

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read a tokenizer.json, and in the same folder words.txt, the words of the training captions, and thesaurus.txt.

        Both may be absent. BadInput when the vocabulary is missing or damaged, or the thesaurus is.
        """
        words, thesaurus = path.with_name(WORDS), Thesaurus.load(path.with_name(THESAURUS))
        try:
            known = words.read_text("utf-8").split() if words.exists() else []
            return cls(tokenizers.Tokenizer.from_str(path.read_text("utf-8")), frozenset(known), thesaurus)
        except Exception as error:  # the library raises bare Exception
            raise BadInput("models.vocabulary_damaged", file=path.name) from error

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
        """A tokenizer whose merges are learned from texts, with at most `vocabulary_size` tokens, END included."""
        vocabulary = tokenizers.Tokenizer(tokenizers.models.BPE())
        vocabulary.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
        vocabulary.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            special_tokens=[END],
            initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        vocabulary.train_from_iterator((clean(text) for text in texts), trainer)
        return cls(vocabulary)

    def encode(self, text: str) -> list[int]:
        """Token ids, without END."""
        return self.vocabulary.encode(clean(text)).ids

    def pieces(self, text: str) -> list[str]:
        """The tokens as readable text, one string a token; bytes of a split character show as "?"."""
        return [self.vocabulary.decode([token]).replace("\ufffd", "?") for token in self.encode(text)]

    def spans(self, text: str) -> tuple[str, list[tuple[int, int]]]:
        """The cleaned text, and first and last + 1 of the characters of each token; bytes of one character share them."""
        cleaned = clean(text)
        return cleaned, list(self.vocabulary.encode(cleaned).offsets)

    def unknown_words(self, text: str) -> list[str]:
        """Words (in Chinese: characters), emoji and other symbols that are in no training caption, each once.

        Empty without a list of words.
        """
        if not self.words:
            return []
        text_words = words_in(text)
        unknown = [
            word for word in text_words if word not in self.words and word.removesuffix("s") not in self.words
        ]
        return unknown + [sign for sign in signs_in(text) if sign not in self.words]

    def known_as(self, text: str) -> str:
        """The text in words that the captions had, by the thesaurus; the text itself where nothing is to change."""
        return self.thesaurus.known_as(text, frozenset(self.unknown_words(text)))

    def encode_with_dropout(self, text: str, probability: float, rng: np.random.Generator) -> list[int]:
        """Token ids without END, with BPE dropout (Provilkov et al. 2020).

        At every merge each candidate pair is left out with `probability`, in [0, 1). Implemented here because the
        dropout of the tokenizers library cannot be seeded.
        """
        ids: list[int] = []
        for word, _ in self.vocabulary.pre_tokenizer.pre_tokenize_str(clean(text)):
            parts = list(word)
            while len(parts) > 1:
                pairs = [(self._ranks.get(pair), k) for k, pair in enumerate(pairwise(parts))]
                kept = [(rank, k) for rank, k in pairs if rank is not None and rng.random() >= probability]
                if not kept:
                    break
                _, k = min(kept)
                parts[k : k + 2] = [parts[k] + parts[k + 1]]
            ids += [self.vocabulary.token_to_id(part) or 0 for part in parts]
        return ids

    @cached_property
    def _ranks(self) -> dict[tuple[str, str], int]:
        """Pairs that merge -> their rank; the lowest rank merges first."""
        merges = json.loads(self.vocabulary.to_str())["model"]["merges"]
        return {tuple(pair): rank for rank, pair in enumerate(merges)}


def clean(text: str) -> str:
    """The text in NFKC, lower case, with single spaces, without a Chinese "a": 一 and a measure word.

    Captions name things without it, and CLIP finds 猫 much nearer to "cat" than 一只猫 (cosine 0.82 and 0.52).
    """
    return A.sub("", " ".join(unicodedata.normalize("NFKC", text).lower().split()))


def words_in(text: str) -> list[str]:
    """Each word once, in order: runs of letters and digits, and single Chinese characters."""
    return list(dict.fromkeys(re.findall(rf"{HAN}|[^\W_\u4e00-\u9fff]+", clean(text))))


def signs_in(text: str) -> list[str]:
    """Each emoji and other symbol once, in order."""
    return symbols(unicodedata.normalize("NFKC", text))
