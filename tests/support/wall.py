"""Pictures for tests of the tab Library, made without a run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from PIL import Image

from pipelines.core.pipeline import Picture
from pipelines.core.record import record_of, write_png
from pipelines.generate.settings import GenerateSettings


def hang(folder: Path, name: str, colour: str, *, age: float = 0, side: int = 32, **settings: Any) -> Path:
    """A picture of one colour with a record of Generate, `age` seconds old."""
    path = folder / "2026-01-01" / f"{name}.png"
    write_picture(path, Image.new("RGB", (side, side), colour), **{"prompt": "a card", **settings})
    made = time.time() - age
    os.utime(path, (made, made))
    return path


def write_picture(path: Path, image: Image.Image, **settings: Any) -> None:
    """A picture with a record of Generate, with these settings."""
    values = GenerateSettings(**{"candidates": 2, "keep": 1, **settings})
    record = record_of(
        pipeline="generate",
        pack="test",
        device="cpu",
        models={},
        settings=values,
        picture=Picture(image, values.seed, 0.3),
        rank=1,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, image, record)
