"""The vocabularies of the published CLIPs: OpenAI's byte-level BPE, and BERT's WordPiece for the Chinese one.

Both are read from a tokenizer.json of the `tokenizers` library, which `openai_clip.convert` writes from what was
published.
"""

from __future__ import annotations

import html
import re
import unicodedata
from pathlib import Path
from typing import Self

import tokenizers

from pipelines.errors import BadInput

START, END = "<|startoftext|>", "<|endoftext|>"

# What editors make of plain characters: curly quotes, ligatures, the full-width forms of Chinese typing, control codes.
PLAIN = {
    **{ord(quote): "'" for quote in "ʼ‘’‚‛"},
    **{ord(quote): '"' for quote in "“”„‟"},
    **{code: unicodedata.normalize("NFKC", chr(code)) for code in (0x3000, *range(0xFF01, 0xFFF0))},
    **{ord(letter): unicodedata.normalize("NFKC", letter) for letter in "ĲĳŉǱǲǳǄǅǆǇǈǉǊǋǌﬀﬁﬂﬃﬄﬅﬆ"},
    **dict.fromkeys((*range(9), 0x0B, *range(0x0E, 0x20), 0x7F, 0xFEFF), ""),
}


def clean(text: str) -> str:
    """The text cleaned like OpenAI's captions.

    Quotes and widths become plain, accents composed, HTML entities characters, spaces single, letters lower case. OpenAI
    also repaired wrongly decoded text such as "schÃ¶n"; that is left out, since prompts are typed.
    """
    text = html.unescape(html.unescape(text)).translate(PLAIN)
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).strip().lower()


class VocabularyTokenizer:
    """Base of both tokenizers: a tokenizer.json, and the special tokens that it must have. ValueError without them."""

    specials: tuple[str, ...]

    def __init__(self, vocabulary: tokenizers.Tokenizer):
        ids = [vocabulary.token_to_id(name) for name in self.specials]
        if None in ids:
            raise ValueError(f"it has no token {self.specials[ids.index(None)]}")
        self.vocabulary = vocabulary
        self.vocabulary_size = vocabulary.get_vocab_size()

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a tokenizer.json. BadInput when it is missing, damaged or of another model."""
        try:
            return cls(tokenizers.Tokenizer.from_str(path.read_text("utf-8")))
        except Exception as error:  # the library raises bare Exception
            raise BadInput("models.vocabulary_of_other_model", file=path.name, reason=error) from error


class ClipTokenizer(VocabularyTokenizer):
    """OpenAI's byte-level BPE: 256 bytes, 256 bytes that end a word, 48,894 merges, `start` and `end`."""

    specials = (START, END)

    def __init__(self, vocabulary: tokenizers.Tokenizer):
        super().__init__(vocabulary)
        self.start, self.end = vocabulary.token_to_id(START), vocabulary.token_to_id(END)
        if self.end != self.vocabulary_size - 1:
            raise ValueError(f"{END} is not its last token, by which the network finds the end of a text")

    def encode(self, text: str) -> list[int]:
        """Token ids, without START and END."""
        return self.vocabulary.encode(clean(text)).ids

    def pieces(self, text: str) -> list[str]:
        """The tokens as readable text, with a space where a word ends; bytes of a split character show as "?"."""
        pieces = [self.vocabulary.decode([token], skip_special_tokens=False) for token in self.encode(text)]
        return [piece.replace("\ufffd", "?").replace("</w>", " ") for piece in pieces]

    def unknown_words(self, text: str) -> list[str]:
        """Always empty: every word has byte tokens, and the words of the training captions were not published."""
        return []


class WordPieceTokenizer(VocabularyTokenizer):
    """BERT's WordPiece (Devlin et al. 2019): words from pieces, every Chinese character by itself; padding is token 0."""

    specials = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")

    def __init__(self, vocabulary: tokenizers.Tokenizer):
        super().__init__(vocabulary)
        self.start, self.end = vocabulary.token_to_id("[CLS]"), vocabulary.token_to_id("[SEP]")
        if vocabulary.token_to_id("[PAD]") != 0:
            raise ValueError("[PAD] is not its token 0")

    def encode(self, text: str) -> list[int]:
        """Token ids, without [CLS] and [SEP]."""
        return self.vocabulary.encode(text, add_special_tokens=False).ids

    def pieces(self, text: str) -> list[str]:
        """The tokens as readable text; what has no token shows as itself."""
        encoding = self.vocabulary.encode(text, add_special_tokens=False)
        return [
            text[start:end] if token == "[UNK]" else token.removeprefix("##")
            for token, (start, end) in zip(encoding.tokens, encoding.offsets, strict=True)
        ]

    def unknown_words(self, text: str) -> list[str]:
        """Words that have no token, each once, in order."""
        encoding = self.vocabulary.encode(text, add_special_tokens=False)
        spans = zip(encoding.tokens, encoding.offsets, strict=True)
        return list(dict.fromkeys(text[start:end] for token, (start, end) in spans if token == "[UNK]"))
