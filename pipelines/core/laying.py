"""Pictures of single things, laid on one canvas in their places."""

from __future__ import annotations

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from pipelines.core.regions import Placed

WHITE = "#ffffff"
LIKE_PAPER = 60  # sums of differences of a pixel's channels, of 255 each, up to which paper goes on
FAR_FROM_PAPER = (255, 0, 255)
WIDTH = {"on": 0.66, "eyes": 0.8}  # of a thing upon another, in widths of that one
SUNK = 0.2  # of the height of the thing below, which one that is on it covers
EYES = 0.48  # of the height of a face, from its top


def laid(
    things: list[Placed], drawn: dict[str, list[Image.Image]], size: tuple[int, int]
) -> list[Image.Image]:
    """Canvases of `size` (width, height) in pixels with all things in their places, of the pictures of each text.

    On white paper the darker of two things is seen, so that no edge of a picture is. What is upon a thing covers it.
    """
    count = len(next(iter(drawn.values())))
    return [
        _canvas(things, {text: pictures[row] for text, pictures in drawn.items()}, size)
        for row in range(count)
    ]


def _canvas(things: list[Placed], drawn: dict[str, Image.Image], size: tuple[int, int]) -> Image.Image:
    canvas = below = Image.new("RGB", size, WHITE)
    for thing in things:
        picture = drawn[thing.text].convert("RGB")
        if thing.upon:
            _lay_upon(canvas, below, picture, thing.upon)
            continue
        left, top, side = thing.square(*size)
        below = Image.new("RGB", size, WHITE)
        below.paste(picture.resize((side, side), Image.Resampling.LANCZOS), (left, top))
        canvas = ImageChops.darker(canvas, below)
    return canvas


def _lay_upon(canvas: Image.Image, below: Image.Image, picture: Image.Image, upon: str) -> None:
    """Paste what a picture shows without its paper, where the thing on the canvas `below` has its top or its eyes."""
    ink = _ink(picture)
    thing, cut = _ink(below).getbbox(), ink.getbbox()
    if thing is None or cut is None:
        return
    left, top, right, bottom = thing
    width = WIDTH[upon] * (right - left)
    height = width * (cut[3] - cut[1]) / (cut[2] - cut[0])
    if upon == "on":
        lowest = top + SUNK * (bottom - top)
        smaller = min(1, lowest / height)  # the canvas ends above
        width, height = width * smaller, height * smaller
        above = lowest - height
    else:
        above = top + EYES * (bottom - top) - height / 2
    shape = max(round(width), 1), max(round(height), 1)
    where = round((left + right - width) / 2), round(above)
    mask = ink.filter(ImageFilter.MinFilter(3)).crop(cut).resize(shape, Image.Resampling.BILINEAR)
    canvas.paste(picture.crop(cut).resize(shape, Image.Resampling.LANCZOS), where, mask)


def _ink(picture: Image.Image) -> Image.Image:
    """What is not the white paper around a thing: a mask of the picture's size."""
    paper = ImageOps.expand(picture, 1, WHITE)
    filled = paper.copy()
    ImageDraw.floodfill(filled, (0, 0), FAR_FROM_PAPER, thresh=LIKE_PAPER)
    changed = ImageChops.difference(filled, paper).convert("L").point(lambda level: 0 if level else 255)
    return ImageOps.crop(changed, 1)
