"""The canvas of Optimize: its size, its masks and regions, its colours, and the gradients through it."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from pipelines.errors import BadInput
from pipelines.io.images import open_picture
from pipelines.models.vqgan.network import Vqgan

LONGEST = 512  # pixels; a larger start picture is reduced to it unless a size is given
LARGEST = 1024 * 1024  # pixels of a canvas


def straight_through(z: Tensor, vqgan: Vqgan) -> Tensor:
    """The nearest codes of z going forward, the identity going back (van den Oord et al. 2017)."""
    return vqgan.embed(vqgan.nearest(z.detach())) + (z - z.detach())


class _ClampWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, low: float, high: float) -> Tensor:
        context.save_for_backward(x)
        context.bounds = (low, high)
        return x.clamp(low, high)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        (x,) = context.saved_tensors
        outside = x - x.clamp(*context.bounds)
        return gradient * (gradient * outside >= 0), None, None


def clamp_with_gradient(x: Tensor, low: float, high: float) -> Tensor:
    """Clamp; going back, a value outside the bounds gets the gradient only where descent leads it back inside."""
    return _ClampWithGradient.apply(x, low, high)


def colourfulness(picture: Tensor) -> Tensor:
    """Hasler and Suesstrunk 2003 on (1, 3, h, w) in [-1, 1]: spread and distance from grey in two opponent colours."""
    red, green, blue = picture.unbind(1)
    a, b = red - green, (red + green) / 2 - blue
    spread = (a.var() + b.var() + 1e-8).sqrt()
    return spread + 0.3 * (a.mean().square() + b.mean().square() + 1e-8).sqrt()


def side_region(name: str, size: tuple[int, int]) -> Tensor:
    """(1, 1, h, w): one on the named half of the canvas, or in its middle."""
    height, width = size
    region = torch.zeros(1, 1, height, width)
    rows, columns = slice(None), slice(None)
    if name == "top":
        rows = slice(0, height // 2)
    elif name == "bottom":
        rows = slice(height // 2, None)
    elif name == "left":
        columns = slice(0, width // 2)
    elif name == "right":
        columns = slice(width // 2, None)
    else:
        rows, columns = slice(height // 4, -(-3 * height // 4)), slice(width // 4, -(-3 * width // 4))
    region[:, :, rows, columns] = 1
    return region


def only_inside(picture: Tensor, region: Tensor | None) -> Tensor:
    """The part of the picture around a region; gradients reach nothing outside the region."""
    assert region is not None
    picture = picture.detach() + region * (picture - picture.detach())
    rows, columns = (region[0, 0] > 0).any(1).nonzero(), (region[0, 0] > 0).any(0).nonzero()
    if not len(rows):
        return picture
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    return picture[:, :, top:bottom, left:right]


def eight_bits(picture: Tensor) -> Tensor:
    return (((picture.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1).contiguous()


def parse_palette(text: str) -> list[list[float]]:
    """`#rrggbb` colours, spaces or commas between them -> rows of three in [-1, 1]."""
    colours = text.replace(",", " ").split()
    for one in colours:
        if not re.fullmatch(r"#?[0-9a-fA-F]{6}", one):
            raise BadInput(f"palette {one[:20]!r} is not a colour such as #d9432f")
    if not 1 <= len(colours) <= 32:
        raise BadInput(f"palette has {len(colours)} colours; give 1 to 32 such as #d9432f #faf8f4")
    plain = [one.removeprefix("#") for one in colours]
    return [[int(one[k : k + 2], 16) / 127.5 - 1 for k in (0, 2, 4)] for one in plain]


def canvas_size(size: str, init: str, vqgan: Vqgan) -> tuple[int, int]:
    """Width and height of the result: `size` such as 192x128, else the start picture's, else the model's own.

    BadInput unless tokens can make them.
    """
    factor = vqgan.config.factor
    if size:
        width, height = (int(one) for one in re.split("[xX×]", size))
        for name, side in (("width", width), ("height", height)):
            if side < 2 * factor or side % factor:
                good = max(2 * factor, round(side / factor) * factor)
                raise BadInput(
                    f"{name} {side} is not a multiple of {factor} from {2 * factor} on; try {good}"
                )
        if width * height > LARGEST:
            raise BadInput(f"{width}x{height} are {width * height:,} pixels; the most is {LARGEST:,}")
        return width, height
    if init:
        width, height = open_picture(init).size
        if (longer := max(width, height)) > LONGEST:
            width, height = (max(1, round(side * LONGEST / longer)) for side in (width, height))
        if min(width, height) < 2 * factor:
            raise BadInput(
                f"the start picture is {width}x{height}; its sides must be at least {2 * factor}, or give a size"
            )
        return width, height
    return vqgan.config.image_size, vqgan.config.image_size


def token_grid(width: int, height: int, vqgan: Vqgan) -> tuple[int, int]:
    """Rows and columns of tokens that cover a canvas."""
    factor = vqgan.config.factor
    return -(-height // factor), -(-width // factor)
