"""Pictures of one colour with records, and a CLIP that knows colours, for tests of the library."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipelines.core.pipeline import Picture
from pipelines.core.record import record_of, write_png
from tests.support.fakes import FakeSettings

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}


class ColourClip:
    """A judge that knows mean colours and their names, and counts how many pictures it was shown."""

    seen = 0

    def encode_text(self, prompts: list[str]) -> Tensor:
        words = [COLOURS.get(prompt, (1, 1, 1)) for prompt in prompts]
        return F.normalize(torch.tensor(words, dtype=torch.float32), dim=1)

    def encode_image(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return F.normalize((images + 1).mean((2, 3)), dim=1)


def put(
    folder: Path,
    name: str,
    colour: tuple[int, int, int] | Image.Image,
    age: int = 0,
    *,
    prompt: str | None = None,
    seed: int = 1,
    score: float = 0.5,
    settings: dict[str, Any] | None = None,
    day: str = "2026-01-01",
) -> Path:
    """Write a picture of one colour, or a given one, as if it were made here, `age` seconds before 1,700,000,000."""
    image = colour if isinstance(colour, Image.Image) else Image.new("RGB", (8, 8), colour)
    values = {"prompt": name if prompt is None else prompt, **(settings or {})}
    record = record_of(
        pipeline="fake",
        pack="tiny",
        device="cpu",
        models={},
        settings=FakeSettings(**values),
        picture=Picture(image, seed, score),
        rank=1,
    )
    path = folder / day / f"{name}.png"
    write_png(path, image, record)
    os.utime(path, (1_700_000_000 - age, 1_700_000_000 - age))
    return path


def index_file(folder: Path) -> Path:
    return folder / "library" / "index" / "facts.sqlite"
