"""A pipeline without networks for tests of the page: it paints coloured shapes row by row, as fast as the prompt says."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from pipelines.clip.judges import drifting
from pipelines.core.candidates import candidate_seed
from pipelines.core.journal import Journal, Snapshot
from pipelines.core.pipeline import Picture, Pipeline, Resumable, Step
from pipelines.core.settings import Settings
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.edit.directions import Direction, read_direction
from pipelines.edit.preflight import Estimate
from pipelines.edit.settings import EditSettings
from pipelines.edit.strip import strip
from pipelines.errors import BadInput, Stopped
from pipelines.generate.settings import GenerateSettings
from pipelines.guide.settings import GuideSettings
from pipelines.io.images import on_white, open_picture, picture_to_uri, to_pil, to_tensor
from pipelines.io.video import Frame, Timelapse
from pipelines.models.base import Reading
from pipelines.optimize.settings import OptimizeSettings

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
            time.sleep(0.3 if "slow" in settings.prompt else 0.03)
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
class Diffuser(Pipeline[DiffuseSettings]):
    """Stands where Stable Diffusion stands: the same shapes, in the size that is asked for."""

    Settings: ClassVar[type[Settings]] = DiffuseSettings

    def prepare(self, settings: DiffuseSettings) -> DiffuseSettings:
        return replace(settings, candidates=settings.candidates or 4)

    def __call__(self, settings: DiffuseSettings) -> Generator[Step, None, list[Picture]]:
        seeds = [candidate_seed(settings.seed, index) for index in range(settings.candidates or 0)]
        size = (settings.width or SIZE, settings.height or SIZE)
        for step in range(1, 4):
            time.sleep(0.02)
            yield Step("draw", step, 3, {}, lambda: torch.stack([paint(seed) for seed in seeds]))
        yield Step("rank", len(seeds), len(seeds))
        images = [to_pil(paint(seed)[None])[0].resize(size) for seed in seeds]
        kept = list(zip(images, seeds, strict=True))[: settings.keep]
        facts = {"candidates": len(seeds), "noise": 0.008, "mean_score": 0.3, "tied": 1}
        return [Picture(image, seed, 0.3 - index / 50, facts) for index, (image, seed) in enumerate(kept)]

    read_prompt = Painter.read_prompt


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
            time.sleep(0.15 if "slow" in now.prompt else 0.005)
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

    def timelapse(self, settings: OptimizeSettings, journal: Journal) -> Timelapse:
        steps = journal.steps()
        frames = (Frame(self.image_at(settings, journal, step)) for step in steps)
        return Timelapse(frames, len(steps), [settings.prompt])

    def image_at(self, settings: OptimizeSettings, journal: Journal, step: int) -> Image.Image:
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
        if now.image:
            base = to_tensor([open_picture(now.image).convert("RGB").resize((SIZE, SIZE))])
        else:
            coarse = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(settings.seed)) * 2 - 1
            base = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bicubic").clamp(-1, 1)
        share = torch.full((1, 1, SIZE, SIZE), step / max(now.steps, 1))
        if mask := getattr(now, "mask", ""):  # Guide has none
            inside = to_tensor([open_picture(mask).convert("RGB").resize((SIZE, SIZE))])[:, :1]
            share = share * (inside > 0)
        return base + share * (grown - base)


@dataclass
class Guider(Grower):
    """Stands where Guide stands: the same shape."""

    Settings: ClassVar[type[Settings]] = GuideSettings


@dataclass
class EditPainter(Resumable[EditSettings]):
    """Mixes a colour that the target's length says into the picture, more with every update.

    "slow" in the target makes updates long, "crash" ends badly after update 12, "greedy" pleases CLIP alone, and
    "stranger" as the source describes nothing.
    """

    Settings: ClassVar[type[Settings]] = EditSettings
    unet: ClassVar[Any] = SimpleNamespace(alphas_cumprod=torch.linspace(1, 0, 1000))

    def prepare(self, settings: EditSettings) -> EditSettings:
        if "same" in settings.prompt:
            raise BadInput(
                f"CLIP cannot tell {settings.source[:60]!r} from {settings.prompt[:60]!r} (cosine 0.990); "
                "say the difference in other words"
            )
        fields = {"return_step": settings.return_step or 400}
        if settings.image:
            fields["image"] = picture_to_uri(on_white(open_picture(settings.image)))
        settings = settings.map_directions(lambda source: read_direction(source).to_uri())
        return replace(settings, **fields)

    def estimate(self, settings: EditSettings) -> Estimate:
        settings = self.prepare(settings)
        warnings = ["source does not describe it"] if "stranger" in settings.source else []
        match = (0.31 if warnings else 0.93) if settings.image else None
        return Estimate(match, 0.86, settings.return_step, 12.4, 210.0, warnings)

    def __call__(
        self, settings: EditSettings, journal: Journal | None = None
    ) -> Generator[Step, None, list[Picture]]:
        journal = journal or Journal()
        journal.begin({"settings": settings.to_dict(), "models": "painter"})
        found = journal.latest()
        update, curves = (found.step, found.facts["curves"]) if found else (0, [])
        for done in range(1, 4):
            time.sleep(0.02)
            yield Step("invert", done, 3)
        last = min(settings.update_count(), settings.until or settings.update_count())
        ended = False
        while update < last:
            time.sleep(0.15 if "slow" in settings.prompt else 0.004)
            if "crash" in settings.prompt and update == 12:
                raise ZeroDivisionError("secret detail")
            update += 1
            if update % 5 == 0:
                fall = 0.01 if "greedy" in settings.prompt and update > 15 else 0.0
                curves = [*curves, [update, update / 100, 0.12 + update / 200 - fall * (update - 15)]]
            if journal.due(update) or update == last:
                journal.save(self._snapshot(update, curves))
            metrics = {"loss": 1 / update} | (
                {"clip": curves[-1][1], "critic": curves[-1][2]} if curves else {}
            )
            try:
                shown = partial(self._draw, settings, update, settings.strength)
                yield Step("learn", update, last, metrics, shown)
            except Stopped:
                ended = True
                break
        if ended:
            journal.save(self._snapshot(update, curves))
        strengths = strip(settings.strength, settings.strip)
        for done in range(1, 6):
            time.sleep(0.02)
            if not ended:
                yield Step("draw", done, 5)
        order = sorted(range(len(strengths)), key=lambda k: (strengths[k] != settings.strength, strengths[k]))
        pictures = []
        for k in order:
            share = strengths[k] * update / 100
            facts = {"strength": strengths[k], "return_step": settings.return_step, "updates": update}
            facts |= {
                "clip direction": share,
                "critic direction": share / 2,
                "critic target": 0.2 + share / 4,
            }
            facts |= {"critic target before": 0.2, "L1": abs(share) / 10, "SSIM": 1 - abs(share) / 3}
            facts |= {"curves": curves, "overshot": 15 if "greedy" in settings.prompt and update > 20 else 0}
            drawn = to_pil(self._draw(settings, update or 40, strengths[k]))[0]
            pictures.append(Picture(drawn, settings.seed, 0.2, facts))
        return pictures

    def direction(self, settings: EditSettings, journal: Journal) -> Direction:
        snapshot = journal.latest()
        if snapshot is None:
            raise BadInput(f"the mode {settings.mode} learned no direction; use quick or reusable, or paper")
        facts = {"source": settings.source, "target": settings.prompt, "base": "painter", "clip": "painter"}
        facts |= {"mode": settings.mode, "rank": 4, "return_step": 400, "updates": snapshot.step}
        facts["figures"] = {"clip direction": 0.4, "critic direction": 0.3}
        return Direction({"conv.lora_A.weight": torch.ones(4, 4, dtype=torch.float16)}, facts)

    def image_at(self, settings: EditSettings, journal: Journal, step: int) -> Image.Image:
        return to_pil(self._draw(settings, journal.load(step).step, settings.strength))[0]

    @staticmethod
    def _snapshot(update: int, curves: list[Any]) -> Snapshot:
        return Snapshot(update, {"a": torch.zeros(1)}, {"curves": json.loads(json.dumps(curves))})

    @staticmethod
    def _draw(settings: EditSettings, update: int, strength: float) -> Tensor:
        if settings.image:
            base = to_tensor([on_white(open_picture(settings.image))])
        else:
            base = paint(settings.seed)[None]
        tint = torch.nn.functional.interpolate(paint(len(settings.prompt))[None], base.shape[-2:])
        share = torch.full((1, 1, *base.shape[-2:]), strength * update / 100)
        if settings.mask:
            inside = to_tensor([open_picture(settings.mask).convert("RGB")])[:, :1]
            share = share * (inside > 0)
        return (base + share * (tint - base)).clamp(-1, 1)


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

    def __init__(self) -> None:
        self.use: dict[str, str] = {}

    def pipeline(self, name: str) -> Pipeline[Any]:
        return PAINTERS[name]()

    def models(self, name: str) -> dict[str, dict[str, str]]:
        return {"painter": {"name": "painter", "sha256": "ab" * 32}}

    def clip(self) -> Any:
        return PainterClip()

    def critic(self) -> Any:
        return PainterClip()

    def switch(self, pack: str) -> None:
        self.pack = pack

    def choose(self, part: str, name: str = "", pack: str = "") -> None:
        self.pack = pack or self.pack
        self.use = {key: model for key, model in self.use.items() if key != part} | (
            {part: name} if name else {}
        )


class PainterClip:
    """Sees nothing but the mean colour; reads nothing but the words red, green and blue."""

    config: ClassVar[Any] = SimpleNamespace(image_size=32, small_size=32, embedding_size=3)
    device = torch.device("cpu")
    image = torch.nn.Identity()
    logit_scale = 20.0
    logit_bias: float | None = None

    def encode_text(self, prompts: list[str]) -> Tensor:
        vectors = [[float(word in prompt) + 0.1 for word in ("red", "green", "blue")] for prompt in prompts]
        return torch.nn.functional.normalize(torch.tensor(vectors), dim=1)

    def encode_image(self, images: Tensor) -> Tensor:
        return torch.nn.functional.normalize(images.mean((2, 3)) + 1.1, dim=1)


PAINTERS: dict[str, type[Pipeline[Any]]] = {
    "generate": Painter,
    "optimize": Grower,
    "guide": Guider,
    "edit": EditPainter,
    "diffuse": Diffuser,
}
