"""Placing what was cut out on a canvas of the size that is asked for, with an outline if wanted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.export.enlarge import enlarged
from pipelines.export.presets import Form

FAINT = 8  # of 255: what is less opaque does not count as a part of the thing
OUTLINE = 40  # the outline is a canvas' side divided by this, and at least 2 pixels
OUTLINE_COLOUR = (255, 255, 255)
Box = tuple[int, int, int, int]


def box_of(pictures: Sequence[Image.Image]) -> Box:
    """The smallest box around what is seen in any of the RGBA pictures of one size; the whole where nothing is."""
    together = np.max([np.asarray(picture.getchannel("A")) for picture in pictures], 0)
    box = Image.fromarray(np.where(together > FAINT, 255, 0).astype(np.uint8)).getbbox()
    return box or (0, 0, *pictures[0].size)


def framed(picture: Image.Image, box: Box, form: Form, outline: bool = False) -> Image.Image:
    """What lies in the box of an RGBA picture, as large as the form has room for, in its middle.

    RGBA, or RGB where the form has a ground. A form of the whole keeps everything in its place, and without a side the
    picture's size.
    """
    if form.whole:
        if form.side:
            share = form.side / max(picture.size)
            picture = enlarged(picture, (round(picture.width * share), round(picture.height * share)))
        return outlined(picture, _width(max(picture.size))) if outline else picture
    edge = _width(form.side) if outline else 0
    room = form.side - 2 * (form.margin + edge)
    width, height = box[2] - box[0], box[3] - box[1]
    share = room / max(width, height)
    size = (max(1, round(width * share)), max(1, round(height * share)))
    thing = enlarged(picture.crop(box), size)
    around = 2 * (form.margin + edge)
    canvas_size = (form.side, form.side) if form.square else (size[0] + around, size[1] + around)
    canvas = Image.new("RGBA", canvas_size)
    canvas.paste(thing, ((canvas.width - size[0]) // 2, (canvas.height - size[1]) // 2))
    if outline:
        canvas = outlined(canvas, edge)
    if form.ground:
        canvas = Image.alpha_composite(Image.new("RGBA", canvas.size, form.ground), canvas).convert("RGB")
    return canvas


def together(pictures: Sequence[Image.Image]) -> Image.Image:
    """RGBA pictures of one size beside and below one another, in about as many rows as columns."""
    columns = math.ceil(math.sqrt(len(pictures)))
    width, height = pictures[0].size
    sheet = Image.new("RGBA", (columns * width, -(-len(pictures) // columns) * height))
    for k, picture in enumerate(pictures):
        sheet.paste(picture, (k % columns * width, k // columns * height))
    return sheet


def outlined(picture: Image.Image, width: int) -> Image.Image:
    """An RGBA picture over a white outline of `width` pixels, cut off at the picture's edges."""
    alpha = np.asarray(picture.getchannel("A"), np.float32) / 255
    beside = (width + 1 - _distance(alpha >= 0.5, width + 1)).clip(0, 1)
    ground = np.empty((*alpha.shape, 4), np.uint8)
    ground[..., :3] = OUTLINE_COLOUR
    ground[..., 3] = (beside * 255).round()
    return Image.alpha_composite(Image.fromarray(ground), picture)


def _width(side: int) -> int:
    return max(2, round(side / OUTLINE))


def _distance(inside: NDArray[np.bool_], most: int) -> NDArray[np.float32]:
    """(h, w) -> how far the nearest place inside is, in pixels, exact up to `most`: rows first, then columns."""
    far = float(most * most + 1)
    squared = np.where(inside, 0.0, far).astype(np.float32)
    for axis in (0, 1):
        padded = np.pad(squared, [(most, most) if k == axis else (0, 0) for k in (0, 1)], constant_values=far)
        length = squared.shape[axis]
        for by in range(-most, most + 1):
            part = padded.take(np.arange(most + by, most + by + length), axis)
            squared = np.minimum(squared, part + by * by)
    return np.sqrt(squared)
