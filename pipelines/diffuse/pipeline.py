"""Diffuse (Rombach et al. 2022; Podell et al. 2023; Sauer et al. 2023): candidates by Stable Diffusion, ranked by CLIP.

Networks and schedulers are those of diffusers; the denoising loop is written out here, so that every step is a Step. It
starts from a prompt alone, from a picture (Meng et al. 2022, SDEdit), or within a mask.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from PIL import Image, ImageOps
from torch import Tensor

from pipelines.clip.ranking import rank
from pipelines.core.candidates import Batch, Reading, batches, candidate_seeds
from pipelines.core.pipeline import Picture, Pipeline, Step
from pipelines.core.settings import Settings
from pipelines.diffuse.latents import Scene, begin, decode, fitted_mask, preview_x0, read_scene
from pipelines.diffuse.load import is_inpainting, is_turbo, is_xl
from pipelines.diffuse.settings import MAX_SIDE, MIN_SIDE, SIDE_MULTIPLE, DiffuseSettings
from pipelines.errors import BadInput
from pipelines.io.images import on_white, open_picture, picture_to_uri, to_pil, to_tensor
from pipelines.models.base import Clip


@dataclass
class Diffuse(Pipeline[DiffuseSettings]):
    """Draws candidates with Stable Diffusion, from a prompt, a picture or within a mask, and ranks them by CLIP.

    `diffusion` is a diffusers pipeline of one of KINDS.
    """

    diffusion: Any
    clip: Clip

    Settings: ClassVar[type[Settings]] = DiffuseSettings

    # ------------------------------------------------------------------------------------------------------ preparing

    def prepare(self, settings: DiffuseSettings) -> DiffuseSettings:
        """The settings with pictures as PNG data URIs in the size of the run, and with proposed values for None.

        BadInput when an inpainting model gets no mask, when the strength leaves no step, or for unreadable pictures.
        """
        if is_inpainting(self.diffusion) and not settings.mask:
            raise BadInput("diffuse.only_completes")
        picture = on_white(open_picture(settings.image)) if settings.image else None
        size = self._size(settings, picture)
        fields: dict[str, Any] = {"width": size[0], "height": size[1]}
        if picture is not None:
            fields["image"] = picture_to_uri(ImageOps.fit(picture, size, Image.Resampling.LANCZOS))
            if settings.mask:
                fields["mask"] = picture_to_uri(fitted_mask(settings.mask, picture, size))
        turbo, large = is_turbo(self.diffusion), is_xl(self.diffusion)
        own = 1 if turbo else 30 if large else 25
        if picture is not None:
            own = max(own, math.ceil(1 / settings.strength))
        fields["steps"] = settings.steps or own
        fields["guidance"] = settings.guidance
        if settings.guidance is None:
            fields["guidance"] = 1.0 if turbo else 5.0 if large else 7.5
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
            side = self.diffusion.unet.config.sample_size * self.diffusion.vae_scale_factor
            width = side * aspect**0.5
        width = width or height * aspect
        height = height or width / aspect
        w, h = (
            min(max(round(side / SIDE_MULTIPLE) * SIDE_MULTIPLE, MIN_SIDE), MAX_SIDE)
            for side in (width, height)
        )
        return w, h

    def read_prompt(self, prompt: str) -> Reading:
        """The pieces of a prompt that the model reads, its limit, and the text that is cut off; no word is unknown."""
        tokenizer = self.diffusion.tokenizer or self.diffusion.tokenizer_2
        limit = tokenizer.model_max_length - 2
        read = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        spans = read["offset_mapping"]
        cut = prompt[spans[limit][0] :] if len(spans) > limit else ""
        return Reading([prompt[start:end] for start, end in spans[:limit]], limit, cut.strip(), [])

    # -------------------------------------------------------------------------------------------------------- running

    @torch.no_grad()
    def __call__(self, settings: DiffuseSettings) -> Generator[Step, None, list[Picture]]:
        """Yield a Step a denoising step and a batch; return the best pictures.

        Batches have one fixed size, so that a candidate does not depend on the other candidates of its batch.
        """
        seeds = candidate_seeds(settings.seed, settings.candidates)
        rows = self._rows(settings)
        scene = read_scene(self.diffusion, settings)
        conditioning = self._conditioning(settings, rows)
        drawn: list[Image.Image] = []
        vectors: list[Tensor] = []
        for batch in batches(seeds, rows):
            latents = yield from self._draw(settings, batch, conditioning, scene)
            images = to_pil(torch.cat([decode(self.diffusion.vae, row[None]) for row in latents]))
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

    def _rows(self, settings: DiffuseSettings) -> int:
        """Rows of a batch, by the size of the picture alone; when fewer candidates are left, the rest are unused.

        A CPU gains nothing from batches. A GPU gains while pictures are small.
        """
        assert settings.width is not None and settings.height is not None
        if self._device.type == "cpu":
            return 1
        return min(max(4 * 512**2 // (settings.width * settings.height), 1), 4)

    @property
    def _device(self) -> torch.device:
        return self.diffusion.unet.device

    def _conditioning(self, settings: DiffuseSettings, rows: int) -> dict[str, Any]:
        """The network's inputs besides the latents; when guided, the rows of the negative prompt come first."""
        pipe, guided = self.diffusion, (settings.guidance or 0) > 1
        asked = (settings.prompt, self._device, 1, guided, settings.negative_prompt or None)
        unet, added = pipe.unet, {}

        def stacked(cond: Tensor, uncond: Tensor | None) -> Tensor:
            tensors = [x.expand(rows, *x.shape[1:]) for x in (uncond, cond) if x is not None]
            return torch.cat(tensors).to(unet.device, unet.dtype)

        if is_xl(pipe):
            prompt, device, *rest = asked
            cond, uncond, cond_pooled, uncond_pooled = pipe.encode_prompt(prompt, None, device, *rest)
            size = [settings.height, settings.width]
            sizes = torch.tensor([[*size, 0, 0, *size]])  # of the picture, where its crop is, of the crop
            added["added_cond_kwargs"] = {
                "text_embeds": stacked(cond_pooled, uncond_pooled if guided else None),
                "time_ids": stacked(sizes, sizes if guided else None),
            }
        else:
            cond, uncond = pipe.encode_prompt(*asked)
        return {**added, "encoder_hidden_states": stacked(cond, uncond if guided else None)}

    def _draw(
        self, settings: DiffuseSettings, batch: Batch, conditioning: dict[str, Any], scene: Scene | None
    ) -> Generator[Step, None, Tensor]:
        """Denoise one batch. Yields a Step for each step of the scheduler and returns (rows, c, h, w) float32 latents."""
        pipe, unet = self.diffusion, self.diffusion.unet
        scheduler = copy.deepcopy(pipe.scheduler)  # it counts its steps, and is shared
        scheduler.set_timesteps(settings.steps, device=self._device)
        generators = [torch.Generator().manual_seed(seed) for seed in batch.row_seeds]
        start = begin(pipe, scheduler, settings, scene, generators)
        latents, times, known = start.latents, start.times, start.known
        mask = None if scene is None or is_inpainting(pipe) else scene.small_mask
        guidance = settings.guidance or 0.0
        guided = guidance > 1
        extra = pipe.prepare_extra_step_kwargs(generators, 0.0)
        for k, t in enumerate(times):
            scaled = scheduler.scale_model_input(latents, t)
            inputs = scaled if start.mask_channels is None else torch.cat([scaled, start.mask_channels], 1)
            inputs = torch.cat([inputs] * (1 + guided)).to(unet.dtype)
            noise = unet(inputs, t, **conditioning, return_dict=False)[0].float()
            if guided:
                uncond, cond = noise.chunk(2)
                noise = uncond + guidance * (cond - uncond)
            latents = scheduler.step(noise, t, latents, **extra, return_dict=False)[0]
            if mask is not None and known is not None:
                outside = known
                if k + 1 < len(times):
                    outside = scheduler.add_noise(known, start.noise, times[k + 1 : k + 2])
                latents = (1 - mask) * outside + mask * latents
            shown = (scaled[: len(batch.seeds)], noise[: len(batch.seeds)], t)
            done, total = batch.index * len(times) + k + 1, batch.count * len(times)
            yield Step("draw", done, total, {}, lambda shown=shown: preview_x0(pipe, *shown))
        return latents
