"""Relevance maps as colours, and laid over their picture, which is grey below them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.io.files import write_atomically
from pipelines.io.images import on_white
from pipelines.see.relevance import Relevance

# Relevance -> red, green, blue, opacity: from clear over amber to vermilion.
RAMP = (
    (0.0, (246, 190, 84, 0)),
    (0.35, (244, 172, 66, 110)),
    (0.7, (232, 104, 54, 190)),
    (1.0, (205, 52, 36, 225)),
)
SHEET_SIDE = 256  # pixels of the longer side of each picture on a sheet


def heat(found: Relevance, size: tuple[int, int]) -> Image.Image:
    """A map as an RGBA picture of `size` (width, height) pixels, clear where nothing is."""
    levels = Image.fromarray(found.map.numpy().astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    places = [place for place, _ in RAMP]
    channels = [np.interp(np.asarray(levels), places, [colour[k] for _, colour in RAMP]) for k in range(4)]
    return Image.fromarray(np.stack(channels, -1).round().astype(np.uint8))


def overlay(image: Image.Image, found: Relevance, side: int = SHEET_SIDE) -> Image.Image:
    """The picture, grey and faded, with a map over it; RGB with a longer side of `side` pixels."""
    share = side / max(image.size)
    size = (max(1, round(image.width * share)), max(1, round(image.height * share)))
    small = on_white(image).resize(size, Image.Resampling.LANCZOS)
    faded = Image.blend(small.convert("L").convert("RGB"), Image.new("RGB", size, "white"), 0.4)
    return Image.alpha_composite(faded.convert("RGBA"), heat(found, size)).convert("RGB")


def write_sheet(path: str | Path, image: Image.Image, maps: Sequence[Relevance]) -> None:
    """Write the overlays of all maps side by side as a PNG. CannotSave when it cannot be written."""
    laid = [overlay(image, found) for found in maps]
    width, height = laid[0].size
    sheet = Image.new("RGB", (width * len(laid), height), "white")
    for place, each in enumerate(laid):
        sheet.paste(each, (place * width, 0))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())
