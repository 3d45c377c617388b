"""Masks: pictures whose brightness or opacity says where another picture may change."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from pipelines.errors import BadInput
from pipelines.io.images import open_picture

CLEAR = 250  # of 255: an opacity below it makes a mask of a picture's opacity
NEARLY_BLACK = 8  # levels below it, as programs write black, are black


def read_mask(
    source: str, size: tuple[int, int], init_size: tuple[int, int] | None, *, may_be_black: bool = False
) -> Image.Image:
    """Read a mask: white where the picture may change, black where it must stay.

    `source` is a path or a data URI. The mask is the picture's opacity when some of it is transparent, else its
    brightness. `size` is the canvas's and `init_size` the start picture's, (width, height) in pixels; the mask must have
    the proportions of one of them. The result is a grey image in mode RGB, of `size`. BadInput when it cannot be opened,
    has other proportions, or is black everywhere, unless it `may_be_black`.
    """
    picture = open_picture(source)
    if not any(_alike(picture.size, other) for other in (size, init_size) if other):
        width, height = picture.size
        canvas = f"{size[0]}x{size[1]}"
        if init_size and init_size != size:
            start = f"{init_size[0]}x{init_size[1]}"
            raise BadInput("io.mask_size_or", width=width, height=height, canvas=canvas, start=start)
        raise BadInput("io.mask_size", width=width, height=height, canvas=canvas)
    painted = picture.mode == "RGBA" and int(np.asarray(picture.getchannel("A")).min()) < CLEAR
    grey = picture.getchannel("A") if painted else picture.convert("L")
    if grey.size != size:
        grey = ImageOps.fit(grey, size, Image.Resampling.BOX)
    if int(np.asarray(grey).max()) < NEARLY_BLACK and not may_be_black:
        raise BadInput("io.mask_black")
    return grey.convert("RGB")


def _alike(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes (width, height) have the same proportions, up to one pixel on a side."""
    return abs(size[0] * other[1] - size[1] * other[0]) <= max(*size, *other)
