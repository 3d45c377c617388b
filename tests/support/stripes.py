"""A pipeline that the page knows nothing of: Settings with a knob of every kind, a class, and a row in a table."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pipelines.core.pipeline import Picture, Pipeline, Step
from pipelines.core.settings import Settings, knob
from pipelines.io.images import open_picture, to_pil, to_tensor
from tests.support.painter import PAINTERS, PainterStudio

SIZE = 96


@dataclass(frozen=True, kw_only=True)
class StripesSettings(Settings):
    """Stripes over a picture."""

    count: int = knob(2, 1, 8, help="how many pictures to make")
    picture: str = knob("", help="what the stripes lie on", kind="picture")
    direction: str = knob("across", help="which way the stripes run", choices=("across", "down"))
    bold: bool = knob(False, help="stripes twice as wide")
    tone: float = knob(0.5, 0, 1, help="how dark the stripes are", advanced=True)


@dataclass
class Stripes(Pipeline[StripesSettings]):
    """Draws stripes; "slow" in the prompt makes its steps long."""

    Settings: ClassVar[type[Settings]] = StripesSettings
    label: ClassVar[tuple[str, str]] = ("Stripes", "条纹")

    def __call__(self, settings: StripesSettings) -> Generator[Step, None, list[Picture]]:
        drawn = torch.stack([self._draw(settings, index) for index in range(settings.count)])
        for step in range(1, 9):
            time.sleep(0.3 if "slow" in settings.prompt else 0.02)
            yield Step("striping", step, 8, {}, lambda: drawn)
        return [
            Picture(image, settings.seed + index, 0.5 - index / 10)
            for index, image in enumerate(to_pil(drawn))
        ]

    @staticmethod
    def _draw(settings: StripesSettings, index: int) -> Tensor:
        base = torch.full((3, SIZE, SIZE), 0.8)
        if settings.picture:
            base = to_tensor([open_picture(settings.picture).convert("RGB").resize((SIZE, SIZE))])[0]
        width = (4 + 2 * index + settings.seed % 4) * (2 if settings.bold else 1)
        dark = (torch.arange(SIZE) // width % 2 == 0).float() * settings.tone
        return (base - (dark if settings.direction == "down" else dark[:, None])).clamp(-1, 1)


PIPELINES: dict[str, type[Pipeline[Any]]] = {**PAINTERS, "stripes": Stripes}


class StripesStudio(PainterStudio):
    """A studio that has it."""

    def pipeline(self, name: str) -> Pipeline[Any]:
        return PIPELINES[name]()
