"""Diffuse (Rombach et al. 2022): candidates by latent diffusion, ranked by CLIP.

The walk starts from a prompt alone, from a picture (Meng et al. 2022, SDEdit), within a mask, or beyond its edges. Large
pictures are drawn by overlapping windows (Bar-Tal et al. 2023).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import torch
from PIL import Image
from torch import Tensor

from pipelines.clip.ranking import rank, score_parts
from pipelines.core.candidates import Batch, candidate_seeds, spread
from pipelines.core.generators import mapped
from pipelines.core.looks import needs_words, under_looks
from pipelines.core.pipeline import Drawn, Picture, Splits, Step
from pipelines.core.prompts import in_known_words, parse_terms
from pipelines.core.regions import proposed_regions
from pipelines.core.settings import Settings
from pipelines.diffuse.canvas import fit, is_beyond
from pipelines.diffuse.collage import WHOLE, Collage
from pipelines.diffuse.course import course_of, proposed
from pipelines.diffuse.latents import fitted_mask, read_scene
from pipelines.diffuse.layout import Layout, Walk, check_layout, read_layout
from pipelines.diffuse.prune import Pruning, begun, check_pruning, together
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.diffuse.sketch import after_sketch, sketch_size, sketched
from pipelines.errors import BadInput
from pipelines.io.images import on_white, open_picture, picture_to_uri, to_pil, to_tensor
from pipelines.models.base import Clip, Reading, joint_reading
from pipelines.models.latent_diffusion import (
    Course,
    Known,
    LatentDiffusion,
    Previewer,
    Tick,
    preview,
    walk,
)

T = TypeVar("T")


@dataclass
class Diffuse(Splits[DiffuseSettings]):
    """Draws candidates from a prompt, a picture, within a mask or beyond its edges, and ranks them by CLIP."""

    diffusion: LatentDiffusion
    clip: Clip
    preview: Previewer | None = None  # what decodes previews; None for the model itself

    Settings: ClassVar[type[Settings]] = DiffuseSettings

    # ------------------------------------------------------------------------------------------------------ preparing

    def prepare(self, settings: DiffuseSettings) -> DiffuseSettings:
        """The settings with pictures as PNG data URIs in the size of the run, and with proposed values for None.

        BadInput when an inpainting model gets no mask, when the strength leaves no step, for a canvas that the model
        cannot draw, for unreadable pictures, for weights of words that the prompt does not have, for regions beside a
        picture, or for pruning where there is nothing to prune.
        """
        check_layout(self.diffusion, settings)
        beyond = is_beyond(settings)
        if self.diffusion.is_inpainting and not (settings.mask or beyond):
            raise BadInput("diffuse.only_completes")
        picture = on_white(open_picture(settings.image)) if settings.image else None
        fitted, size = fit(settings, picture, self.diffusion)
        fields: dict[str, Any] = {"width": size[0], "height": size[1]}
        if picture is not None and fitted is not None:
            fields["image"] = picture_to_uri(fitted)
            if settings.mask:
                mask = fitted_mask(settings.mask, picture, fitted.size, settings.invert)
                fields["mask"] = picture_to_uri(mask)
        if beyond:
            fields["strength"] = 1.0  # there is nothing to start from
        rewritten = bool(settings.source_prompt or settings.word_weights)  # word by word, as they are
        fields["read_as"] = settings.known_by(
            lambda text: self.diffusion.read_prompt(text).known_as, rewritten
        )
        settings = replace(settings, **fields)
        settings = replace(
            settings,
            candidates=settings.candidates or self.diffusion.proposed_candidates,
            regions=self._regions(settings),
            **proposed(self.diffusion, settings, picture is not None),
        )
        check_pruning(settings)
        return settings

    def _regions(self, settings: DiffuseSettings) -> str:
        """What lies where, of prepared settings."""
        whole, model = [name for name in WHOLE if getattr(settings, name)], self.diffusion
        return proposed_regions(
            settings.regions,
            settings.drawn_prompt,
            whole,
            model.mixes_things,
            model.read_prompt,
        )

    def read_prompt(self, prompt: str) -> Reading:
        """The pieces of a prompt that the model reads, its limit, what is cut off, and the unknown words.

        BadInput when the prompt does not follow the grammar of terms.
        """
        read = self.diffusion.read_prompt
        joint = joint_reading([read(text) for text, _ in parse_terms(prompt)])
        return replace(joint, known_as=in_known_words(prompt, lambda text: read(text).known_as))

    # -------------------------------------------------------------------------------------------------------- running

    @torch.no_grad()
    def draw(self, settings: DiffuseSettings, chosen: Sequence[int]) -> Generator[Step, None, list[Drawn]]:
        """A Step a denoising step and a batch."""
        assert settings.candidates is not None
        batches, drawn = self.batches(settings), list[Drawn]()
        if settings.prune:
            pruning = Pruning(self.diffusion, self.clip, settings, self.preview)
            for number in chosen:
                drawn.append((yield from pruning.draw(batches[number])))
            return drawn
        scene = read_scene(self.diffusion, settings)
        small = sketch_size(self.diffusion, settings, scene)
        large = after_sketch(settings, small)
        collage = Collage.of(self.diffusion, settings)
        before = len(collage.texts) if collage else int(small is not None)  # walks before that of the canvas
        read: Any = None
        for batch in (batches[number] for number in chosen):
            if read is None or batch.looks:
                read = self._read(large, batch.row_looks)
            known, parts = None if scene is None else scene.known, None
            if scene is not None and small is not None:
                model, prompt = under_looks(self.diffusion, settings.drawn_prompt, batch.row_looks)
                own = replace(settings, prompt=prompt, read_as="")
                known = yield from self._steps(
                    sketched(model, own, batch.row_seeds, scene, small), batch, 0, 1 + before
                )
            if collage is not None:
                alone = dict[str, list[Image.Image]]()
                for part, text in enumerate(collage.texts):
                    ticks = collage.draw(text, batch.row_seeds, batch.row_looks)
                    alone[text] = yield from self._steps(ticks, batch, part, 1 + before)
                known = collage.laid(alone)
                parts = score_parts(self.clip, {text: self._see(images) for text, images in alone.items()})
            walking = self._walk(settings, batch, read[0], known, read[1])
            latents = yield from self._steps(walking, batch, before, 1 + before)
            decoded = self.diffusion.decode(latents)
            images = to_pil(decoded) if scene is None else scene.finished(decoded)
            judged = to_tensor(images).to(self.clip.device)
            count = len(batch.seeds)
            facts = [settings.read(look) for look in batch.row_looks[:count]]
            vectors, shown = self.clip.encode_image(judged)[:count], judged[:count]
            parts = None if parts is None else parts[:count]
            drawn.append(Drawn(batch.seeds, facts, vectors, images[:count], parts=parts))
            yield Step("rank", batch.finished, settings.candidates, {}, lambda shown=shown: shown)
        return drawn

    @torch.no_grad()
    def choose(self, settings: DiffuseSettings, drawn: Sequence[Drawn]) -> list[Picture]:
        """Rank the candidates of all batches."""
        seeds = [seed for part in drawn for seed in part.seeds]
        facts = [fact for part in drawn for fact in part.facts]
        images = [image for part in drawn for image in part.images]
        vectors = torch.cat([part.vectors for part in drawn])
        guesses = [part.guesses for part in drawn if part.guesses is not None]
        parts = [part.parts for part in drawn if part.parts is not None]
        more = (torch.cat(found) if found else None for found in (guesses, parts))
        ranking = rank(self.clip, settings.terms(), vectors, *more)
        return [
            Picture(images[k], seeds[k], ranking.scores[k], {**ranking.facts(k, seeds), **facts[k]})
            for k in ranking.kept(settings.keep, settings.hide_duplicates)
        ]

    def batches(self, settings: DiffuseSettings) -> list[Batch]:
        """As Splits says."""
        assert settings.width is not None and settings.height is not None
        looks = settings.looks()
        rows = together(settings, self.diffusion.rows(settings.width, settings.height))
        seeds = candidate_seeds(settings.seed, begun(settings))
        return spread(seeds, looks, rows, needs_words(self.diffusion, looks))

    def _see(self, images: list[Image.Image]) -> Tensor:
        """(n, d) what CLIP sees in pictures."""
        return self.clip.encode_image(to_tensor(images).to(self.clip.device))

    def _read(self, settings: DiffuseSettings, looks: list[str]) -> tuple[tuple[Any, Course], Layout | None]:
        """What rows are drawn by: their condition and course, and their layout. `looks` are theirs."""
        assert settings.width is not None and settings.height is not None
        model, prompt = under_looks(self.diffusion, settings.drawn_prompt, looks)
        rows = self.diffusion.rows(settings.width, settings.height)
        settings = replace(settings, prompt=prompt, read_as="")
        return course_of(model, settings, rows), read_layout(model, settings, rows)

    def _walk(
        self,
        settings: DiffuseSettings,
        batch: Batch,
        conditions: tuple[Any, Course],
        known: Known | None,
        layout: Layout | None,
    ) -> Walk:
        """The walk of one batch to (rows, c, h, w) latents."""
        assert settings.steps is not None and settings.width is not None and settings.height is not None
        size, steps, guidance = (settings.width, settings.height), settings.steps, settings.guidance or 0.0

        def begin(condition: Any, course: Course) -> Walk:
            return walk(self.diffusion, batch.row_seeds, size, condition, steps, guidance, known, course)

        return begin(*conditions) if layout is None else layout.walk(begin, *conditions)

    def _steps(
        self, ticks: Generator[Tick, None, T], batch: Batch, part: int, parts: int
    ) -> Generator[Step, None, T]:
        """A Step for each tick of one part of a batch, all parts counted as long as this one; what the ticks return."""

        def step(tick: Tick) -> Step:
            done, total = (
                (batch.index * parts + part) * tick.total + tick.done,
                batch.count * parts * tick.total,
            )
            shown = len(batch.seeds)
            return Step("draw", done, total, {}, lambda: preview(self.diffusion, tick, shown, self.preview))

        return mapped(ticks, step)
