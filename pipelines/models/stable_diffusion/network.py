"""Stable Diffusion as a LatentDiffusion (Rombach et al. 2022; Podell et al. 2023; Sauer et al. 2023)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipelines.models.attention import Control
from pipelines.models.base import Reading, reading_by
from pipelines.models.latent_diffusion import OWN
from pipelines.models.schedulers import diffusion_scheduler
from pipelines.models.words import PromptTokens


@dataclass(frozen=True)
class StableDiffusion:
    """The networks and the scheduler of a diffusers pipeline that `load_diffusers` returned."""

    pipe: Any

    proposed_candidates = 4
    proposed_rounds = 0
    proposed_pull = 0.0
    mixes_things = False

    @property
    def device(self) -> torch.device:
        """The device of the UNet."""
        return self.pipe.unet.device

    @property
    def image_size(self) -> int:
        """The side of the pictures that it draws best, in pixels."""
        return self.pipe.unet.config.sample_size * self.factor

    @property
    def factor(self) -> int:
        """Pixels per latent, along a side."""
        return self.pipe.vae_scale_factor

    @property
    def side_multiple(self) -> int:
        """The sides of a picture are multiples of this, in pixels."""
        return self.factor

    @property
    def latent_channels(self) -> int:
        """Numbers per latent."""
        return self.pipe.vae.config.latent_channels

    @property
    def is_xl(self) -> bool:
        """Whether it is Stable Diffusion XL, which has two text encoders."""
        return hasattr(self.pipe, "text_encoder_2")

    @property
    def is_inpainting(self) -> bool:
        """Whether the network has 9 input channels, with the mask and the masked picture."""
        return self.pipe.unet.config.in_channels == 9

    @property
    def is_turbo(self) -> bool:
        """Whether it is made for one step: its scheduler's spacing is "trailing" with unscaled betas."""
        config = self.pipe.scheduler.config
        return config.get("timestep_spacing") == "trailing" and not config.get("rescale_betas_zero_snr")

    @property
    def proposed_steps(self) -> int:
        """1 for Turbo, 30 for XL, else 25."""
        return 1 if self.is_turbo else 30 if self.is_xl else 25

    @property
    def proposed_guidance(self) -> float:
        """1 for Turbo, 5 for XL, else 7.5."""
        return 1.0 if self.is_turbo else 5.0 if self.is_xl else 7.5

    def rows(self, width: int, height: int) -> int:
        """One on a CPU, which gains nothing from batches of such pictures; up to 4 on a GPU, while they are small."""
        return 1 if self.device.type == "cpu" else min(max(4 * 512**2 // (width * height), 1), 4)

    def read_prompt(self, prompt: str) -> Reading:
        """The pieces that its first tokenizer reads; no word is unknown."""
        tokenizer = self.pipe.tokenizer or self.pipe.tokenizer_2
        return reading_by(tokenizer, prompt, tokenizer.model_max_length - 2)

    def condition(
        self, prompt: str, negative_prompt: str, width: int, height: int, rows: int, guided: bool
    ) -> dict[str, Any]:
        """The UNet's inputs besides latents and time; when guided, the rows of the negative prompt come first."""
        pipe, unet, added = self.pipe, self.pipe.unet, {}
        rest = (1, guided, negative_prompt or None)

        def stacked(cond: Tensor, uncond: Tensor | None) -> Tensor:
            tensors = [x.expand(rows, *x.shape[1:]) for x in (uncond, cond) if x is not None]
            return torch.cat(tensors).to(unet.device, unet.dtype)

        if self.is_xl:
            cond, uncond, cond_pooled, uncond_pooled = pipe.encode_prompt(prompt, None, self.device, *rest)
            size = [height, width]
            sizes = torch.tensor([[*size, 0, 0, *size]])  # of the picture, where its crop is, of the crop
            added["added_cond_kwargs"] = {
                "text_embeds": stacked(cond_pooled, uncond_pooled if guided else None),
                "time_ids": stacked(sizes, sizes if guided else None),
            }
        else:
            cond, uncond = pipe.encode_prompt(prompt, self.device, *rest)
        return {**added, "encoder_hidden_states": stacked(cond, uncond if guided else None)}

    def prompt_tokens(self, prompt: str) -> PromptTokens:
        """The tokens that its first tokenizer reads, after the start token; XL's second one makes the same ones."""
        tokenizer = self.pipe.tokenizer or self.pipe.tokenizer_2
        read = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return PromptTokens(prompt, tuple(read["offset_mapping"][: tokenizer.model_max_length - 2]), 1)

    def controlled(self, condition: dict[str, Any], control: Control) -> dict[str, Any]:
        """The condition with a control of attention."""
        return {**condition, "cross_attention_kwargs": {"control": control}}

    def mixture(self, t: Tensor) -> tuple[float, float]:
        """The square roots of alpha_cumprod and of 1 - alpha_cumprod."""
        alpha = self.pipe.scheduler.alphas_cumprod[round(t.item())].item()
        return alpha**0.5, (1 - alpha) ** 0.5

    def scheduler(self, steps: int, sampler: str = OWN, size: tuple[int, int] = (0, 0)) -> Any:
        """A copy of the pipeline's own scheduler, which counts its steps and is shared, or another one made from it."""
        if sampler != OWN:
            return diffusion_scheduler(self.pipe.scheduler, sampler, steps, self.device)
        scheduler = copy.deepcopy(self.pipe.scheduler)
        scheduler.set_timesteps(steps, device=self.device)
        return scheduler

    def predict(self, latents: Tensor, t: Tensor, condition: Any, more: Tensor | None = None) -> Tensor:
        """The UNet's output (n, c, h, w), in float32."""
        inputs = latents if more is None else torch.cat([latents, more], 1)
        return self.pipe.unet(inputs.to(self.pipe.unet.dtype), t, **condition, return_dict=False)[0].float()

    def clean(self, latents: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """The clean latents (n, c, h, w) that an output means: noise, velocity (v) or the latents themselves."""
        alpha = self.pipe.scheduler.alphas_cumprod[round(t.item())].item()
        kind = self.pipe.scheduler.config.prediction_type
        if kind == "v_prediction":
            return alpha**0.5 * latents - (1 - alpha) ** 0.5 * output
        return output if kind == "sample" else (latents - (1 - alpha) ** 0.5 * output) / alpha**0.5

    def encode(self, images: Tensor) -> list[Any]:
        """(n, 3, h, w) in [-1, 1] -> the VAE's distribution of the latents of each, not normalized."""
        vae = self.pipe.vae
        return [vae.encode(image[None].to(vae.dtype)).latent_dist for image in images]

    def sample(self, distribution: list[Any], generators: list[torch.Generator]) -> Tensor:
        """Normalized latents (n, c, h, w), one sample for each of n generators."""
        rows = distribution if len(distribution) > 1 else distribution * len(generators)
        pairs = zip(rows, generators, strict=True)
        drawn = torch.cat([row.sample(generator=generator) for row, generator in pairs]).float()
        mean, deviation = self._latent_stats()
        return (drawn - mean) / deviation

    def decode(self, latents: Tensor) -> Tensor:
        """Normalized latents (n, c, h, w) -> (n, 3, H, W) float32, about [-1, 1], one after the other."""
        mean, deviation = self._latent_stats()
        own = (latents * deviation + mean).to(self.pipe.vae.dtype)
        return torch.cat([self.pipe.vae.decode(row[None], return_dict=False)[0].float() for row in own])

    def _latent_stats(self) -> tuple[Tensor | float, Tensor | float]:
        """Mean and deviation of the VAE's own latents: numbers, or in some models tensors (1, c, 1, 1)."""
        vae = self.pipe.vae
        means, deviations = vae.config.get("latents_mean"), vae.config.get("latents_std")
        if means is None or deviations is None:
            return 0.0, 1 / vae.config.scaling_factor
        mean, deviation = (
            torch.tensor(values, device=vae.device).view(1, -1, 1, 1) for values in (means, deviations)
        )
        return mean, deviation / vae.config.scaling_factor
