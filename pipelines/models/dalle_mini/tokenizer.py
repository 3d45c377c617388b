"""DALL·E mini's tokenizer: the byte-level BPE of its vocab.json and merges.txt, for English only."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import tokenizers

from pipelines.errors import BadInput

UNKNOWN = "<unk>"
SPELLINGS = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛′", "'"),
        **dict.fromkeys("“”„‟″«»", '"'),
        **dict.fromkeys("‐‑‒–—―−", "-"),
        **dict.fromkeys("\u200b\u200c\u200d\ufe0e\ufe0f", ""),  # invisible joiners, as inside emoji
        **dict(zip("⁄đðøłı×", "/ddolix", strict=True)),
        **dict(zip("ßæœþ", ("ss", "ae", "oe", "th"), strict=True)),
    }
)


class DalleMiniTokenizer:
    """Lower case, Latin letters without their accents, emoji by their names; the same ids as min-dalle's for ASCII.

    Words are separated by spaces. Letters that have no ASCII form get no ids; `unknown_words` lists their words.
    """

    def __init__(self, vocabulary: dict[str, int], merges: list[tuple[str, str]]):
        self.vocabulary = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges, unk_token=UNKNOWN))
        self.vocabulary.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
            [
                tokenizers.pre_tokenizers.WhitespaceSplit(),
                tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False),
            ]
        )
        self.vocabulary.decoder = tokenizers.decoders.ByteLevel()
        self.vocabulary_size = self.vocabulary.get_vocab_size()

    @classmethod
    def load(cls, path: Path) -> DalleMiniTokenizer:
        """Read a tokenizer.json, or a vocab.json and merges.txt in the same folder.

        The merges of vocab_mini.json are in merges_mini.txt. BadInput when a file is missing or damaged.
        """
        merges_path = path.with_name(path.name.replace("vocab", "merges")).with_suffix(".txt")
        try:
            data = json.loads(path.read_text("utf-8"))
            if isinstance(data.get("model"), dict):
                vocabulary, lines = data["model"]["vocab"], data["model"]["merges"]
            else:
                text = merges_path.read_text("utf-8")
                vocabulary, lines = (
                    data,
                    [line for line in text.split("\n") if not line.startswith("#version")],
                )
            pairs = [line.split() if isinstance(line, str) else line for line in lines if line]
            return cls(vocabulary, [(first, second) for first, second in pairs])
        except Exception as error:  # the library raises bare Exception
            raise BadInput(
                "models.vocabulary_pair_damaged", file=path.name, merges=merges_path.name, reason=error
            ) from error

    def encode(self, text: str) -> list[int]:
        """Token ids, without those that begin and end a text."""
        return self.vocabulary.encode(_ascii(spell(text)), add_special_tokens=False).ids

    def pieces(self, text: str) -> list[str]:
        """The tokens as readable text, one string a token."""
        return [self.vocabulary.decode([token], skip_special_tokens=False) for token in self.encode(text)]

    def unknown_words(self, text: str) -> list[str]:
        """Words, each once, in order, with a letter that has no ASCII form or no token."""
        unknown = self.vocabulary.token_to_id(UNKNOWN)
        words = dict.fromkeys(spell(text).split())
        return [word for word in words if not word.isascii() or unknown in self.vocabulary.encode(word).ids]


def spell(text: str) -> str:
    """The text in lower case with single spaces, and in ASCII where a letter, a mark or an emoji has such a form."""
    plain = unicodedata.normalize("NFKC", text).lower().translate(SPELLINGS)
    letters: list[str] = []
    for letter in plain:
        base = unicodedata.normalize("NFKD", letter)[0]
        if unicodedata.category(letter) == "So":
            letters.append(f" {unicodedata.name(letter, letter).lower()} ")  # an emoji: "dog face"
        else:
            letters.append(base if base.isascii() else letter)
    return " ".join("".join(letters).split())


def _ascii(text: str) -> str:
    return "".join(letter for letter in text if letter.isascii() and letter.isprintable())
