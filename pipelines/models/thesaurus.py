"""Words that a tiny CLIP takes for something else, each with a name that it knows: "dinosaur" is read as "t rex"."""

from __future__ import annotations

import re
from pathlib import Path

from pipelines.errors import BadInput
from pipelines.io import chinese
from pipelines.io.chinese import HAN

THESAURUS = "thesaurus.txt"  # beside a vocabulary: WORD, a tab, NAME, one pair a line
ENDS = " .!?。！？"
# what it is like, what it is, its face
CHINESE_THING = re.compile(rf"((?:{HAN}{{1,4}}的)?[小大]?)({HAN}+?)(脸?)")
# fmt: off
ABOUT_A_THING = frozenset((  # words beside a thing that leave it what it is
    "a", "an", "the", "my", "small", "little", "tiny", "big", "large", "huge", "cute", "happy", "red", "orange", "yellow",
    "green", "blue", "purple", "pink", "black", "white", "brown", "grey", "gray", "face",
))
# fmt: on


class Thesaurus:
    """Reads texts in words that are known: `names` gives each word that is not, of one or two parts, a name."""

    def __init__(self, names: dict[str, str]):
        self.names = names

    @classmethod
    def load(cls, path: Path) -> Thesaurus:
        """Read a file of lines WORD, tab, NAME; empty where there is none. BadInput for a damaged one."""
        if not path.exists():
            return cls({})
        try:
            lines = path.read_text("utf-8").splitlines()
            return cls(dict(line.split("\t", 1) for line in lines))
        except ValueError as error:
            raise BadInput("models.thesaurus_damaged", file=path.name) from error

    def known_as(self, text: str, unknown: frozenset[str] = frozenset()) -> str:
        """The text in words that are known; the text itself where nothing is to be changed.

        A thing that is named alone, or beside words such as "a small green", is looked up. Beside other words it is only
        where it is `unknown` and comes after such a word, because it may be part of a longer name, or none.
        """
        whole = text.strip(ENDS)
        if re.search(HAN, whole):
            thing = chinese.A.sub("", whole)
            if thing in self.names:
                return self.names[thing]
            match = CHINESE_THING.fullmatch(thing)
            name = match and self.names.get(match[2])
            return match[1] + name + match[3] if match and name else text
        words = whole.split()
        found = list[str]()
        k = 0
        while k < len(words):
            count, name = self._at(words, k, unknown)
            if name and found and found[-1].lower() == ("a" if name[0] in "aeiou" else "an"):
                found[-1] = "an" if name[0] in "aeiou" else "a"
            found += [name] if name else words[k : k + count]
            k += count
        return " ".join(found) if found != words else text

    def _at(self, words: list[str], k: int, unknown: frozenset[str]) -> tuple[int, str]:
        """How many words from the k-th on are one, and its name; "" for what stays."""
        for count in (2, 1):
            parts = [word.lower() for word in words[k : k + count]]
            name = self.names.get(" ".join(parts)) if len(parts) == count else None
            others = {word.lower() for word in words[:k] + words[k + count :]}
            is_thing = k > 0 and words[k - 1].lower() in ABOUT_A_THING
            if name and (others <= ABOUT_A_THING or (is_thing and unknown & set(parts))):
                return count, name
        return 1, ""
