"""Rectified flows (Liu et al. 2023) over pipelines of diffusers, as LatentDiffusions: what all of them share.

Their networks' output is a velocity. A scheduler moves the times towards noise, the more the larger the picture is (Esser
et al. 2024).
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipelines.models.base import Reading
from pipelines.models.latent_diffusion import OWN
from pipelines.models.schedulers import flow_scheduler
from pipelines.models.typed import floats


@dataclass(frozen=True)
class Flow(ABC):
    """Base of flows over a diffusers pipeline that `load_diffusers` returned.

    The VAE is that of most: 8 pixels a latent, which is shifted and scaled.
    """

    pipe: Any

    proposed_candidates = 4
    proposed_rounds = 0
    proposed_pull = 0.0
    mixes_things = False
    is_inpainting = False

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return self.pipe.transformer.device

    @property
    def image_size(self) -> int:
        """The side of the pictures that it draws best, in pixels: 1024 in all published models."""
        return self.pipe.vae.config.sample_size

    @property
    def side_multiple(self) -> int:
        """The sides of a picture are multiples of this, in pixels: the network reads patches of 2 x 2 of the VAE's."""
        return 2 * self.pipe.vae_scale_factor

    @property
    def factor(self) -> int:
        """Pixels per latent, along a side."""
        return self.pipe.vae_scale_factor

    @property
    def latent_channels(self) -> int:
        """Numbers per latent."""
        return self.pipe.vae.config.latent_channels

    @property
    @abstractmethod
    def proposed_steps(self) -> int:
        """Steps of the scheduler, where nobody asks for others."""

    @property
    @abstractmethod
    def proposed_guidance(self) -> float:
        """The scale of guidance, where nobody asks for another; 1 for networks that are distilled with theirs."""

    def mu(self, steps: int, places: int) -> float:
        """The logarithm of the shift of the times for so many patches, on a line between two sizes of pictures.

        As FLUX.1 counts it; Esser et al. 2024 give the shift itself (equation 23).
        """
        config = self.pipe.scheduler.config
        small, large = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        first, last = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        return first + (last - first) * (places - small) / (large - small)

    @abstractmethod
    def predict(self, latents: Tensor, t: Tensor, condition: Any, more: Tensor | None = None) -> Tensor:
        """The velocity (n, c, h, w), noise minus picture, in float32; t counts thousandths."""

    def rows(self, width: int, height: int) -> int:
        """One on a CPU; up to 4 on a GPU, while the pictures are small."""
        return 1 if self.device.type == "cpu" else min(max(2 * 1024**2 // (width * height), 1), 4)

    @abstractmethod
    def read_prompt(self, prompt: str) -> Reading:
        """The pieces that its language model reads; no word is unknown."""

    def times(self, steps: int) -> list[float] | None:
        """The times of the steps before they are moved, from 1 down; None for the scheduler's own."""
        return floats(torch.linspace(1, 1 / steps, steps))

    def scheduler(self, steps: int, sampler: str = OWN, size: tuple[int, int] = (1024, 1024)) -> Any:
        """A copy of the pipeline's own scheduler, or another one on the same line, for (width, height) in pixels."""
        places = size[0] * size[1] // self.side_multiple**2
        own = self.pipe.scheduler
        mu = self.mu(steps, places)
        if sampler != OWN:
            factor = math.exp(mu) if own.config.use_dynamic_shifting else own.config.shift
            return flow_scheduler(sampler, steps, self.device, factor)
        scheduler = copy.deepcopy(own)
        scheduler.set_timesteps(steps, sigmas=self.times(steps), device=self.device, mu=mu)
        return scheduler

    def clean(self, latents: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """The end of the line on which latents at time t move with a velocity: (n, c, h, w)."""
        return latents - t.to(latents) / 1000 * output

    def encode(self, images: Tensor) -> Any:
        """(n, 3, h, w) in [-1, 1] -> the VAE's distribution of the latents of each, not normalized."""
        vae = self.pipe.vae
        return [vae.encode(image[None].to(vae.dtype)).latent_dist for image in images]

    def sample(self, distribution: Any, generators: list[torch.Generator]) -> Tensor:
        """Normalized latents (n, c, h, w), one sample for each of n generators."""
        config = self.pipe.vae.config
        rows = distribution if len(distribution) > 1 else distribution * len(generators)
        drawn = [row.sample(generator=one) for row, one in zip(rows, generators, strict=True)]
        return (torch.cat(drawn).float() - config.shift_factor) * config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Normalized latents (n, c, h, w) -> (n, 3, H, W) float32, about [-1, 1], one after the other."""
        vae = self.pipe.vae
        own = (latents / vae.config.scaling_factor + vae.config.shift_factor).to(vae.dtype)
        return torch.cat([vae.decode(row[None], return_dict=False)[0].float() for row in own])
