"""The axes of a sheet as they are written: NAME=VALUE,VALUE or NAME=FIRST..LAST.

guidance=1,3,5             a setting and its values
seed=1..8                  whole numbers, both ends included; also seed=1-8, as A1111 writes it
guidance=1-3 (+0.5)        from 1 to 3 by steps of 0.5; guidance=1-3 [5] five numbers from 1 to 3
words=cat,dog,"a, b"       the first words of the prompt in the place of which the others come too
between=cat,dog            from the prompt with its first words to that with the others, in BETWEEN_STEPS by weights
use.clip=tiny-clip,other   a part of the pack and the models that have it
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from decimal import Decimal

from pipelines.core.prompts import FULL_WIDTH
from pipelines.errors import BadInput

MOST_VALUES = 8  # of one axis
WORDS = "words"  # the axis that exchanges words of the prompt
MARKS = str.maketrans("＝，“”", '=,""')  # what keyboards type -> what is meant
RANGE = re.compile(
    r"(?P<first>-?\d{1,20}(?:\.\d{1,6})?)\s*(?:-|\.{2,3}|…)\s*(?P<last>-?\d{1,20}(?:\.\d{1,6})?)"
    r"(?:\s*\(\s*(?P<step>[-+]?\d{1,20}(?:\.\d{1,6})?)\s*\)|\s*\[\s*(?P<count>\d{1,3})\s*\])?"
)
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

    A value with commas stands in double quotes; one comma at the end counts for nothing. Full-width marks are read as the
    plain ones. BadInput when the text has another form, a value twice, or more than MOST_VALUES values.
    """
    text = " ".join(text.translate(MARKS).split())
    if not text:
        return None
    name, equals, rest = (part.strip() for part in text.partition("="))
    if not equals or not name or not rest:
        raise BadInput("core.axis_form", axis=text[:60])
    name = name if name.startswith(USE) else name.replace("-", "_").lower()
    whole = name in (WORDS, BETWEEN, "prompt") or name.startswith(USE)
    values = ([] if whole else _range(rest.translate(FULL_WIDTH))) or _listed(rest)
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
    return Axis(name, tuple(values))


def _listed(text: str) -> list[str]:
    """The values between commas, without an empty one at the end. A text that is too long for a table is one value."""
    try:
        values = [value.strip() for value in next(csv.reader([text], skipinitialspace=True))]
    except csv.Error:
        return [text]
    return values[:-1] if len(values) > 1 and not values[-1] and not text.endswith('"') else values


def _range(text: str) -> list[str]:
    """The numbers of a range as texts, one more than MOST_VALUES of them at most; [] for other texts."""
    if not (found := RANGE.fullmatch(text)):
        return []
    first, last = Decimal(found["first"]), Decimal(found["last"])
    if found["count"]:
        count = int(found["count"])
        step = (last - first) / max(count - 1, 1)
    else:
        whole = first == first.to_integral() and last == last.to_integral()
        step = abs(Decimal(found["step"] or (1 if whole else 0))) * (1 if first <= last else -1)
        count = int((last - first) / step) + 1 if step else 0
    if count < 1:
        return []
    numbers = [first + step * k for k in range(min(count, MOST_VALUES + 1))]
    return list(dict.fromkeys(f"{number.normalize():f}" for number in numbers))
