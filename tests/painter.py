"""A pipeline without networks for tests of the page: it paints coloured shapes row by row, as fast as the prompt says."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from pipelines.base import Picture, Pipeline, Resumable, Settings, Step
from pipelines.dalle import GenerateSettings, Reading, candidate_seed
from pipelines.errors import Stopped
from pipelines.images import open_picture, to_pil, to_tensor
from pipelines.journal import Journal, Snapshot
from pipelines.optimize_settings import OptimizeSettings
from pipelines.painting import Film, drifting
from pipelines.video import Frame

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


@dataclass
class Grower(Resumable[OptimizeSettings]):
    """A shape that grows over its start picture, inside the mask, in the colour that the prompt's length says.

    "slow" in the prompt makes steps long, "crash" ends badly after step 12, and "drift" pleases CLIP alone.
    """

    Settings: ClassVar[type[Settings]] = OptimizeSettings

    def __call__(
        self, settings: OptimizeSettings, journal: Journal | None = None
    ) -> Generator[Step, None, list[Picture]]:
        journal = journal or Journal()
        journal.begin({"settings": settings.to_dict(), "models": "painter"})
        found = journal.latest()
        step, curve = (found.step, found.facts["curve"]) if found else (0, [])
        last = settings.timeline()[-1][1].steps
        ended = False
        while step < last:
            now = self._now(settings, step)
            time.sleep(0.08 if "slow" in now.prompt else 0.005)
            if "crash" in now.prompt and step == 12:
                raise ZeroDivisionError("secret detail")
            if step % 5 == 0:
                fall = -0.004 if "drift" in now.prompt else 0.002
                curve = [*curve, (step, 0.2 + 0.003 * step, 0.2 + fall * step + 0.004 * (step % 10 == 0))]
            step += 1
            if journal.due(step) or step == last:
                journal.save(self._snapshot(step, curve))
            metrics = {"loss": 1 / step, "clip": curve[-1][1], "critic": curve[-1][2]}
            metrics["drift"] = float(drifting(curve))
            try:
                yield Step("optimize", step, last, metrics, lambda step=step: self._draw(settings, step))
            except Stopped:
                ended = True
                break
        if ended:
            journal.save(self._snapshot(step, curve))
        pictures = []
        for at in (step // 2, step):
            facts = {
                "step": at,
                "clip": 0.2 + at / 1000,
                "curve": [list(one) for one in curve],
                "steps": step,
            }
            facts |= {"drift": drifting(curve)}
            pictures.append(
                Picture(to_pil(self._draw(settings, at))[0], settings.seed, 0.3 - at / 1000, facts)
            )
        return pictures

    def film(self, settings: OptimizeSettings, journal: Journal) -> Film:
        steps = journal.steps()
        frames = (Frame(self.glimpse(settings, journal, step)) for step in steps)
        return Film(frames, len(steps), [settings.prompt])

    def glimpse(self, settings: OptimizeSettings, journal: Journal, step: int) -> Image.Image:
        return to_pil(self._draw(settings, journal.load(step).step))[0]

    @staticmethod
    def _now(settings: OptimizeSettings, step: int) -> OptimizeSettings:
        return next(now for when, now in reversed(settings.timeline()) if when <= step)

    @staticmethod
    def _snapshot(step: int, curve: list[Any]) -> Snapshot:
        return Snapshot(step, {"z": torch.zeros(1)}, {"curve": curve, "frames": []})

    def _draw(self, settings: OptimizeSettings, step: int) -> Tensor:
        now = self._now(settings, step)
        grown = paint(settings.seed + len(now.prompt))[None]
        if now.init:
            base = to_tensor([open_picture(now.init).convert("RGB").resize((SIZE, SIZE))])
        else:
            coarse = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(settings.seed)) * 2 - 1
            base = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bicubic").clamp(-1, 1)
        share = torch.full((1, 1, SIZE, SIZE), step / max(now.steps, 1))
        if now.mask:
            inside = to_tensor([open_picture(now.mask).convert("RGB").resize((SIZE, SIZE))])[:, :1]
            share = share * (inside > 0)
        return base + share * (grown - base)


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
        return PAINTERS[name]()

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


PAINTERS: dict[str, type[Pipeline[Any]]] = {"generate": Painter, "optimize": Grower}
