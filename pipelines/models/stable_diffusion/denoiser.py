"""Stable Diffusion as a Denoiser: the noise in its normalized latents, whatever its network predicts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipelines.errors import BadInput
from pipelines.models.base import DenoiserConfig
from pipelines.models.stable_diffusion.network import StableDiffusion


class StableDenoiser(nn.Module):
    """Predicts the noise in normalized latents (n, c, h, w), under a text. BadInput for a model that only completes."""

    alphas_cumprod: Tensor
    reads_text = True

    def __init__(self, diffusion: StableDiffusion, prompt: str = "", guidance: float = 1.0):
        super().__init__()
        if diffusion.is_inpainting:
            raise BadInput("guide.only_completes")
        self.diffusion, self.prompt, self.guidance = diffusion, prompt, guidance
        # As modules, so that all weights on which its predictions depend are parameters of it.
        self.unet, self.vae = diffusion.pipe.unet, diffusion.pipe.vae
        alphas = diffusion.pipe.scheduler.alphas_cumprod.float().to(diffusion.device)
        self.register_buffer("alphas_cumprod", alphas, persistent=False)
        self._conditions: dict[tuple[int, int, int], Any] = {}  # by rows, width and height

    @property
    def config(self) -> DenoiserConfig:
        """Its sizes."""
        return self.diffusion

    @property
    def network(self) -> nn.Module:
        """The UNet of diffusers."""
        return self.unet

    @property
    def proposed_guidance(self) -> float:
        """That of its kind."""
        return self.diffusion.proposed_guidance

    def under(self, prompt: str, guidance: float = 1.0) -> StableDenoiser:
        """The same weights under a text, "" for none, with classifier-free guidance."""
        return StableDenoiser(self.diffusion, prompt, guidance)

    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> normalized latents (n, c, h, w): a sample of fixed random numbers."""
        generators = [torch.Generator().manual_seed(0) for _ in images]
        return self.diffusion.sample(self.diffusion.encode(images), generators)

    def decode(self, x: Tensor) -> Tensor:
        """Normalized latents (n, c, h, w) -> (n, 3, h * factor, w * factor), about [-1, 1]."""
        return self.diffusion.decode(x)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(n, c, h, w) noisy latents, all at one step t (n,) int64 -> (n, c, h, w), the noise in them."""
        guided, step = self.guidance != 1, t[0]
        output = self.diffusion.predict(
            torch.cat([x] * (1 + guided)), step, self._condition(len(x), *x.shape[2:])
        )
        if guided:
            uncond, cond = output.chunk(2)
            output = uncond + self.guidance * (cond - uncond)
        alpha = self.alphas_cumprod[step]
        return (x - alpha.sqrt() * self.diffusion.clean(x, output, step)) / (1 - alpha).sqrt()

    def _condition(self, rows: int, height: int, width: int) -> Any:
        """What the network needs besides latents of this size; with guidance, first that of no text."""
        key = rows, width * self.diffusion.factor, height * self.diffusion.factor
        if key not in self._conditions:
            self._conditions = {
                key: self.diffusion.condition(self.prompt, "", key[1], key[2], rows, self.guidance != 1)
            }
        return self._conditions[key]
