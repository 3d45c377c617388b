"""The words of a prompt, and where a denoiser's cross-attention reads them.

The keys of cross-attention are what stands before the text (a start token, a style, a vector), the tokens of the text, and
what stands after it (an end token, padding). A word is a unit to look at or to weigh: what shares a token cannot be told
apart, so it is one word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property

import torch
from torch import Tensor

HAN = "\u4e00-\u9fff"  # each of these characters may be a word; other letters and digits make words in runs
ATOMS = re.compile(rf"[{HAN}]|[^\W_{HAN}]+(?:['’-][^\W_{HAN}]+)*|\S")
RUN_BEFORE, RUN_AFTER = rf"(?<![^\W_{HAN}])", rf"(?![^\W_{HAN}])"
RUN = re.compile(rf"[^\W_{HAN}]")


@dataclass(frozen=True)
class Word:
    """One word, or one mark of punctuation, and its keys of cross-attention."""

    text: str
    keys: tuple[int, ...]

    @property
    def is_spoken(self) -> bool:
        """Whether it has a letter or a digit."""
        return any(character.isalnum() for character in self.text)


@dataclass(frozen=True)
class PromptTokens:
    """A prompt as a denoiser's text encoder reads it.

    `text` is the prompt as the tokenizer cleans it. `spans` are first and last + 1 of the characters of each token that is
    read, in order. `first` is the key of the first token.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    first: int

    @property
    def end(self) -> int:
        """The key after those of the text."""
        return self.first + len(self.spans)

    @cached_property
    def words(self) -> list[Word]:
        """The words and marks in order.

        In English a word is a run of letters and digits. In Chinese it is what the tokens of one or more characters cover:
        tokens of several characters make a word of them, and bytes of one character are joined to it.
        """
        atoms = [match.span() for match in ATOMS.finditer(self.text)]
        joined = [False] * len(atoms)  # to the atom before
        for span in self.spans:
            touched = [k for k, atom in enumerate(atoms) if _overlap(atom, span)]
            for k in touched[1:]:
                joined[k] = True
        groups: list[list[tuple[int, int]]] = []
        for atom, with_last in zip(atoms, joined, strict=True):
            if with_last:
                groups[-1].append(atom)
            else:
                groups.append([atom])
        words = [(group[0][0], group[-1][1]) for group in groups]
        found = [Word(self.text[start:stop], self._keys((start, stop))) for start, stop in words]
        return [word for word in found if word.keys]

    def keys_of(self, phrase: str) -> tuple[int, ...]:
        """The keys of all tokens in which a word or several words of the prompt stand, wherever; empty when nowhere."""
        found = [self._keys(span) for span in self._places(phrase)]
        return tuple(sorted({key for keys in found for key in keys}))

    def without(self, phrase: str) -> str:
        """The prompt's text without a word or several words in a row, wherever they stand."""
        text = self.text
        for start, stop in reversed(self._places(phrase)):
            text = text[:start] + text[stop:]
        return " ".join(text.split())

    def _places(self, phrase: str) -> list[tuple[int, int]]:
        wanted = " ".join(unicodedata.normalize("NFKC", phrase).split())
        if not wanted:
            return []
        pattern = re.escape(wanted)
        pattern = (RUN_BEFORE if RUN.match(wanted[0]) else "") + pattern
        pattern += RUN_AFTER if RUN.match(wanted[-1]) else ""
        return [match.span() for match in re.finditer(pattern, self.text, re.IGNORECASE)]

    def _keys(self, span: tuple[int, int]) -> tuple[int, ...]:
        return tuple(self.first + k for k, token in enumerate(self.spans) if _overlap(token, span))


@dataclass(frozen=True)
class Alignment:
    """Which keys of a target prompt stand for which of a source prompt.

    `pairs` are (keys of the source, keys of the target): what stands before both texts, then the words that stand for one
    another. What stands after both texts is paired in order. Keys of the target in no pair are new.
    """

    pairs: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    ends: tuple[int, int]  # the keys after those of both texts

    def matrix(self, source_count: int, target_count: int) -> tuple[Tensor, Tensor]:
        """For these numbers of keys: (source_count, target_count) float32, and (target_count,) bool, True where not new.

        Weights of the source times the matrix are those of the target. Words of as many tokens are taken token by token;
        else the tokens of the target's word share the sum of the source's evenly, as in Hertz et al. 2022.
        """
        matrix = torch.zeros(source_count, target_count)
        after = min(source_count - self.ends[0], target_count - self.ends[1])
        rest = [((self.ends[0] + k,), (self.ends[1] + k,)) for k in range(after)]
        for source, target in (*self.pairs, *rest):
            if len(source) == len(target):
                matrix[list(source), list(target)] = 1
            else:
                for key in source:
                    matrix[key, list(target)] = 1 / len(target)
        return matrix, matrix.sum(0) > 0


def align(source: PromptTokens, target: PromptTokens) -> Alignment:
    """The words of two prompts that stand for one another, by the longest common subsequences of their words.

    Words that replace others stand for them one by one, counted from the last: in "red fox" for "cat" the fox is where the
    cat was, and "red" is new.
    """
    before = tuple(((k,), (k,)) for k in range(min(source.first, target.first)))
    old, new = source.words, target.words
    matcher = SequenceMatcher(None, _texts(old), _texts(new), autojunk=False)
    pairs: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for _, old_start, old_stop, new_start, new_stop in matcher.get_opcodes():
        count = min(old_stop - old_start, new_stop - new_start)
        pairs += [(old[old_stop - k].keys, new[new_stop - k].keys) for k in range(count, 0, -1)]
    return Alignment((*before, *pairs), (source.end, target.end))


def _texts(words: Sequence[Word]) -> list[str]:
    return [word.text.lower() for word in words]


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < other[1] and other[0] < one[1]
