"""The thesaurus of a tiny CLIP: words that it takes for something else, and what they mean by its teacher and by Unicode.

`python -m pipelines.training.clip.thesaurus` makes assets/tiny/thesaurus.txt anew:

1. English: nouns of WordNet and keywords of the training icons, of one or two words, that are no name of an icon. The
   teacher of the text tower says which thing each is nearest to: the mean of its cosines with the thing's names and with
   its names and keywords. Under SURE nothing is said.
2. Chinese: keywords (Unicode's CLDR) of two to four characters that belong to at most MOST_THINGS things and are no name.
   Of these things it is the one whose name has most of its characters.
3. What the CLIP finds right by itself is left out: its nearest name is among those that are as good by ALIKE, or has the
   word in it. A name that would be read otherwise stands there for itself: "red heart", since "heart" has another.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from pipelines.core.arguments import Parser
from pipelines.io.chinese import HAN
from pipelines.io.files import write_atomically
from pipelines.models.clip.network import Clip, read_texts
from pipelines.models.thesaurus import ABOUT_A_THING, THESAURUS, Thesaurus
from pipelines.training.clip.teacher import sentence_vectors
from pipelines.training.data.dataset import DATA_FILE, Dataset
from pipelines.training.data.icons import concept
from pipelines.training.frozen import load_clip

PACK = Path(__file__).parents[3] / "assets" / "tiny"
SURE, ALIKE, LIKELIEST = 0.62, 0.05, 3  # cosines; how many of the nearest things may be meant
MOST_THINGS = 5
ENGLISH, CHINESE = re.compile(r"[a-z]{3,}( [a-z]+)?"), re.compile(rf"{HAN}{{2,4}}")
NO_THING = re.compile(r"^(flag|letter|input|keycap|squared|latincap|clock|family|kiss|couple)\b|^.{1,2}$|\d")
NUMBERS = frozenset(("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"))


@dataclass
class Thing:
    """What icons of several styles show: its plain name in both languages, all its names, and its keywords."""

    name: str
    chinese: str
    names: set[str] = field(default_factory=set)
    keywords: set[str] = field(default_factory=set)
    chinese_keywords: dict[str, None] = field(default_factory=dict)  # in order


def things_of(emoji: Dataset) -> list[Thing]:
    """The things of the training icons."""
    things = dict[str, Thing]()
    for icon in (emoji.icons[k] for k in emoji.train):
        thing = things.setdefault(concept(icon), Thing(icon.name, icon.chinese))
        thing.chinese = thing.chinese or icon.chinese
        thing.names |= {icon.name, *icon.also}
        thing.keywords |= set(icon.keywords)
        thing.chinese_keywords |= dict.fromkeys(icon.chinese_keywords)
    return list(things.values())


def thesaurus_of(clip: Clip, emoji: Dataset) -> dict[str, str]:
    """Words -> names, in the order of the alphabet, English before Chinese."""
    things = things_of(emoji)
    known = {name for thing in things for name in thing.names}
    words = {*emoji.phrases, *(word for thing in things for word in thing.keywords)}
    words = {word for word in words - known - NUMBERS - ABOUT_A_THING if ENGLISH.fullmatch(word)}
    thesaurus = Thesaurus(_english(clip, things, sorted(words)) | _chinese(clip, things))
    known |= {thing.chinese for thing in things}
    staying = {name: name for name in known if thesaurus.known_as(name) != name}
    return dict(sorted((thesaurus.names | staying).items()))


def _english(clip: Clip, things: list[Thing], words: list[str]) -> dict[str, str]:
    texts = sorted({text for thing in things for text in thing.names | thing.keywords} | set(words))
    vectors = dict(zip(texts, sentence_vectors(texts), strict=True))

    def mean(of: set[str]) -> np.ndarray:
        total = np.sum([vectors[text] for text in sorted(of)], 0)
        return total / np.linalg.norm(total)

    named = np.stack([mean(thing.names) for thing in things])
    described = np.stack([mean(thing.names | thing.keywords) for thing in things])
    meant = np.stack([vectors[word] for word in words]) @ (named + described).T / 2
    sure = np.flatnonzero(meant.max(1) >= SURE)
    guessed = _nearest(clip, [words[k] for k in sure], [thing.name for thing in things])
    found = dict[str, str]()
    for k, guess in zip(sure.tolist(), guessed, strict=True):
        likeliest = np.argsort(-meant[k])[:LIKELIEST]
        right = {int(j) for j in likeliest if meant[k, j] > meant[k, likeliest[0]] - ALIKE}
        name = things[int(likeliest[0])].name
        says_it = set(words[k].split()) <= set(things[guess].name.split())
        if guess not in right and not says_it and not NO_THING.search(name):
            found[words[k]] = name
    return found


def _chinese(clip: Clip, things: list[Thing]) -> dict[str, str]:
    named = [thing for thing in things if thing.chinese]
    meaning = defaultdict[str, list[Thing]](list)
    for thing in named:
        for word in thing.chinese_keywords:
            meaning[word].append(thing)
    names = {thing.chinese for thing in named}
    words = [
        word
        for word in sorted(meaning)
        if CHINESE.fullmatch(word) and word not in names and len(meaning[word]) <= MOST_THINGS
    ]
    guessed = _nearest(clip, words, [thing.chinese for thing in named])

    def fitting(thing: Thing, word: str) -> tuple[float, int]:
        shared = len(set(word) & set(thing.chinese)) / len(set(word) | set(thing.chinese))
        return shared, -list(thing.chinese_keywords).index(word)

    return {
        word: max(meaning[word], key=lambda thing, word=word: fitting(thing, word)).chinese
        for word, guess in zip(words, guessed, strict=True)
        if named[guess].chinese not in {thing.chinese for thing in meaning[word]}
        and word not in named[guess].chinese
    }


def _nearest(clip: Clip, texts: list[str], names: list[str]) -> list[int]:
    """The number of the name nearest to each text, as networks that draw read both."""

    def vectors(of: list[str]) -> torch.Tensor:
        return torch.cat([read_texts(clip, of[k : k + 256]).vector for k in range(0, len(of), 256)])

    return (vectors(texts) @ vectors(names).T).argmax(1).tolist()


def main() -> None:
    """Write the thesaurus of a pack's CLIP."""
    parser = Parser(prog="python -m pipelines.training.clip.thesaurus", description=main.__doc__)
    parser.add_argument("--data", type=Path, default=DATA_FILE, help=f"made by launch.py data ({DATA_FILE})")
    parser.add_argument("--out", type=Path, default=PACK, help="the pack (assets/tiny)")
    options = parser.parse_args()
    names = thesaurus_of(load_clip(options.out, torch.device("cpu")), Dataset(options.data))
    text = "".join(f"{word}\t{name}\n" for word, name in names.items())
    write_atomically(options.out / THESAURUS, text.encode())


if __name__ == "__main__":
    main()
