"""Relevance maps as colours, and laid over their picture, which is grey below them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.io.files import write_atomically
from pipelines.see.pictures import on_square
from pipelines.see.relevance import Relevance

# Relevance -> red, green, blue, opacity: from clear over amber to vermilion.
RAMP = (
    (0.0, (246, 190, 84, 0)),
    (0.35, (244, 172, 66, 110)),
    (0.7, (232, 104, 54, 190)),
    (1.0, (205, 52, 36, 225)),
)
SHEET_SIDE = 256  # pixels of each picture on a sheet


def heat(found: Relevance, side: int) -> Image.Image:
    """A map as an RGBA picture of side x side pixels, clear where nothing is."""
    levels = Image.fromarray(found.map.numpy().astype(np.float32)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    places = [place for place, _ in RAMP]
    channels = [np.interp(np.asarray(levels), places, [colour[k] for _, colour in RAMP]) for k in range(4)]
    return Image.fromarray(np.stack(channels, -1).round().astype(np.uint8))


def overlay(image: Image.Image, found: Relevance, side: int = SHEET_SIDE) -> Image.Image:
    """The picture as CLIP saw it, grey and faded, with a map over it; RGB of side x side pixels."""
    square = on_square(image).resize((side, side), Image.Resampling.LANCZOS)
    faded = Image.blend(square.convert("L").convert("RGB"), Image.new("RGB", square.size, "white"), 0.4)
    return Image.alpha_composite(faded.convert("RGBA"), heat(found, side)).convert("RGB")


def write_sheet(path: str | Path, image: Image.Image, maps: Sequence[Relevance]) -> None:
    """Write the overlays of all maps side by side as a PNG. CannotSave when it cannot be written."""
    sheet = Image.new("RGB", (SHEET_SIDE * len(maps), SHEET_SIDE), "white")
    for place, found in enumerate(maps):
        sheet.paste(overlay(image, found), (place * SHEET_SIDE, 0))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())
