"""A pipeline without networks for tests of the page: it paints coloured shapes row by row, as fast as the prompt says."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pipelines.base import Picture, Pipeline, Settings, Step
from pipelines.dalle import GenerateSettings, Reading, candidate_seed
from pipelines.images import open_picture, to_pil, to_tensor

SIZE, ROWS = 128, 16


@dataclass
class Painter(Pipeline[GenerateSettings]):
    """Shapes whose colours come from the seed. "slow" in the prompt takes seconds; "crash" ends badly."""

    Settings: ClassVar[type[Settings]] = GenerateSettings

    def __call__(self, settings: GenerateSettings) -> Generator[Step, None, list[Picture]]:
        seeds = [candidate_seed(settings.seed, index) for index in range(settings.candidates)]
        finished = torch.stack([paint(seed) for seed in seeds])  # (n, 3, SIZE, SIZE)
        if settings.image:
            given = open_picture(settings.image).convert("RGB").resize((SIZE, SIZE))
            rows = settings.keep_rows * SIZE // ROWS
            finished[:, :, :rows] = to_tensor([given])[:, :, :rows]
        for row in range(1, ROWS + 1):
            time.sleep(0.15 if "slow" in settings.prompt else 0.03)
            if "crash" in settings.prompt and row == 6:
                raise ZeroDivisionError("secret detail")
            sofar = torch.ones_like(finished)
            sofar[:, :, : row * SIZE // ROWS] = finished[:, :, : row * SIZE // ROWS]
            yield Step("draw", row, ROWS, {}, lambda sofar=sofar: sofar)
        yield Step("rank", len(seeds), len(seeds))
        scores = [0.34 - 0.006 * index - 0.0004 * index**2 for index in range(len(seeds))]
        facts = {"candidates": len(seeds), "noise": 0.008, "mean_score": sum(scores) / len(scores), "tied": 2}
        tokens = torch.zeros(256, dtype=torch.long).tolist()
        kept = list(zip(to_pil(finished), seeds, scores, strict=True))[: settings.keep]
        return [
            Picture(
                image,
                seed,
                score,
                {**facts, "tokens": tokens, "duplicate_of": seeds[0] if index == 3 else None},
            )
            for index, (image, seed, score) in enumerate(kept)
        ]

    def read_prompt(self, prompt: str) -> Reading:
        words = prompt.split()
        unknown = [word for word in words if word.startswith("xq")]
        return Reading(words[:12], 12, " ".join(words[12:]), unknown)


def paint(seed: int) -> Tensor:
    """A round shape with a light on it, before a plain ground. (3, SIZE, SIZE) in [-1, 1]."""
    chance = torch.rand(9, generator=torch.Generator().manual_seed(seed))
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIZE), torch.linspace(-1, 1, SIZE), indexing="ij")
    ground = (0.85 + 0.15 * chance[0:3])[:, None, None].expand(3, SIZE, SIZE)
    lobes = 2 + int(chance[6] * 5)
    radius = 0.6 + 0.12 * torch.cos(lobes * torch.atan2(y, x) + 6 * chance[7])
    inside = ((radius - (x**2 + y**2).sqrt()) * 40).sigmoid()
    light = (1 - 0.5 * ((x + 0.3) ** 2 + (y + 0.35) ** 2)).clamp(0, 1)
    colour = torch.nn.functional.normalize(chance[3:6] ** 3, dim=0)[:, None, None] * light
    return (ground * (1 - inside) + colour * inside) * 2 - 1


class PainterStudio:
    """Stands where Studio stands."""

    pack = "test"
    device = "cpu"

    def pipeline(self, name: str) -> Pipeline[Any]:
        return Painter()

    def models(self, name: str) -> dict[str, dict[str, str]]:
        return {"painter": {"name": "painter", "sha256": "ab" * 32}}

    def clip(self) -> Any:
        return PainterClip()


class PainterClip:
    """Sees nothing but the mean colour; reads nothing but the words red, green and blue."""

    def encode_text(self, prompts: list[str]) -> Tensor:
        vectors = [[float(word in prompt) + 0.1 for word in ("red", "green", "blue")] for prompt in prompts]
        return torch.nn.functional.normalize(torch.tensor(vectors), dim=1)

    def encode_image(self, images: Tensor) -> Tensor:
        return torch.nn.functional.normalize(images.mean((2, 3)) + 1.1, dim=1)


PAINTERS: dict[str, type[Pipeline[Any]]] = {"generate": Painter}
