"""The vocabulary of SigLIP 2: Gemma's BPE with bytes for what it does not know, over lower-case text."""

from __future__ import annotations

import json
from typing import Any

import tokenizers
from tokenizers import normalizers

from pipelines.io.values import is_dict
from pipelines.models.openai_clip.tokenizer import VocabularyTokenizer

SPACE = "▁"  # stands for a space in the vocabulary
NAMES = ("<pad>", "<eos>", "<unk>")


class SiglipTokenizer(VocabularyTokenizer):
    """Gemma's vocabulary (Gemma Team 2024). A text has an end and no start; padding is token 0."""

    specials = NAMES
    padding = 0

    def __init__(self, vocabulary: tokenizers.Tokenizer):
        super().__init__(vocabulary)
        self.end = vocabulary.token_to_id("<eos>")
        if vocabulary.token_to_id("<pad>") != self.padding:
            raise ValueError("<pad> is not its token 0")
        if vocabulary.token_to_id(SPACE) is None or vocabulary.token_to_id("<0x00>") is None:
            raise ValueError("it has no bytes, or no token of a space")

    def encode(self, text: str) -> list[int]:
        """Token ids of the text in lower case, without the end."""
        return self.vocabulary.encode(text, add_special_tokens=False).ids

    def pieces(self, text: str) -> list[str]:
        """The tokens as readable text; bytes of a split character show as "?"."""
        tokens = self.vocabulary.encode(text, add_special_tokens=False).tokens
        return ["?" if token.startswith("<0x") else token.replace(SPACE, " ") for token in tokens]

    def unknown_words(self, text: str) -> list[str]:
        """Always empty: every word has byte tokens, and the words of the training captions were not published."""
        return []


def lower_cased(text: str) -> tokenizers.Tokenizer:
    """The tokenizer of a published tokenizer.json, which reads in lower case, as it was trained.

    ValueError, or what the tokenizers library raises, when it is not Gemma's form.
    """
    values: Any = json.loads(text)
    model: Any = values.get("model") if is_dict(values) else None
    if not is_dict(model) or model.get("type") != "BPE" or not model.get("byte_fallback"):
        raise ValueError("it is no BPE with bytes for unknown characters")
    book = tokenizers.Tokenizer.from_str(text)
    parts = [normalizers.Lowercase(), normalizers.Replace(" ", SPACE)]
    book.normalizer = normalizers.Sequence(parts)  # type: ignore[assignment]
    book.no_padding()
    book.no_truncation()
    return book
