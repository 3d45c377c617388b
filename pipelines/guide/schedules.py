"""Numbers that change during a run, in the forms of Disco Diffusion.

5000                            the same throughout
[12]*400+[4]*600                along the noise: the first 400 of 1000 parts, then 600
0: (1), 30: (1.05)              along an animation: frame: (number), linear in between
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, groupby
from typing import Any, cast

from pipelines.errors import BadInput
from pipelines.io.values import is_list

NUMBER = r"-?(?:\d+(?:\.\d*)?|\.\d+)"
PIECE = re.compile(rf"\s*\[\s*({NUMBER})\s*\]\s*\*\s*(\d{{1,6}})\s*")
A_NUMBER = re.compile(r"[-+]?(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})(?:[eE][-+]?\d{1,2})?")
MOST = 2**64
KEY = re.compile(rf"\s*(\d{{1,6}})\s*:\s*\(\s*({NUMBER})\s*\)\s*")


@dataclass(frozen=True)
class Schedule:
    """Numbers in order, each up to a share of the way, the last one up to 1."""

    values: tuple[float, ...]
    ends: tuple[float, ...]

    def at(self, progress: float) -> float:
        """The number at a share of the way, `progress` in [0, 1)."""
        return self.values[min(bisect_right(self.ends, progress), len(self.values) - 1)]


@dataclass(frozen=True)
class Keyframes:
    """(frame, number) in order of frames."""

    keys: tuple[tuple[int, float], ...]

    def at(self, frame: int) -> float:
        """The number at a frame: linear between two keys, that of the nearest key outside them."""
        before, value = self.keys[0]
        for key, number in self.keys:
            if key >= frame:
                if key == before:
                    return number
                share = (frame - before) / (key - before)
                return value + max(share, 0.0) * (number - value)
            before, value = key, number
        return value


@lru_cache(maxsize=256)
def parse_schedule(name: str, text: str, low: float, high: float) -> Schedule:
    """A number, or pieces `[NUMBER]*PARTS` joined by +, of which all parts together are the whole way.

    BadInput names the setting when the text is neither, or a number is not within [low, high].
    """
    if re.fullmatch(rf"\s*{NUMBER}\s*", text):
        pieces = [(float(text), 1)]
    else:
        matches = [PIECE.fullmatch(part) for part in text.split("+")]
        if not all(matches):
            raise BadInput("guide.schedule_form", setting=name, text=text[:40])
        pieces = [(float(match[1]), int(match[2])) for match in matches if match]
    total = sum(parts for _, parts in pieces)
    if not total:
        raise BadInput("guide.schedule_form", setting=name, text=text[:40])
    _check(name, [value for value, _ in pieces], low, high)
    ends = [parts / total for parts in accumulate(parts for _, parts in pieces)]
    return Schedule(tuple(value for value, _ in pieces), tuple(ends))


@lru_cache(maxsize=256)
def parse_keyframes(name: str, text: str, low: float, high: float) -> Keyframes:
    """A number, or keys `FRAME: (NUMBER)` separated by commas.

    BadInput names the setting when the text is neither, frames do not increase, or a number is not within [low, high].
    """
    if re.fullmatch(rf"\s*{NUMBER}\s*", text):
        keys = [(0, float(text))]
    else:
        matches = [KEY.fullmatch(part) for part in text.split(",")]
        if not all(matches):
            raise BadInput("guide.keyframes_form", setting=name, text=text[:40])
        keys = [(int(match[1]), float(match[2])) for match in matches if match]
    frames = [frame for frame, _ in keys]
    if frames != sorted(set(frames)):
        raise BadInput("guide.keyframes_order", setting=name)
    _check(name, [value for _, value in keys], low, high)
    return Keyframes(tuple(keys))


def _check(name: str, values: list[float], low: float, high: float) -> None:
    for value in values:
        if not low <= value <= high:
            raise BadInput("guide.number_out_of_range", setting=name, value=value, least=low, most=high)


# ------------------------------------------------------------------------------------------- as other programs write them


def as_number(value: object) -> int | float | None:
    """A number, or the one that a text spells; None for anything else. Beyond MOST it is infinite."""
    if isinstance(value, str) and A_NUMBER.fullmatch(text := value.strip()):
        value = float(text) if set(text) & set(".eE") else int(text)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return math.inf if abs(value) > MOST else value


def as_text(number: float) -> str:
    """A number as it is written here, without an exponent."""
    return f"{number:.10f}".rstrip("0").rstrip(".") if math.isfinite(number) else str(number)


def as_schedule(value: Any) -> Any:
    """A number, a list of numbers in equal parts, or the text of either, as the text of a schedule.

    None for a text that is no schedule, as "auto"; other values as they are.
    """
    if (number := as_number(value)) is not None:
        return as_text(number)
    if isinstance(value, str) and re.fullmatch(r"\s*\[[^\[\]]*,[^\[\]]*\]\s*", value):
        value = value.strip().strip("[]").split(",")
    if is_list(value):
        numbers = [as_number(part) for part in cast("list[object]", value)]
        if None in numbers or not numbers:
            return cast(Any, value)
        runs = [(number or 0.0, len(list(run))) for number, run in groupby(numbers)]
        return "+".join(f"[{as_text(number)}]*{count}" for number, count in runs)
    return value if not isinstance(value, str) or "[" in value else None


def as_keyframes(value: Any) -> Any:
    """A number, or the text of keyframes in any order and with any marks between them, as the text of keyframes.

    Other texts and values as they are.
    """
    if (number := as_number(value)) is not None:
        return as_text(number)
    keys = re.findall(r"(\d{1,6})\s*:\s*\(([^()]*)\)", value) if isinstance(value, str) else []
    # of a frame that is named twice, the last
    numbers = {int(frame): as_number(text) for frame, text in keys}
    if not numbers or None in numbers.values():
        return value
    return ", ".join(f"{frame}: ({as_text(number or 0.0)})" for frame, number in sorted(numbers.items()))
