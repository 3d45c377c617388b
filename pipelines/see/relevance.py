"""Relevance maps: where in a picture CLIP finds a text, told from what it says of the picture with parts hidden.

Windows are slid over the picture. Hiding what a text is about lowers its cosine, and a window alone keeps it only where
the text is about what it shows (occlusion, Zeiler & Fergus 2014; masks weighted by scores, Petsiuk et al. 2018). Only
`encode_image` is asked, so that every CLIP can be explained, whatever its image tower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.core.pipeline import Step
from pipelines.models.base import Clip
from pipelines.see.pictures import BATCH, Progress, quiet

GRID = 32  # values of a map along a side
WINDOW = 0.35  # of a side
PLACES = 6  # of the window along a side


@dataclass(frozen=True)
class Relevance:
    """Where a text is: `map` (h, w) float32 in [0, 1] on the CPU, 1 at its peak, 0 where it is no more than average.

    GRID values belong to the picture's longer side. `peak` is (x, y) in shares of the picture's width and height.
    """

    text: str
    map: Tensor
    peak: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """As JSON values; the map as rows of numbers from 0 to 100, from the top."""
        rows: list[list[int]] = cast(Any, (self.map * 100).round().int()).tolist()
        return {"text": self.text, "peak": list(self.peak), "map": rows}


@torch.no_grad()
def relevance(
    clip: Clip, picture: Tensor, texts: Tensor, words: Sequence[str], progress: Progress = quiet
) -> list[Relevance]:
    """A map for each of some texts.

    Args:
        clip: The CLIP to explain.
        picture: (1, 3, s, s) in [-1, 1].
        texts: (n, d) vectors of unit length of the texts.
        words: The n texts, for the results.
        progress: Told of every batch.

    Returns:
        A Relevance for each text, in order.
    """
    side = clip.config.image_size
    picture = F.interpolate(picture.to(clip.device), (side, side), mode="bilinear", antialias=True)
    windows = _windows(side).to(clip.device)  # (w, side, side)
    ground = _ground(picture)
    hidden: list[Tensor] = []
    alone: list[Tensor] = []
    for start in range(0, len(windows), BATCH // 2):
        mask = windows[start : start + BATCH // 2, None]
        both = torch.cat([picture + mask * (ground - picture), ground + mask * (picture - ground)])
        without, only = (clip.encode_image(both) @ texts.T).float().chunk(2)  # (batch, n) each
        hidden.append(without)
        alone.append(only)
        progress(Step("look", min(start + BATCH // 2, len(windows)), len(windows)))
    spread = _spread().to(clip.device)
    lost, kept = (
        torch.einsum("wn,whv->nhv", scores, spread) for scores in (-torch.cat(hidden), torch.cat(alone))
    )
    maps = _standard(_standard(lost) + _standard(kept)).clamp(min=0).cpu()
    return [_relevance(word, above) for word, above in zip(words, maps, strict=True)]


def of_picture(found: Relevance, size: tuple[int, int]) -> Relevance:
    """The part of a square's map that belongs to the picture of `size` (width, height) in the square's middle."""
    width, height = (max(1, round(GRID * side / max(size))) for side in size)
    left, top = (GRID - width) // 2, (GRID - height) // 2
    return _relevance(found.text, found.map[top : top + height, left : left + width])


def _relevance(text: str, above: Tensor) -> Relevance:
    """(h, w) of any scale, not below 0 -> a Relevance."""
    height, width = above.shape
    place = int(above.argmax())
    peak = ((place % width + 0.5) / width, (place // width + 0.5) / height)
    return Relevance(text, above / above.max().clamp(min=1e-6), peak)


def _standard(maps: Tensor) -> Tensor:
    """(n, h, w) with mean 0 and deviation 1 each; a flat one is 0."""
    apart = maps - maps.mean((1, 2), keepdim=True)
    return apart / apart.square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-6)


def _windows(side: int) -> Tensor:
    """(PLACES * PLACES, side, side) in [0, 1]: a square with soft edges at every place, row by row."""
    at = (torch.arange(side) + 0.5) / side
    bands = torch.sigmoid((WINDOW / 2 - (at - _centres()[:, None]).abs()) * 60)  # (PLACES, side)
    return torch.einsum("ay,bx->abyx", bands, bands).flatten(0, 1)


def _spread() -> Tensor:
    """(PLACES * PLACES, GRID, GRID): how much each window says of each place; the windows' shares of a place sum to 1.

    A Gaussian as wide as a window, so that the windows' edges do not show.
    """
    apart = (torch.arange(GRID) + 0.5) / GRID - _centres()[:, None]
    # (PLACES, GRID); the variance of a band is WINDOW^2 / 12
    bands = torch.exp(-6 * (apart / WINDOW).square())
    bands = bands / bands.sum(0)
    return torch.einsum("ay,bx->abyx", bands, bands).flatten(0, 1)


def _centres() -> Tensor:
    """(PLACES,) the windows' centres along a side, in shares of it."""
    return torch.linspace(WINDOW / 2, 1 - WINDOW / 2, PLACES)


def _ground(picture: Tensor) -> Tensor:
    """(1, 3, s, s) -> (1, 3, 1, 1): what hides a part, the median colour of the border."""
    border = torch.cat([picture[..., 0, :], picture[..., -1, :], picture[..., 0], picture[..., -1]], -1)
    return border.median(-1).values[..., None, None]
