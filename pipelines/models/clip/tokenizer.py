"""Text to tokens: a byte-level BPE of our own, English and Chinese, shared by CLIP and DALL·E."""

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

END = "<|end|>"  # token 0 ends a text; tokens after it are padding


class Tokenizer:
    """Byte-level BPE (Sennrich et al. 2016, on bytes): every text has tokens, none is unknown.

    Texts are NFKC-normalized and lower-cased first. `vocabulary_size` counts END, which is token 0.
    """

    def __init__(self, book: tokenizers.Tokenizer, words: frozenset[str] = frozenset()):
        self.book, self.words = book, words
        self.vocabulary_size = book.get_vocab_size()

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """From a tokenizer.json, with words.txt beside it, the words of the training captions, one a line.

        BadInput when the vocabulary is missing or damaged.
        """
        words = path.with_name("words.txt")
        try:
            known = frozenset(words.read_text("utf-8").split()) if words.exists() else frozenset()
            return cls(tokenizers.Tokenizer.from_str(path.read_text("utf-8")), known)
        except Exception as error:  # the library raises bare Exception
            raise BadInput("models.vocabulary_damaged", file=path.name) from error

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
        """Learn merges from texts."""
        book = tokenizers.Tokenizer(tokenizers.models.BPE())
        book.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
        book.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            special_tokens=[END],
            initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        book.train_from_iterator((clean(text) for text in texts), trainer)
        return cls(book)

    def encode(self, text: str) -> list[int]:
        """Token ids, without END."""
        return self.book.encode(clean(text)).ids

    def pieces(self, text: str) -> list[str]:
        """The tokens as readable text, one string a token; bytes of a split character show as "?"."""
        return [self.book.decode([token]).replace("\ufffd", "?") for token in self.encode(text)]

    def unknown_words(self, text: str) -> list[str]:
        """Words (in Chinese: characters) that no training caption held; empty when those are not known either."""
        if not self.words:
            return []
        found = words_in(text)
        return [word for word in found if word not in self.words and word.removesuffix("s") not in self.words]

    def encode_with_dropout(self, text: str, probability: float, rng: np.random.Generator) -> list[int]:
        """BPE dropout (Provilkov et al. 2020): at every merge each candidate pair is left out with `probability`.

        Written out here because the library's own dropout cannot be seeded.
        """
        ids: list[int] = []
        for word, _ in self.book.pre_tokenizer.pre_tokenize_str(clean(text)):
            parts = list(word)
            while len(parts) > 1:
                pairs = [(self._ranks.get(pair), k) for k, pair in enumerate(pairwise(parts))]
                kept = [(rank, k) for rank, k in pairs if rank is not None and rng.random() >= probability]
                if not kept:
                    break
                _, k = min(kept)
                parts[k : k + 2] = [parts[k] + parts[k + 1]]
            ids += [self.book.token_to_id(part) or 0 for part in parts]
        return ids

    @cached_property
    def _ranks(self) -> dict[tuple[str, str], int]:
        """Which pairs merge, and in what order."""
        merges = json.loads(self.book.to_str())["model"]["merges"]
        return {tuple(pair): rank for rank, pair in enumerate(merges)}


def clean(text: str) -> str:
    """NFKC, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def words_in(text: str) -> list[str]:
    """Each word once, in order: runs of letters and digits, and single Chinese characters."""
    return list(dict.fromkeys(re.findall(r"[\u4e00-\u9fff]|[^\W_\u4e00-\u9fff]+", clean(text))))
