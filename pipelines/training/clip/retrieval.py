"""How well CLIP finds the names of pictures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pipelines.models.base import Clip
from pipelines.training.data.compositing import to_images
from pipelines.training.data.dataset import Dataset, on_background


@torch.no_grad()
def encode_pictures(clip: Clip, pictures: np.ndarray) -> Tensor:
    """(n, s, s, 3) uint8 -> (n, d) of unit length."""
    chunks = []
    for start in range(0, len(pictures), 128):
        chunks.append(clip.encode_image(to_images(pictures[start : start + 128]).to(clip.device)))
    return torch.cat(chunks)


def retrieval(
    clip: Clip, emoji: Dataset, redraw: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> dict[str, float]:
    """Share of validation pictures on white whose plain name is the first, or among the first five, of all names.

    A language without names has no figures. `redraw` changes the pictures, (n, s, s, 3) uint8, before CLIP sees them.
    """
    icons = [emoji.icons[k] for k in emoji.validation]
    vectors = encode_pictures(clip, redraw(on_background(emoji.rgba[emoji.validation])))
    figures = {}
    for language, names in (
        ("", [icon.name for icon in icons]),
        ("_chinese", [icon.chinese for icon in icons]),
    ):
        rows = torch.tensor([k for k, name in enumerate(names) if name])
        if not len(rows):
            continue
        book = list(dict.fromkeys(name for name in names if name))
        target = torch.tensor([book.index(names[k]) for k in rows.tolist()])
        ranked = (vectors[rows] @ clip.encode_text(book).T).argsort(1, descending=True).cpu()
        for top in (1, 5):
            hit = (ranked[:, :top] == target[:, None]).any(1).float().mean().item()
            figures[f"R@{top}{language}"] = round(hit, 4)
    return figures
