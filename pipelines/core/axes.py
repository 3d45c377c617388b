"""The axes of a sheet as they are written: NAME=VALUE,VALUE or NAME=FIRST..LAST.

guidance=1,3,5             a setting and its values
seed=1..8                  whole numbers, both ends included
words=cat,dog,"a, b"       the first words of the prompt in the place of which the others come too
between=cat,dog            from the prompt with its first words to that with the others, in BETWEEN_STEPS by weights
use.clip=tiny-clip,other   a part of the pack and the models that have it
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass

from pipelines.errors import BadInput

MOST_VALUES = 8  # of one axis
WORDS = "words"  # the axis that exchanges words of the prompt
BETWEEN, BETWEEN_STEPS = "between", 5  # the axis from one prompt to another, and its places
USE = "use."  # begins the name of an axis over models


@dataclass(frozen=True)
class Axis:
    """One axis: what changes along it, and its values as they were written, at least one.

    `ends` are the words at both ends of the axis BETWEEN, whose values are the weights of the second, from 0 to 1.
    """

    name: str
    values: tuple[str, ...]
    ends: tuple[str, ...] = ()

    @property
    def part(self) -> str:
        """The part of the pack that changes along it; "" when it is a setting."""
        return self.name.removeprefix(USE) if self.name.startswith(USE) else ""

    def labels(self) -> list[str]:
        """What stands beside each row or above each column."""
        if self.ends:
            first, last = self.ends
            return [first, *(f"{float(value):.0%} {last}" for value in self.values[1:-1]), last]
        name = self.part or self.name
        whole = name in (WORDS, "prompt")
        return list(self.values) if whole else [f"{name} {value}" for value in self.values]


def parse_axis(text: str) -> Axis | None:
    """The axis that a text spells; None for the empty text.

    A value with commas stands in double quotes. Full-width marks are read as the plain ones. BadInput when the text has
    another form, a value twice, or more than MOST_VALUES values.
    """
    text = text.strip().translate(str.maketrans("＝，", "=,"))
    if not text:
        return None
    name, equals, rest = (part.strip() for part in text.partition("="))
    if not equals or not name or not rest:
        raise BadInput("core.axis_form", axis=text[:60])
    values = _range(rest) or [value.strip() for value in next(csv.reader([rest], skipinitialspace=True))]
    if not all(values):
        raise BadInput("core.axis_form", axis=text[:60])
    if len(values) > MOST_VALUES:
        raise BadInput("core.axis_too_long", axis=name[:40], count=len(values), most=MOST_VALUES)
    if name == BETWEEN and len(values) != 2:
        raise BadInput("core.axis_between", count=len(values))
    if len(set(values)) < len(values):
        double = next(value for value in values if values.count(value) > 1)
        raise BadInput("core.axis_value_twice", axis=name[:40], value=double[:40])
    if name == BETWEEN:
        weights = tuple(f"{k / (BETWEEN_STEPS - 1):g}" for k in range(BETWEEN_STEPS))
        return Axis(name, weights, tuple(values))
    return Axis(name.replace("-", "_") if not name.startswith(USE) else name, tuple(values))


def _range(text: str) -> list[str]:
    """The whole numbers of FIRST..LAST as texts, one more than MOST_VALUES of them at most; [] for other texts."""
    if not (ends := re.fullmatch(r"(\d{1,20})\s*\.\.\s*(\d{1,20})", text)):
        return []
    first, last = int(ends[1]), int(ends[2])
    step = 1 if first <= last else -1
    return [str(first + step * k) for k in range(min(abs(last - first) + 1, MOST_VALUES + 1))]
