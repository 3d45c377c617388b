"""Prompts for parts of the canvas: how they are written, the boxes that they name, and what a prompt's own words place.

    a dog @ left | a car @ right          TEXT @ PLACE
    an apple @ 1/3 | an apple @ 2/3       the first and the second of three, in rows of at most three
    a cat face @ low | a hat @ on         on the thing before it; "eyes" is across its eyes

"two cats and a dog", "a star left of a tree", "a cat wearing a hat", 两只猫 and 戴帽子的猫 are read as such places.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pipelines.core.prompts import Target, parse_regions, parse_terms, said
from pipelines.core.settings import AUTO, knob
from pipelines.errors import BadInput
from pipelines.io import chinese
from pipelines.io.chinese import HAN, MEASURES

TOGETHER = 0.3  # share of a walk in which things that were laid in places are drawn together
ALONE = 0.5  # of the steps of a walk, those of a thing alone
Box = tuple[float, float, float, float]  # left, top, width and height, as shares of the canvas
PLACES: dict[str, Box] = {
    "left": (0, 0, 0.5, 1),
    "right": (0.5, 0, 0.5, 1),
    "top": (0, 0, 1, 0.5),
    "bottom": (0, 0.5, 1, 0.5),
    "centre": (0.25, 0.25, 0.5, 0.5),
    "top-left": (0, 0, 0.5, 0.5),
    "top-right": (0.5, 0, 0.5, 0.5),
    "bottom-left": (0, 0.5, 0.5, 0.5),
    "bottom-right": (0.5, 0.5, 0.5, 0.5),
    "fill": (0.05, 0.05, 0.9, 0.9),
    "low": (0.12, 0.24, 0.76, 0.76),  # with room for what is on it
    "main": (0, 0.12, 0.74, 0.88),  # with room for what it holds
    "held": (0.56, 0.5, 0.44, 0.5),
}
UPON = ("on", "eyes")  # places on the thing before, by what is drawn of it
MOST = 6  # parts of a canvas
SMALL = 0.75  # of its box, a thing that is called small
IS_SMALL = re.compile(r"^((?:an?|the)\s+)?(?:(?:small|little|tiny)\s+|小小?的)", re.IGNORECASE)

COUNTS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
CHINESE_COUNTS = {"一": 1, "两": 2, "二": 2, "三": 3, "四": 4, "五": 5, "六": 6}
NO_S = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "mice": "mouse", "geese": "goose",
    "fish": "fish", "sheep": "sheep", "deer": "deer",
}  # fmt: skip
NUMBER = "|".join(COUNTS)
THING = rf"(?:(?:an?|the|{NUMBER}|[2-6])\s+)?(?:[\w'-]+\s+){{0,3}}?[\w'-]+"
BESIDE = re.compile(
    rf"({THING})\s+(?:(?:is|sits|stands|sitting|standing)\s+)?(?:(?:to|on|at)\s+the\s+)?(left|right)(?:\s+side)?\s+of\s+"
    rf"({THING})",
    re.IGNORECASE,
)
ABOVE = re.compile(rf"({THING})\s+(above|below|under|underneath|beneath)\s+(an?\s+{THING})", re.IGNORECASE)
NEXT_TO = re.compile(rf"({THING})\s+(?:next\s+to|beside)\s+({THING})", re.IGNORECASE)
ONE = r"(?:(?:an?|the)\s+)?(?:[\w'-]+\s+){0,2}?"
HEADWEAR = r"(?:hat|cap|crown|helmet|tiara|beret|beanie)"
EYEWEAR = r"(?:glasses|sunglasses|eyeglasses|spectacles|goggles)"
WEARING = re.compile(
    rf"({THING})\s+(?:(?:is\s+)?wearing|with|in)\s+({ONE}(?:({HEADWEAR})|{EYEWEAR}))", re.IGNORECASE
)
HOLDING = re.compile(
    rf"({THING})\s+(?:is\s+)?(?:(?:holding|carrying)\s+(?=an?\s|the\s)|eating\s+)({ONE}[\w'-]+)",
    re.IGNORECASE,
)
ON = re.compile(
    rf"({THING})\s+(?:(?:is\s+)?(?:sitting|standing|sits|stands)\s+)?on(?:\s+top\s+of)?\s+(an?\s+{THING})",
    re.IGNORECASE,
)
FACE = re.compile(r"\b(?:face|head)$|[脸头]$", re.IGNORECASE)
ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)
JOINED = re.compile(r"\s*,\s*(?:and\s+)?|\s+and\s+", re.IGNORECASE)
COUNTED = re.compile(rf"(an?|the|{NUMBER}|[2-6])\s+((?:[\w'-]+\s+){{0,2}}[\w'-]+)", re.IGNORECASE)
WITH = re.compile(r"\b(?:with|in|on|at|wearing|holding|background)\b", re.IGNORECASE)  # more than a thing
CHINESE_BESIDE = re.compile(rf"((?:{HAN}){{1,6}}?)在((?:{HAN}){{1,6}}?)的?([左右上下])(?:边|侧|面|方)")
CHINESE_WEAR = "(帽子?|礼帽|王冠|皇冠|头盔)|眼镜|墨镜|太阳镜"
CHINESE_WEARING = re.compile(rf"戴[着了]?((?:{HAN}){{0,3}}?(?:{CHINESE_WEAR}))的((?:{HAN}){{1,6}})")
CHINESE_HOLDING = re.compile(rf"[拿举抱吃][着了]?((?:{HAN}){{1,4}})的((?:{HAN}){{1,6}})")
CHINESE_COUNTED = re.compile(rf"([{''.join(CHINESE_COUNTS)}2-6])[{MEASURES}]((?:{HAN}){{1,4}})")
CHINESE_BARE = re.compile(rf"(?:(?!的|色)(?:{HAN})){{1,4}}")
COLOURS = {
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "black", "white", "brown", "grey", "gray",
}  # fmt: skip
CHINESE_JOINED = re.compile("[和与、，,]")
CHINESE_SIDES = {
    "左": ("left", "right"),
    "右": ("right", "left"),
    "上": ("top", "bottom"),
    "下": ("bottom", "top"),
}


@dataclass(frozen=True)
class Placed:
    """A thing in a part of the canvas: `text` says what, without its size; `box` is the part.

    One that is `upon` the thing before it, one of UPON or "", has that one's box.
    """

    text: str
    box: Box
    upon: str = ""

    def square(self, width: int, height: int) -> tuple[int, int, int]:
        """Left, top and side of the square that it fills on a canvas of pixels."""
        left, top, across, down = self.box
        side = round(min(across * width, down * height))
        return (
            round((left + across / 2) * width - side / 2),
            round((top + down / 2) * height - side / 2),
            side,
        )


def regions_knob() -> Any:
    """The field `regions`: what lies where; `check_regions` reads it."""
    return knob(
        AUTO[0],
        label=("what lies where", "各在哪里"),
        advanced=True,
        help="things drawn alone and laid in places: a dog @ left | a car @ right, 1/3, 2/3, 3/3 for a row, or "
        "cat face @ low | a hat @ on; auto reads the prompt, empty draws it whole",
        help_zh="先单独画、再摆放的东西：狗 @ left | 汽车 @ right，一行用 1/3、2/3、3/3，叠放用 猫脸 @ low | 帽子 @ on；"
        "auto 读提示词，留空则一起画",
    )


def check_regions(text: str) -> str:
    """The setting without white space around it. BadInput where it is none."""
    if text.strip() not in ("", AUTO[0]):
        read_regions(text)
    return text.strip()


def read_regions(text: str) -> list[Placed]:
    """The things of `TEXT @ PLACE | ...`, in order.

    BadInput for a place that there is not, for more than MOST, and for a thing upon nothing or upon what is upon another.
    """
    placed = list[Placed]()
    for region in parse_regions(text):
        words = region.target.text
        plain = IS_SMALL.sub(r"\1", words)
        if region.where in UPON:
            if not placed or placed[-1].upon:
                raise BadInput("core.region_upon", place=region.where)
            placed.append(Placed(plain, placed[-1].box, region.where))
        else:
            box = _box(region.where)
            placed.append(Placed(plain, box if plain == words else _shrunk(box)))
    if len(placed) > MOST:
        raise BadInput("core.too_many_regions", count=len(placed), most=MOST)
    return placed


def _box(place: str) -> Box:
    if place in PLACES:
        return PLACES[place]
    if (match := re.fullmatch(r"([1-9])\s*/\s*([1-9])", place)) and int(match[1]) <= int(match[2]) <= MOST:
        return _cell(int(match[1]) - 1, int(match[2]))
    raise BadInput("core.region_place", place=place[:40], known=", ".join((*PLACES, *UPON)))


def _cell(index: int, count: int) -> Box:
    """The cell `index` (from 0) of `count`: in one row, of four and more in two; a shorter second row is centred."""
    rows = 1 if count < 4 else 2
    across = -(-count // rows)
    row, column = divmod(index, across)
    indent = (across - min(across, count - row * across)) / 2
    return (column + indent) / across, row / rows, 1 / across, 1 / rows


def _shrunk(box: Box) -> Box:
    left, top, width, height = box
    return left + width * (1 - SMALL) / 2, top + height * (1 - SMALL) / 2, width * SMALL, height * SMALL


def places_in(
    prompt: str, is_known: Callable[[str], bool], known_as: Callable[[str], str] = lambda text: ""
) -> str:
    """The regions that a prompt's own words ask for, as `read_regions` reads them; "" for none.

    Several things side by side, one above, upon or worn by another, or a number of one thing. `is_known` tells whether
    the model has read a word, by which the singular of a plural is found, and `known_as` what it calls a thing, "" for
    the same.
    """
    terms = parse_terms(prompt)
    text = " ".join(terms[0][0].strip(" .!。！").split())
    if len(terms) > 1:
        return ""
    things = _beside(text) or _together(text) or _in_a_row(text, is_known)
    return " | ".join(f"{said(Target(known_as(thing) or thing))} @ {place}" for thing, place in things)


def proposed_regions(
    regions: str, prompt: str, whole: list[str], mixes_things: bool, read: Callable[[str], Reading]
) -> str:
    """The regions of a run: those that are set, for "auto" `places_in` of its prompt where the model mixes things.

    `whole` are settings that are used and under which nothing is laid; `read` is how the model reads a text. BadInput for
    regions that are set beside them.
    """
    if regions != AUTO[0]:
        if regions and whole:
            raise BadInput("core.regions_with", setting=whole[0])
        return regions
    if whole or not mixes_things:
        return ""
    return places_in(prompt, lambda word: not read(word).unknown, lambda text: read(text).known_as)


class Reading(Protocol):
    """What is asked of how a model reads a text: its unknown words, and what it calls a thing, "" for the same."""

    @property
    def unknown(self) -> list[str]:
        """Words that the model has not read."""
        ...

    @property
    def known_as(self) -> str:
        """The text in words that the model has read, where these are others."""
        ...


def _beside(text: str) -> list[tuple[str, str]]:
    """Two things on two sides, each with its place; [] where the text says no such thing."""
    if match := CHINESE_BESIDE.fullmatch(text):
        return list(zip((match[1], match[2]), CHINESE_SIDES[match[3]], strict=True))
    if match := BESIDE.fullmatch(text):
        first, side, second = match.groups()
        places = ("left", "right") if side.lower() == "left" else ("right", "left")
    elif match := ABOVE.fullmatch(text):
        first, side, second = match.groups()
        places = ("top", "bottom") if side.lower() == "above" else ("bottom", "top")
    elif match := NEXT_TO.fullmatch(text):
        (first, second), places = match.groups(), ("left", "right")
    else:
        return []
    if any(WITH.search(thing) or _count(thing) > 1 for thing in (first, second)):
        return []
    return list(zip((first, second), places, strict=True))


def _together(text: str) -> list[tuple[str, str]]:
    """A thing and what it wears, holds or is on, each with its place; [] where the text says no such thing."""
    text = chinese.A.sub("", text)
    if match := CHINESE_WEARING.fullmatch(text):
        worn, on_head, who = match.groups()
        return _worn(who, worn, bool(on_head))
    if match := CHINESE_HOLDING.fullmatch(text):
        return [(match[2], "main"), (match[1], "held")]
    if match := WEARING.fullmatch(text):
        who, worn, on_head = match.groups()
        things = _worn(who, worn, bool(on_head))
    elif match := HOLDING.fullmatch(text):
        who, worn = match.groups()
        things = [(who, "main"), (worn, "held")]
    elif match := ON.fullmatch(text):
        who, worn = match.groups()
        things = [(worn, "low"), (who, "on")]
    else:
        return []
    return [] if any(WITH.search(thing) or _count(thing) > 1 for thing in (who, worn)) else things


def _worn(who: str, worn: str, on_head: bool) -> list[tuple[str, str]]:
    """The face of who wears it, since a head is found there, and what is worn; [] for a face that is named as one."""
    if FACE.search(who):
        return []
    face = who + "脸" if re.search(HAN, who) else ARTICLE.sub("", who) + " face"
    return [(face, "low"), (worn, "on")] if on_head else [(face, "fill"), (worn, "eyes")]


def _count(thing: str) -> int:
    word = thing.split()[0].lower()
    return COUNTS.get(word, int(word) if word.isdecimal() else 1)


def _in_a_row(text: str, is_known: Callable[[str], bool]) -> list[tuple[str, str]]:
    """Things with articles or counts, or known words alone, each with its place in a row; [] for anything else."""
    if re.search(HAN, text):
        return _in_a_chinese_row(text)
    parts, row = JOINED.split(text), list[str]()
    bare = all(part.isalpha() and part.lower() not in COLOURS and is_known(part.lower()) for part in parts)
    if bare and " and " in text.lower():  # commas alone also stand between words about one thing
        return _spread(parts)
    for part in parts:
        if match := COUNTED.fullmatch(part):
            count, noun = _count(part), match[2]
            one = noun if count == 1 else _singular(noun, is_known)
            if WITH.search(noun) or one is None:
                return []
            article = match[1] if count == 1 else "an" if one[0].lower() in "aeiou" else "a"
            row += [f"{article} {one}"] * count
        else:
            return []
    return _spread(row)


def _in_a_chinese_row(text: str) -> list[tuple[str, str]]:
    row, listed = list[str](), "，" in text or "," in text  # as of words about one thing
    for part in CHINESE_JOINED.split(text):
        match = CHINESE_COUNTED.fullmatch(part)
        if match is None and not listed and CHINESE_BARE.fullmatch(part):
            row.append(part)
            continue
        if match is None:
            return []
        count = CHINESE_COUNTS[match[1]] if match[1] in CHINESE_COUNTS else int(match[1])
        row += [match[2]] * count
    return _spread(row)


def _spread(row: list[str]) -> list[tuple[str, str]]:
    if not 1 < len(row) <= MOST:
        return []
    return [(thing, f"{k + 1}/{len(row)}") for k, thing in enumerate(row)]


def _singular(plural: str, is_known: Callable[[str], bool]) -> str | None:
    """The singular of a noun with words around it, "red pair of shoes"; None for what is no plural that is known."""
    plural, of, rest = plural.partition(" of ")
    *before, noun = plural.split()
    word = noun.lower()
    one = NO_S.get(word)
    if one is None and word.endswith("s"):
        ends = [word[:-1], word[:-2]] + [word[:-3] + end for end in ("y", "f", "fe") if len(word) > 4]
        one = next((end for end in ends if end and is_known(end)), None)
    return None if one is None else " ".join([*before, one]) + of + rest


def texts_of(things: list[Placed]) -> list[str]:
    """What is drawn, each once: things with the same words look the same."""
    return list(dict.fromkeys(thing.text for thing in things))
