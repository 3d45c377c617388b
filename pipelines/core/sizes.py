"""The size of a canvas, from a text such as 192x128, from a start picture, or the model's own."""

from __future__ import annotations

import re

from pipelines.errors import BadInput
from pipelines.io.images import open_picture

LONGEST = 512  # pixels; a larger start picture is reduced to it unless a size is given
LARGEST = 1024 * 1024  # pixels of a canvas


def check_size_form(size: str) -> None:
    """BadInput when a text is neither empty nor WIDTHxHEIGHT."""
    if size and not re.fullmatch(r"\s*\d{1,5}\s*[xX×]\s*\d{1,5}\s*", size):
        raise BadInput("optimize.size_form", size=size[:20])


def canvas_size(size: str, image: str, factor: int, usual: int) -> tuple[int, int]:
    """Width and height in pixels: `size` such as 192x128, else the start picture's, else `usual` twice.

    BadInput when `size` is not a multiple of `factor` or above LARGEST pixels, or the start picture too small.
    """
    if size:
        width, height = (int(number) for number in re.split("[xX×]", size))
        for name, side in (("width", width), ("height", height)):
            if side < 2 * factor or side % factor:
                good = max(2 * factor, round(side / factor) * factor)
                raise BadInput(
                    "optimize.side_not_multiple",
                    setting=name,
                    side=side,
                    factor=factor,
                    least=2 * factor,
                    near=good,
                )
        if width * height > LARGEST:
            raise BadInput(
                "optimize.canvas_too_large", width=width, height=height, pixels=width * height, most=LARGEST
            )
        return width, height
    if image:
        width, height = open_picture(image).size
        if (longer := max(width, height)) > LONGEST:
            width, height = (max(1, round(side * LONGEST / longer)) for side in (width, height))
        if min(width, height) < 2 * factor:
            raise BadInput("optimize.start_picture_too_small", width=width, height=height, least=2 * factor)
        return width, height
    return usual, usual
