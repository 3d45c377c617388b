"""The terms of the loss besides the targets: distance from the anchor, smoothness, colours, symmetry."""

from __future__ import annotations

import torch
from torch import Tensor

from pipelines.core.prompts import parse_palette
from pipelines.optimize.canvas import resized
from pipelines.optimize.settings import OptimizeSettings


def regularizers(current: OptimizeSettings, picture: Tensor, anchor: Tensor | None) -> Tensor:
    """The weighted sum, a scalar, of the terms that the settings turn on.

    `picture` is (1, 3, h, w) in [-1, 1]; `anchor` is what `anchor_weight` compares it with, of the same or a larger size.
    """
    loss = torch.zeros((), device=picture.device)
    if current.anchor_weight and anchor is not None and not current.animate:
        apart = (picture - resized(anchor, picture.shape[-2:])).square().sum(1)
        loss = loss + current.anchor_weight * 0.3 * (apart / (apart + 0.04)).mean()  # Geman and McClure 1987
    if current.smooth:
        across, down = picture.diff(dim=3), picture.diff(dim=2)
        loss = loss + current.smooth * (across.square().mean() + down.square().mean())
    if current.colour:
        loss = loss - current.colour * 0.1 * colourfulness(picture)
    if current.palette:
        colours = torch.tensor(parse_palette(current.palette), device=picture.device)  # (k, 3)
        apart = (picture[:, None] - colours[None, :, :, None, None]).square().sum(2)  # (1, k, h, w)
        loss = loss + apart.amin(1).mean()
    if current.symmetry:
        loss = loss + current.symmetry * (picture - picture.flip(3)).square().mean()
    return loss


def colourfulness(picture: Tensor) -> Tensor:
    """Colourfulness, a scalar, of (1, 3, h, w) in [-1, 1]: spread and mean of two opponent colours.

    Hasler and Suesstrunk 2003, "Measuring colourfulness in natural images".
    """
    red, green, blue = picture.unbind(1)
    a, b = red - green, (red + green) / 2 - blue
    spread = (a.var() + b.var() + 1e-8).sqrt()
    return spread + 0.3 * (a.mean().square() + b.mean().square() + 1e-8).sqrt()
