"""Prompts of several parts, and the same prompts with exactly one part changed, which a right picture must not fit better.

Forty prompts, each with three contrasts, so a blind judge is right in a quarter: a thing on a coloured background (two
other colours, another thing), a small thing left or right of another (the other side, another small thing, another
neighbour), and two to four of a kind (the other numbers, another thing).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipelines.training.data.captions import COLOURS
from pipelines.training.data.dataset import on_background
from pipelines.training.data.scenes import COUNTS

ICONS = {  # what a thing is called in the validation style, where that is another name
    "apple": "red apple",
    "car": "automobile",
    "cat": "cat face",
    "dog": "dog face",
    "frog": "frog face",
    "heart": "red heart",
    "tree": "deciduous tree",
}
ON_BACKGROUND = (
    ("red heart", "blue"),
    ("banana", "pink"),
    ("green apple", "purple"),
    ("rocket", "yellow"),
    ("cat", "green"),
    ("sunflower", "black"),
    ("fish", "red"),
    ("pizza", "blue"),
    ("key", "pink"),
    ("mushroom", "purple"),
    ("blue heart", "yellow"),
    ("ghost", "green"),
    ("frog", "black"),
    ("dolphin", "red"),
)
BESIDE = (
    ("dog", "car"),
    ("cat", "house"),
    ("star", "tree"),
    ("banana", "pear"),
    ("fish", "ship"),
    ("heart", "rose"),
    ("key", "door"),
    ("bird", "house"),
    ("rocket", "sun"),
    ("mushroom", "frog"),
    ("crown", "lemon"),
    ("pizza", "ghost"),
    ("balloon", "bus"),
)
COUNTED = (
    (3, "apple"),
    (2, "cat"),
    (4, "star"),
    (2, "heart"),
    (3, "banana"),
    (4, "balloon"),
    (2, "dog"),
    (3, "rose"),
    (4, "lemon"),
    (2, "key"),
    (3, "rocket"),
    (4, "mushroom"),
    (2, "crown"),
)


@dataclass(frozen=True)
class Composition:
    """One prompt, its contrasts, and the parts of which a true picture of it is made."""

    kind: str  # "background", "side" or "count"
    prompt: str
    contrasts: tuple[str, ...]
    things: tuple[str, ...]
    part: str | int  # the background, the side of the first thing, or the count

    @property
    def texts(self) -> list[str]:
        """The right prompt first."""
        return [self.prompt, *self.contrasts]


def compositions() -> list[Composition]:
    """All forty, the same every time."""
    return [*_backgrounds(), *_sides(), *_counts()]


def _backgrounds() -> list[Composition]:
    made = []
    for k, (name, colour) in enumerate(ON_BACKGROUND):
        (_, second), (other_name, third) = (ON_BACKGROUND[(k + step) % len(ON_BACKGROUND)] for step in (3, 5))
        contrasts = tuple(
            f"{subject} on a {background} background"
            for subject, background in ((name, second), (name, third), (other_name, colour))
        )
        made.append(Composition("background", f"{name} on a {colour} background", contrasts, (name,), colour))
    return made


def _sides() -> list[Composition]:
    made = []
    for k, (small, large) in enumerate(BESIDE):
        side, opposite = ("left", "right") if k % 2 == 0 else ("right", "left")
        strangers = BESIDE[(k + 5) % len(BESIDE)]
        contrasts = (
            f"a small {small} {opposite} of a {large}",
            f"a small {strangers[0]} {side} of a {large}",
            f"a small {small} {side} of a {strangers[1]}",
        )
        made.append(
            Composition("side", f"a small {small} {side} of a {large}", contrasts, (small, large), side)
        )
    return made


def _counts() -> list[Composition]:
    made = []
    for k, (count, name) in enumerate(COUNTED):
        other_name = COUNTED[(k + 5) % len(COUNTED)][1]
        contrasts = [f"{COUNTS[n][0]} {name}s" for n in COUNTS if n != count]
        contrasts.append(f"{COUNTS[count][0]} {other_name}s")
        made.append(Composition("count", f"{COUNTS[count][0]} {name}s", tuple(contrasts), (name,), count))
    return made


def paint(composition: Composition, icons: dict[str, np.ndarray]) -> np.ndarray:
    """A true picture of a composition, laid out as the training scenes are, from (s, s, 4) icons by name: (s, s, 3)."""
    drawings = [icons[ICONS.get(name, name)] for name in composition.things]
    size = len(drawings[0])
    if composition.kind == "background":
        return on_background(drawings[0], COLOURS[str(composition.part)][1])
    canvas = Image.new("RGBA", (size, size))

    def paste(drawing: np.ndarray, width: int, left: int) -> None:
        canvas.paste(Image.fromarray(drawing).resize((width, width)), (left, (size - width) // 2))

    if composition.kind == "side":
        small, large = size // 3, size // 2 - 2
        on_left = composition.part == "left"
        paste(drawings[0], small, size // 12 if on_left else size - small - size // 12)
        paste(drawings[1], large, size - large - 1 if on_left else 1)
    else:
        width = (size - 2) // int(composition.part)
        for k in range(int(composition.part)):
            paste(drawings[0], width, 1 + k * width)
    return on_background(np.asarray(canvas))
