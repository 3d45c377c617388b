"""ruDALL-E's vocabulary: a byte-pair encoding of characters (Sennrich et al. 2016) in YouTokenToMe's text form."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from pipelines.errors import BadInput

SPACE = "\u2581"  # begins every word
PAD, UNKNOWN, BOS, EOS = 0, 1, 2, 3
SPECIALS = (UNKNOWN, PAD, BOS, EOS)  # in the order of the file's last line


class RudalleTokenizer:
    """Text to ids. A word is SPACE and its characters; neighbours are merged, by the earliest rule first.

    Characters outside the vocabulary become UNKNOWN, one for each run of them.
    """

    def __init__(self, characters: dict[str, int], rules: list[tuple[int, int, int]]):
        """`characters` are their ids; `rules` are (left id, right id, id of the pair), in order of application."""
        self.characters = characters
        self.merges = {(left, right): (rank, made) for rank, (left, right, made) in enumerate(rules)}
        self.strings = {number: character for character, number in characters.items()}
        for left, right, made in rules:
            self.strings[made] = self.strings[left] + self.strings[right]
        self.vocabulary_size = len(self.strings) + len(SPECIALS)

    @classmethod
    def load(cls, path: Path) -> RudalleTokenizer:
        """Read a bpe.model of YouTokenToMe. BadInput when the file is missing or is not such a vocabulary.

        Its lines are the counts, then a character's code and id each, then the rules, then the ids of the specials.
        """
        try:
            lines = [[int(word) for word in line.split()] for line in path.read_text("utf-8").splitlines()]
            character_count, rule_count = lines[0]
            if len(lines) != character_count + rule_count + 2:
                raise ValueError(
                    f"it should have {character_count + rule_count + 2} lines and has {len(lines)}"
                )
            if tuple(lines[-1]) != SPECIALS:
                raise ValueError(f"the last line should be {SPECIALS} and is {tuple(lines[-1])}")
            characters = {chr(code): number for code, number in lines[1 : 1 + character_count]}
            rules = [(left, right, made) for left, right, made in lines[1 + character_count : -1]]
            _check(characters, rules)
        except (OSError, ValueError, IndexError, OverflowError) as error:
            raise BadInput("models.rudalle_vocabulary", file=path.name, reason=error) from error
        return cls(characters, rules)

    def encode(self, text: str) -> list[int]:
        """Token ids, without BOS and EOS."""
        return [number for word in split_words(text) for number in self._encode_word(word)]

    def pieces(self, text: str) -> list[str]:
        """The tokens as readable text, one string a token; new words begin with a space, UNKNOWN is "?"."""
        return [self.strings.get(number, "?").replace(SPACE, " ") for number in self.encode(text)]

    def unknown_words(self, text: str) -> list[str]:
        """Words with a character that the vocabulary lacks, each once, in order."""
        words = dict.fromkeys(split_words(text))
        return [word for word in words if not self.characters.keys() >= set(word)]

    def _encode_word(self, word: str) -> list[int]:
        ids = [self.characters[SPACE]]
        for character in word:
            number = self.characters.get(character, UNKNOWN)
            if number != UNKNOWN or ids[-1] != UNKNOWN:
                ids.append(number)
        # A merge makes only pairs of later rules, so that all places of one rule can be merged in one go.
        while rules := [self.merges[pair] for pair in pairwise(ids) if pair in self.merges]:
            made = min(rules)
            merged: list[int] = []
            for number in ids:
                if merged and self.merges.get((merged[-1], number)) == made:
                    merged[-1] = made[1]
                else:
                    merged.append(number)
            ids = merged
        return ids


def split_words(text: str) -> list[str]:
    """The words of a text in lower case. As in YouTokenToMe, only ASCII's spaces and SPACE separate words."""
    return [word for word in re.split(f"[ \t\n\v\f\r{SPACE}]+", text.lower()) if word]


def _check(characters: dict[str, int], rules: list[tuple[int, int, int]]) -> None:
    """ValueError unless SPACE is there, ids have no gaps, and rules join only what comes before them."""
    if SPACE not in characters:
        raise ValueError("the character U+2581, which begins a word, is not in it")
    known = set(characters.values())
    for left, right, made in rules:
        if made in known or not {left, right} <= known:
            raise ValueError(
                f"the rule {left} {right} {made} does not join two earlier tokens into a new one"
            )
        known.add(made)
    count = len(SPECIALS) + len(characters) + len(rules)
    if known != set(range(len(SPECIALS), count)):
        raise ValueError(f"the ids should be {len(SPECIALS)} to {count - 1}, each once")
