"""Relevance maps laid over their picture, in a vermilion that grows with relevance."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.io.files import write_atomically
from pipelines.see.pictures import on_square
from pipelines.see.relevance import Relevance

COLOUR = (217, 67, 47)
OPACITY = 0.8  # at the peak
SHEET_SIDE = 256  # pixels of each picture on a sheet


def heat(found: Relevance, side: int) -> Image.Image:
    """A map as an RGBA picture of side x side pixels, clear where nothing is and OPACITY at the peak."""
    levels = (found.map.numpy() * 255 * OPACITY).round().astype(np.uint8)
    alpha = Image.fromarray(levels).resize((side, side), Image.Resampling.BICUBIC)
    layer = Image.new("RGBA", (side, side), (*COLOUR, 0))
    layer.putalpha(alpha)
    return layer


def overlay(image: Image.Image, found: Relevance, side: int = SHEET_SIDE) -> Image.Image:
    """The picture as CLIP saw it, faded, with a map over it; RGB of side x side pixels."""
    square = on_square(image).resize((side, side), Image.Resampling.LANCZOS).convert("RGBA")
    faded = Image.blend(square, Image.new("RGBA", square.size, "white"), 0.35)
    return Image.alpha_composite(faded, heat(found, side)).convert("RGB")


def write_sheet(path: str | Path, image: Image.Image, maps: Sequence[Relevance]) -> None:
    """Write the overlays of all maps side by side as a PNG. CannotSave when it cannot be written."""
    sheet = Image.new("RGB", (SHEET_SIDE * len(maps), SHEET_SIDE), "white")
    for place, found in enumerate(maps):
        sheet.paste(overlay(image, found), (place * SHEET_SIDE, 0))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())
