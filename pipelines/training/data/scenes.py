"""Captioned pictures that are composed from icons, and views of a user's pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipelines.training.data.captions import COLOURS, caption, name_in_words
from pipelines.training.data.dataset import Dataset, Pictures, on_background
from pipelines.training.data.icons import may_be_mirrored

SMALLEST_PART = 0.7  # of a side
VIEWS = 8  # of each picture of a user, where scenes are made beforehand


@dataclass(frozen=True)
class Side:
    """Where a small thing is beside a large one: in words, and the middles of both as shares of the canvas."""

    english: str
    chinese: str
    small: tuple[float, float]
    large: tuple[float, float]


SIDES = (
    Side("left of", "左", (0.25, 0.5), (0.75, 0.5)),
    Side("right of", "右", (0.75, 0.5), (0.25, 0.5)),
    Side("above", "上", (0.5, 0.25), (0.5, 0.75)),
    Side("under", "下", (0.5, 0.75), (0.5, 0.25)),
)
COUNTS = {2: ("two", "两个"), 3: ("three", "三个"), 4: ("four", "四个")}


def scene_count(emoji: Dataset, most: int) -> int:
    """How many scenes are made beforehand: `most` of icons; of a user's pictures no more than VIEWS of each."""
    return most if emoji.of_things else min(most, VIEWS * len(emoji.train))


def scene_share(emoji: Dataset, share: float) -> float:
    """How many of the samples are scenes: `share` of those of icons; half of a user's, whose scenes are their views."""
    return share if emoji.of_things else 0.5


class Scenes:
    """Captioned pictures made from icons by a seeded generator: plain, on a colour, or composed of two or more.

    Each draw gives ((size, size, 3) uint8, caption, icon index or -1 for a composition). A user's pictures are never
    composed: what is not plain is a part of one that fills its square, mirrored where that stays true, and on a colour
    one that is cut out.
    """

    def __init__(
        self,
        emoji: Pictures,
        indices: np.ndarray,
        seed: int | np.random.Generator,
        plain: float = 0.6,
        coloured: float = 0.25,
    ):
        self.emoji, self.indices = emoji, indices
        self.plain, self.coloured = plain, coloured
        self.rng = np.random.default_rng(seed)
        self.size = emoji.rgba.shape[1]

    def __iter__(self) -> Iterator[tuple[np.ndarray, str, int]]:
        while True:
            for k in self.rng.permutation(self.indices):
                yield self.scene(int(k))

    def scene(self, k: int) -> tuple[np.ndarray, str, int]:
        """One scene about icon k."""
        rng, icon, dice = self.rng, self.emoji.icons[k], self.rng.random()
        if dice < self.plain:
            return on_background(self.emoji.rgba[k]), caption(icon, rng), k
        if self.emoji.opaque[k]:
            return self._part(k), caption(icon, rng), k
        background = list(COLOURS)[rng.integers(1, len(COLOURS))]
        colour = COLOURS[background][1]
        if dice < self.plain + self.coloured or not self.emoji.of_things:
            return on_background(self.emoji.rgba[k], colour), caption(icon, rng, background), k
        if rng.random() < 0.6:
            background, colour = "white", COLOURS["white"][1]
        picture, text = self._composition(k, int(self.rng.choice(self.indices)))
        chinese = text[1] if icon.chinese and text[1] and rng.random() < 0.25 else ""
        words = chinese or text[0]
        if background != "white":
            words = (
                f"{COLOURS[background][0]}背景上的{words}"
                if chinese
                else f"{words} on a {background} background"
            )
        return on_background(picture, colour), words, -1

    def _beside(self, first: Image.Image, second: Image.Image, side: Side) -> Image.Image:
        """The first one, small, on a side of the second one, which fills half."""
        canvas = Image.new("RGBA", (self.size, self.size))
        for drawing, length, (x, y) in (
            (first, self.size // 3, side.small),
            (second, self.size // 2 - 2, side.large),
        ):
            place = (round(x * self.size - length / 2), round(y * self.size - length / 2))
            canvas.paste(drawing.resize((length, length)), place)
        return canvas

    def _part(self, k: int) -> np.ndarray:
        """A square of at least SMALLEST_PART of picture k's side, (size, size, 3) uint8."""
        picture = Image.fromarray(self.emoji.rgba[k, ..., :3])
        side = self.size * self.rng.uniform(SMALLEST_PART, 1)
        left, top = self.rng.uniform(0, self.size - side, 2)
        box = (left, top, left + side, top + side)
        part = np.asarray(picture.resize((self.size, self.size), Image.Resampling.BICUBIC, box))
        turned = may_be_mirrored(self.emoji.icons[k]) and self.rng.random() < 0.5
        return part[:, ::-1] if turned else part

    def _composition(self, k: int, other: int) -> tuple[np.ndarray, tuple[str, str]]:
        """A transparent scene of icon k (and perhaps another), and its words in English and Chinese."""
        rng, icons = self.rng, self.emoji.icons
        canvas = Image.new("RGBA", (self.size, self.size))
        picture, other_picture = Image.fromarray(self.emoji.rgba[k]), Image.fromarray(self.emoji.rgba[other])
        name, chinese = name_in_words(icons[k], rng), icons[k].chinese
        kind = rng.integers(5)
        half, unit = self.size // 2, self.size / 16
        if kind == 4:
            second, chinese2 = name_in_words(icons[other], rng), icons[other].chinese
            side = SIDES[rng.integers(len(SIDES))]
            canvas = self._beside(picture, other_picture, side)
            zh = f"小小的{chinese}在{chinese2}的{side.chinese}边"
            return np.asarray(canvas), (
                f"small {name} {side.english} {second}",
                zh if chinese and chinese2 else "",
            )
        if kind == 0:  # two things side by side
            small, top = half - 2, int(self.size * 0.27)
            left = rng.random() < 0.5
            canvas.paste(picture.resize((small, small)), (1 if left else half + 1, top))
            canvas.paste(other_picture.resize((small, small)), (half + 1 if left else 1, top))
            second, chinese2 = name_in_words(icons[other], rng), icons[other].chinese
            if rng.random() < 0.4:
                english, zh = f"{name} and {second}", f"{chinese}和{chinese2}"
            else:
                side, seite = ("left", "左") if left else ("right", "右")
                english, zh = f"{name} {side} of {second}", f"{chinese}在{chinese2}的{seite}边"
            return np.asarray(canvas), (english, zh if chinese and chinese2 else "")
        if kind == 1:  # counted, in a row, or four in two rows
            count = int(rng.integers(2, 5))
            across = 2 if count == 4 and rng.random() < 0.5 else count
            small, rows = int((self.size - 2) / across), count // across
            for n in range(count):
                row, column = divmod(n, across)
                top = (self.size - rows * small) // 2 + row * small
                canvas.paste(picture.resize((small, small)), (1 + column * small, top))
            plural = name if name.endswith("s") else f"{name}s"
            return np.asarray(canvas), (
                f"{COUNTS[count][0]} {plural}",
                chinese and f"{COUNTS[count][1]}{chinese}",
            )
        small = int(unit * rng.integers(5, 8))
        if kind == 2:  # small, in the middle
            canvas.paste(picture.resize((small, small)), ((self.size - small) // 2, (self.size - small) // 2))
            return np.asarray(canvas), (f"small {name}", chinese and f"小小的{chinese}")
        left = rng.random() < 0.5
        canvas.paste(
            picture.resize((small, small)), (2 if left else self.size - small - 2, (self.size - small) // 2)
        )
        side, seite = ("left", "左") if left else ("right", "右")
        return np.asarray(canvas), (f"small {name} on the {side}", chinese and f"{seite}边的{chinese}")
