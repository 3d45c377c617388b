"""Diffuse (Rombach et al. 2022): candidates by latent diffusion, ranked by CLIP.

The walk starts from a prompt alone, from a picture (Meng et al. 2022, SDEdit), or within a mask.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from PIL import Image, ImageOps
from torch import Tensor

from pipelines.clip.ranking import rank
from pipelines.core.candidates import Batch, batches, candidate_seeds
from pipelines.core.pipeline import Picture, Pipeline, Step
from pipelines.core.settings import Settings
from pipelines.diffuse.latents import Scene, fitted_mask, read_scene
from pipelines.diffuse.layout import Layout, Walk, check_layout, read_layout
from pipelines.diffuse.settings import MAX_SIDE, MIN_SIDE, SIDE_MULTIPLE, DiffuseSettings
from pipelines.errors import BadInput
from pipelines.io.images import on_white, open_picture, picture_to_uri, to_pil, to_tensor
from pipelines.models.base import Clip, Reading
from pipelines.models.latent_diffusion import LatentDiffusion, preview, walk


@dataclass
class Diffuse(Pipeline[DiffuseSettings]):
    """Draws candidates from a prompt, a picture or within a mask, and ranks them by CLIP."""

    diffusion: LatentDiffusion
    clip: Clip

    Settings: ClassVar[type[Settings]] = DiffuseSettings

    # ------------------------------------------------------------------------------------------------------ preparing

    def prepare(self, settings: DiffuseSettings) -> DiffuseSettings:
        """The settings with pictures as PNG data URIs in the size of the run, and with proposed values for None.

        BadInput when an inpainting model gets no mask, when the strength leaves no step, for unreadable pictures, and for
        weights of words that the prompt does not have.
        """
        check_layout(self.diffusion, settings)
        if self.diffusion.is_inpainting and not settings.mask:
            raise BadInput("diffuse.only_completes")
        picture = on_white(open_picture(settings.image)) if settings.image else None
        size = self._size(settings, picture)
        fields: dict[str, Any] = {"width": size[0], "height": size[1]}
        if picture is not None:
            fields["image"] = picture_to_uri(ImageOps.fit(picture, size, Image.Resampling.LANCZOS))
            if settings.mask:
                fields["mask"] = picture_to_uri(fitted_mask(settings.mask, picture, size))
        fields["candidates"] = settings.candidates or self.diffusion.proposed_candidates
        own = self.diffusion.proposed_steps
        if picture is not None:
            own = max(own, math.ceil(1 / settings.strength))
        fields["steps"] = settings.steps or own
        fields["guidance"] = settings.guidance
        if settings.guidance is None:
            fields["guidance"] = self.diffusion.proposed_guidance
        if picture is not None and int(fields["steps"] * settings.strength) < 1:
            least = math.ceil(1 / settings.strength)
            raise BadInput(
                "diffuse.no_steps_left", strength=settings.strength, steps=settings.steps, least=least
            )
        return replace(settings, **fields)

    def _size(self, settings: DiffuseSettings, picture: Image.Image | None) -> tuple[int, int]:
        """Width and height: as set, else the model's number of pixels in the picture's proportions."""
        width, height = float(settings.width or 0), float(settings.height or 0)
        aspect = picture.width / picture.height if picture else 1.0
        if not width and not height:
            side = self.diffusion.image_size
            width = side * aspect**0.5
        width = width or height * aspect
        height = height or width / aspect
        w, h = (
            min(max(round(side / SIDE_MULTIPLE) * SIDE_MULTIPLE, MIN_SIDE), MAX_SIDE)
            for side in (width, height)
        )
        return w, h

    def read_prompt(self, prompt: str) -> Reading:
        """The pieces of a prompt that the model reads, its limit, what is cut off, and the unknown words."""
        return self.diffusion.read_prompt(prompt)

    # -------------------------------------------------------------------------------------------------------- running

    @torch.no_grad()
    def __call__(self, settings: DiffuseSettings) -> Generator[Step, None, list[Picture]]:
        """Yield a Step a denoising step and a batch; return the best pictures.

        Batches have one fixed size, so that a candidate does not depend on the other candidates of its batch.
        """
        assert settings.width is not None and settings.height is not None
        assert settings.candidates is not None
        seeds = candidate_seeds(settings.seed, settings.candidates)
        rows = self.diffusion.rows(settings.width, settings.height)
        scene = read_scene(self.diffusion, settings)
        condition = self.diffusion.condition(
            settings.prompt,
            settings.negative_prompt,
            settings.width,
            settings.height,
            rows,
            (settings.guidance or 0) > 1,
        )
        layout = read_layout(self.diffusion, settings, rows)
        drawn: list[Image.Image] = []
        vectors: list[Tensor] = []
        for batch in batches(seeds, rows):
            latents = yield from self._draw(settings, batch, condition, scene, layout)
            images = to_pil(self.diffusion.decode(latents))
            if scene is not None and scene.mask is not None:
                images = [Image.composite(image, scene.picture, scene.mask) for image in images]
            judged = to_tensor(images).to(self.clip.device)
            count = len(batch.seeds)
            vectors.append(self.clip.encode_image(judged)[:count])
            drawn += images[:count]
            shown = judged[:count]
            yield Step("rank", batch.finished, len(seeds), {}, lambda shown=shown: shown)
        ranking = rank(self.clip, settings.prompt, torch.cat(vectors))
        return [
            Picture(drawn[k], seeds[k], ranking.scores[k], ranking.facts(k, seeds))
            for k in ranking.kept(settings.keep, settings.hide_duplicates)
        ]

    def _draw(
        self,
        settings: DiffuseSettings,
        batch: Batch,
        condition: Any,
        scene: Scene | None,
        layout: Layout | None,
    ) -> Generator[Step, None, Tensor]:
        """Draw one batch. Yields a Step for each step of the scheduler and returns (rows, c, h, w) latents."""
        assert settings.steps is not None and settings.width is not None and settings.height is not None
        size, steps, guidance = (settings.width, settings.height), settings.steps, settings.guidance or 0.0
        known = None if scene is None else scene.known

        def begin(condition: Any) -> Walk:
            return walk(self.diffusion, batch.row_seeds, size, condition, steps, guidance, known)

        ticks = begin(condition) if layout is None else layout.walk(begin, condition)
        while True:
            try:
                tick = next(ticks)
            except StopIteration as end:
                return end.value
            done, total = batch.index * tick.total + tick.done, batch.count * tick.total
            yield Step(
                "draw",
                done,
                total,
                {},
                lambda tick=tick: preview(self.diffusion, tick, len(batch.seeds)),
            )
