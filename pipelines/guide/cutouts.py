"""Disco's cuts: overviews of the whole picture, and inner cuts of random squares; some without colour."""

from __future__ import annotations

import torch
from torch import Tensor

from pipelines.clip.cutouts import Views, views_of

NOISE = 0.02  # standard deviation, in units of [-1, 1]


def guide_cutouts(
    picture: Tensor,
    overview: int,
    inner: int,
    size: int,
    generator: torch.Generator,
    power: float = 1.0,
    grey: float = 0.0,
) -> Tensor:
    """(1, 3, h, w) in [-1, 1] -> (overview + inner, 3, size, size), differentiable.

    Of the overviews every second one has no colour; of the inner cuts a share of `grey`. An inner cut's side is
    u^power (most - least) + least, with u uniform, from a view's own size to the picture's shorter side. All are turned by
    at most 10 degrees, mirrored by chance, changed a little in colour, and get noise. All random numbers come from
    `generator`, which is on the CPU.
    """
    shorter = min(picture.shape[-2:])
    least = min(size / shorter, 1.0)
    whole = Views((1.0, 1.0), "longer", 0.05, rotation=10, flip=True, colour=0.1)
    part = Views((least, 1.0), "shorter", 1.0, rotation=10, flip=True, colour=0.1, power=power)
    views = [
        views_of(picture, kind, count, size, generator, "border")
        for kind, count in ((whole, overview), (part, inner))
        if count
    ]
    batch = torch.cat(views)
    colourless = [k % 2 == 1 for k in range(overview)] + [k < round(grey * inner) for k in range(inner)]
    if any(colourless):
        mask = torch.tensor(colourless, device=batch.device)[:, None, None, None]
        batch = torch.where(mask, luma(batch), batch)
    noise = NOISE * torch.randn(batch.shape, generator=generator)
    return batch + noise.to(batch.device, batch.dtype)


def luma(pictures: Tensor) -> Tensor:
    """(n, 3, h, w) -> the same without colour: the luma of ITU-R BT.601 in all three channels."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=pictures.device, dtype=pictures.dtype)
    return (pictures * weights[:, None, None]).sum(1, keepdim=True).expand_as(pictures)
