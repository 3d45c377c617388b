"""What the tests of Optimize share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.core.execute import run
from pipelines.core.journal import Journal
from pipelines.core.pipeline import Result
from pipelines.optimize.pipeline import Optimize
from pipelines.optimize.settings import OptimizeSettings

in_both = pytest.mark.usefixtures("precision")


def finished(pipeline: Optimize, settings: OptimizeSettings, journal: Journal | None = None) -> Result:
    *_, result = run(pipeline, settings, journal)
    assert isinstance(result, Result)
    return result


def last(result: Result) -> Image.Image:
    return max(result.pictures, key=lambda picture: picture.facts["step"]).image


def speckled(size: tuple[int, int], seed: int = 0, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(seed)
    channels = len(mode)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], channels), dtype=np.uint8), mode)


def saved(picture: Image.Image, path: Path) -> str:
    picture.save(path)
    return str(path)


def half(size: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", size, 0)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return mask
