"""The terms of Disco's loss besides CLIP's, each a scalar of a picture (1, 3, h, w) in about [-1, 1]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.guide.settings import GuideSettings

LEVELS = 3  # of `unlikeness`, each at half the side


def total_variation(picture: Tensor) -> Tensor:
    """The mean squared difference of neighbouring pixels, across and down."""
    padded = F.pad(picture, (0, 1, 0, 1), "replicate")
    across = padded[..., :-1, 1:] - padded[..., :-1, :-1]
    down = padded[..., 1:, :-1] - padded[..., :-1, :-1]
    return (across.square() + down.square()).mean()


def out_of_range(picture: Tensor) -> Tensor:
    """The mean squared distance from [-1, 1]."""
    return (picture - picture.clamp(-1, 1)).square().mean()


def saturation(picture: Tensor) -> Tensor:
    """The mean distance from [-1, 1], which also pushes values that are only a little outside."""
    return (picture - picture.clamp(-1, 1)).abs().mean()


def unlikeness(picture: Tensor, other: Tensor) -> Tensor:
    """How unlike two pictures are: the mean squared difference at LEVELS sizes. Disco takes LPIPS, which needs a VGG."""
    apart = picture - other
    loss = apart.square().mean()
    for _ in range(LEVELS - 1):
        apart = F.avg_pool2d(apart, 2, ceil_mode=True, count_include_pad=False)
        loss = loss + apart.square().mean()
    return loss / LEVELS


def regularizers(settings: GuideSettings, picture: Tensor, base: Tensor | None, likeness: float) -> Tensor:
    """The weighted sum of the terms that the settings turn on. `base` is what `likeness` weighs the unlikeness to."""
    loss = torch.zeros((), device=picture.device)
    if settings.tv_scale:
        loss = loss + settings.tv_scale * total_variation(picture)
    if settings.range_scale:
        loss = loss + settings.range_scale * out_of_range(picture)
    if settings.sat_scale:
        loss = loss + settings.sat_scale * saturation(picture)
    if likeness and base is not None:
        loss = loss + likeness * unlikeness(picture, base)
    return loss
