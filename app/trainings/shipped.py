"""The project's own pictures, as far as the page tells of them: how many, and some of them."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.io.images import on_white
from pipelines.training.data.dataset import DATA_FILE

FILE = Path(__file__).parents[2] / DATA_FILE
COLUMNS, ROWS, SIDE = 10, 6, 96


def shipped_data() -> int:
    """How many pictures the project's data file has; 0 when it is not built."""
    if not FILE.is_file():
        return 0
    from safetensors import safe_open

    with safe_open(FILE, "np") as file:
        return len(json.loads(file.metadata()["icons"]))


@cache
def shipped_sheet() -> bytes:
    """A PNG of some of them, evenly from all."""
    from safetensors import safe_open

    sheet = Image.new("RGB", (COLUMNS * SIDE, ROWS * SIDE), "white")
    with safe_open(FILE, "np") as file:
        offset, webp = file.get_tensor("offset"), file.get_slice("webp")
        chosen = np.linspace(0, len(offset) - 2, COLUMNS * ROWS).astype(int)
        for place, k in enumerate(chosen):
            data = bytes(webp[int(offset[k]) : int(offset[k + 1])])
            icon = on_white(Image.open(io.BytesIO(data), formats=["WEBP"])).resize((SIDE - 12, SIDE - 12))
            sheet.paste(icon, (place % COLUMNS * SIDE + 6, place // COLUMNS * SIDE + 6))
    file_of = io.BytesIO()
    sheet.save(file_of, "PNG")
    return file_of.getvalue()
