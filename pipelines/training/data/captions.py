"""What an artist might type for a picture, in English and Chinese."""

from __future__ import annotations

import numpy as np

from pipelines.training.data.icons import ICON_SETS, Icon

COLOURS = {
    "white": ("白色", (255, 255, 255)),
    "black": ("黑色", (24, 24, 28)),
    "grey": ("灰色", (150, 150, 152)),
    "red": ("红色", (214, 48, 49)),
    "orange": ("橙色", (245, 146, 46)),
    "yellow": ("黄色", (250, 214, 70)),
    "green": ("绿色", (76, 175, 80)),
    "light blue": ("浅蓝色", (158, 214, 250)),
    "blue": ("蓝色", (46, 110, 214)),
    "purple": ("紫色", (137, 76, 190)),
    "pink": ("粉色", (250, 168, 200)),
    "brown": ("棕色", (130, 88, 60)),
}


def name_in_words(icon: Icon, rng: np.random.Generator) -> str:
    """One of the icon's English names; the plain name most of the time."""
    if icon.also and rng.random() < 0.3:
        return icon.also[rng.integers(len(icon.also))]
    return icon.name


def caption(
    icon: Icon,
    rng: np.random.Generator,
    background: str = "white",
    chinese: bool | None = None,
    styled: float = 0.3,
) -> str:
    """What an artist might type for this icon, in English or Chinese; a white background goes without saying.

    `styled` is the share of texts that name the style. A user's picture is told in one of its own captions.
    """
    if icon.style not in ICON_SETS:
        return _own_caption(icon, rng, background)
    chinese = (
        bool(icon.chinese) and rng.random() < 0.25 if chinese is None else chinese and bool(icon.chinese)
    )
    style = ICON_SETS[icon.style]
    words = style.chinese if chinese else style.english
    keywords = icon.chinese_keywords if chinese else icon.keywords
    name = icon.chinese if chinese else name_in_words(icon, rng)
    dice = rng.random(4)
    if keywords and dice[0] < 0.25:  # keywords beside the name, or (rarely) alone
        chosen = [keywords[k] for k in rng.permutation(len(keywords))[: rng.integers(1, 4)]]
        name = ("，" if chinese else ", ").join(chosen if dice[0] < 0.06 else [name, *chosen])
    if words and dice[1] < styled:
        name = f"{words}的{name}" if chinese else f"{words} {name}"
    if not chinese and dice[2] < 0.2 and not name.startswith("flag"):
        name = f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
    if background != "white" or dice[3] < 0.04:
        name = (
            f"{COLOURS[background][0]}背景上的{name}" if chinese else f"{name} on a {background} background"
        )
    return name


def _own_caption(icon: Icon, rng: np.random.Generator, background: str) -> str:
    """One of the captions that a user gave a picture, with the colour behind it unless that is white."""
    captions = (icon.name, *icon.also)
    words = captions[rng.integers(len(captions))]
    if background == "white":
        return words
    if any("\u4e00" <= letter <= "\u9fff" for letter in words):
        return f"{COLOURS[background][0]}背景上的{words}"
    return f"{words} on a {background} background"
