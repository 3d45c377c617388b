"""What trainings of networks that draw from a text share: the prompts of their sheets, and how often CLIP agrees."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from pipelines.models.base import Clip
from pipelines.models.prior.network import UNKNOWN_STYLE
from pipelines.training.clip.retrieval import encode_pictures
from pipelines.training.data.dataset import Dataset
from pipelines.training.data.icons import Icon

SHEET_PROMPTS = (  # fixed before any picture was seen
    *("red heart", "pizza", "rocket", "dog face", "grinning face", "angry face", "panda", "frog"),
    *("birthday cake", "christmas tree", "sunglasses", "a green frog with a crown", "umbrella", "guitar"),
    *("castle", "red apple", "two stars", "house on a blue background", "cat and moon", "sunflower"),
    *("生日蛋糕", "蓝色的鱼", "小猫", "雪人"),
)


def sheet_prompts(data: Dataset, fixed: Sequence[str]) -> list[str]:
    """The prompts of a sheet: the fixed ones for emoji; of a user's pictures half as many of their own captions."""
    if data.of_things:
        return list(fixed)
    names = list(dict.fromkeys(data.icons[k].name for k in data.train))
    count = min(len(names), max(1, len(fixed) // 2))
    return [names[k * len(names) // count] for k in range(count)]


def style_numbers(data: Dataset, icons: Sequence[Icon]) -> list[int]:
    """The style that a network is told for each picture: 1 for the first, UNKNOWN_STYLE for one without."""
    return [1 + data.styles.index(icon.style) if icon.style else UNKNOWN_STYLE for icon in icons]


def named_right(clip: Clip, emoji: Dataset, draw: Callable[[list[str]], Tensor]) -> dict[str, float]:
    """How often CLIP finds the name of one drawn picture first, or among the first five, of all training names.

    The names are the first 96 that at least four styles draw, in the order of a fixed shuffle. `draw` gives a picture
    for each prompt, (n, 3, h, w) in [-1, 1].
    """
    styles: dict[str, set[str]] = {}
    for k in emoji.train:
        styles.setdefault(emoji.icons[k].name, set()).add(emoji.icons[k].style)
    common = sorted(name for name, known in styles.items() if len(known) >= 4) or sorted(styles)
    names = [common[k] for k in np.random.default_rng(0).permutation(len(common))[:96]]
    pictures = draw(names).add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    every = sorted(styles)
    cosines = encode_pictures(clip, pictures) @ clip.encode_text(every).T
    target = torch.tensor([every.index(name) for name in names], device=cosines.device)
    place = (cosines > cosines.gather(1, target[:, None])).sum(1)
    return {f"CLIP top-{top}": round((place < top).float().mean().item(), 4) for top in (1, 5)}
