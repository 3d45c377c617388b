"""Pictures in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def size_of(path: str | Path) -> tuple[int, int]:
    """Width and height of the picture in a file."""
    with Image.open(path) as picture:
        return picture.size


def noise(side: int, seed: int = 0) -> Image.Image:
    """A square picture of random levels, which no format makes small."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))
