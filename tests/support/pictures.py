"""Pictures in files."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def size_of(path: str | Path) -> tuple[int, int]:
    """Width and height of the picture in a file."""
    with Image.open(path) as picture:
        return picture.size
