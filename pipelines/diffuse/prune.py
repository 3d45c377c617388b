"""Pruning while drawing: more candidates are begun than finished, and CLIP chooses among them on the way.

After a share of the steps each walk has a clean guess of its picture. CLIP ranks the guesses, and only the better ones are
drawn to the end (successive halving, Jamieson and Talwalkar 2016, with one look). What CLIP saw then also counts at the
end: the mean of both cosines ranks better than that of the finished picture alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from pipelines.clip.ranking import score_terms
from pipelines.core.candidates import Batch
from pipelines.core.generators import mapped
from pipelines.core.looks import under_looks
from pipelines.core.pipeline import Drawn, Step
from pipelines.diffuse.course import course_of
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.errors import BadInput
from pipelines.io.images import to_pil, to_tensor
from pipelines.models.base import Clip
from pipelines.models.latent_diffusion import LatentDiffusion, Midway, Previewer, Tick, preview, walk
from pipelines.models.typed import integers

BEGUN = 2  # times the candidates that are asked for
FINISHED = 4  # of so many that are begun together, one is finished
TOGETHER = 16  # at least so many are compared with one another
LOOK = 0.3  # share of the steps after which CLIP looks
LEAST_STEPS = 8  # with fewer there is nothing to see on the way
WHOLE = ("image", "source_prompt", "word_weights")  # settings under which nothing is pruned


def check_pruning(settings: DiffuseSettings) -> None:
    """BadInput when prepared settings ask for pruning and for what it does not go with, or make too few steps for it."""
    assert settings.steps is not None
    if not settings.prune:
        return
    for name in WHOLE:
        if getattr(settings, name):
            raise BadInput("diffuse.prune_with", setting=name)
    if settings.steps < LEAST_STEPS:
        raise BadInput("diffuse.prune_few_steps", steps=settings.steps, least=LEAST_STEPS)


def begun(settings: DiffuseSettings) -> int:
    """How many candidates prepared settings begin. A run of one begins that one, so that it can be drawn again alone."""
    assert settings.candidates is not None
    more = BEGUN if settings.prune and settings.candidates > 1 else 1
    return settings.candidates * more


def together(settings: DiffuseSettings, rows: int) -> int:
    """How many candidates a batch holds, where the model draws `rows` at once."""
    return max(rows, TOGETHER) if settings.prune else rows


@dataclass
class Count:
    """The steps of a batch that are made, of `each`; all batches of the run are counted as long as this one."""

    batch: Batch
    each: int
    done: int = 0

    def step(self, show: Callable[[], Tensor]) -> Step:
        """The Step of one more."""
        self.done += 1
        before = self.batch.index * self.each
        return Step("draw", before + self.done, self.batch.count * self.each, {}, show)


@dataclass(frozen=True)
class Pruning:
    """Draws batches of prepared settings, and finishes the better candidates of each."""

    model: LatentDiffusion
    clip: Clip
    settings: DiffuseSettings
    preview: Previewer | None = None

    def draw(self, batch: Batch) -> Generator[Step, None, Drawn]:
        """Yields a Step a step of a walk; returns the candidates that were finished, in the order of the batch."""
        settings = self.settings
        assert settings.width is not None and settings.height is not None and settings.steps is not None
        size = (settings.width, settings.height)
        rows, look = self.model.rows(*size), round(LOOK * settings.steps)
        scheduler = self.model.scheduler(settings.steps, settings.sampler, size)
        every, before = len(scheduler.timesteps), look * scheduler.order
        begun = batch.parts(range(len(batch.seeds)), min(rows, batch.rows))
        finished = -(-len(batch.seeds) // FINISHED)
        few = min(rows, batch.rows // FINISHED)
        count = Count(batch, len(begun) * before + -(-finished // few) * (every - before))

        latents, guesses = list[Tensor](), list[Tensor]()
        for part in begun:
            walked, guess = yield from self._walk(part, count, look)
            latents.append(walked[: len(part.seeds)])
            guesses.append(self._see(to_pil(self.model.decode(guess)))[: len(part.seeds)])
        midway, seen = torch.cat(latents), torch.cat(guesses)
        scores, _ = score_terms(self.clip, settings.terms(), seen)
        chosen = sorted(integers(scores.argsort(descending=True, stable=True)[:finished]))

        images = list[Image.Image]()
        for part in batch.parts(chosen, few):
            row = [chosen[part.before + k % len(part.seeds)] for k in range(part.rows)]
            walked, _ = yield from self._walk(part, count, None, Midway(midway[row], look))
            images += to_pil(self.model.decode(walked))[: len(part.seeds)]
        return Drawn(
            [batch.seeds[k] for k in chosen],
            [settings.read(batch.row_looks[k]) for k in chosen],
            self._see(images),
            images,
            guesses=seen[chosen],
        )

    def _walk(
        self, part: Batch, count: Count, last: int | None, start: Midway | None = None
    ) -> Generator[Step, None, tuple[Tensor, Tensor]]:
        """A part of the walk of some candidates: the latents at its end, and the clean ones that its last step meant."""
        settings = self.settings
        assert settings.width is not None and settings.height is not None and settings.steps is not None
        model, prompt = under_looks(self.model, settings.drawn_prompt, part.row_looks)
        condition, own = course_of(model, replace(settings, prompt=prompt, read_as=""), part.rows)
        size, guidance = (settings.width, settings.height), settings.guidance or 0.0
        ticks = walk(
            model, part.row_seeds, size, condition, settings.steps, guidance, start, replace(own, last=last)
        )
        latest: Tick | None = None

        def step(tick: Tick) -> Step:
            nonlocal latest
            latest = tick
            return count.step(lambda: preview(model, tick, len(part.seeds), self.preview))

        latents = yield from mapped(ticks, step)
        assert latest is not None
        return latents, model.clean(latest.latents, latest.output, latest.t)

    def _see(self, images: list[Image.Image]) -> Tensor:
        """(n, d) what CLIP sees in pictures."""
        return self.clip.encode_image(to_tensor(images).to(self.clip.device))
