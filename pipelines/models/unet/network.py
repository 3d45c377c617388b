"""A small unconditional diffusion model (Ho et al. 2020), the base that DiffusionCLIP edits with. It predicts the noise.

diffusers' UNet2DModel is the network. A pixel-unshuffle in front and a pixel-shuffle behind spare the costly
full-resolution layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models.base import Denoiser
from pipelines.models.checkpoint import Config

CLEAN = -1  # the step before the first, where nothing of the picture is lost


@dataclass(frozen=True)
class UnetConfig(Config):
    """Sizes, and the noise. Inside, the side is `image_size / patch`, then halved at every width after the first.

    The variances grow linearly, as in Ho et al. 2020 and in every open checkpoint that DiffusionCLIP is used with, so
    that a return step means the same noise in both packs. It also suits the pictures: on emoji at 64 x 64 the share of
    the variance that is still unknown rises almost evenly with t, where the cosine schedule leaves more than half of
    it to the last tenth of the steps.
    """

    image_size: int = 64
    patch: int = 2
    widths: tuple[int, ...] = (64, 96, 128)
    layer_count: int = 1
    attention_count: int = 2  # how many levels have attention, counted from the coarsest
    head_size: int = 32
    first_beta: float = 1e-4
    last_beta: float = 0.02
    step_count: int = 1000

    @property
    def factor(self) -> int:
        """The sides of a picture must be multiples of this."""
        return self.patch * 2 ** (len(self.widths) - 1)


class Unet(nn.Module):
    """Predicts the noise. `alphas_cumprod` (step_count,) float32 is the share of the picture's variance left at each t."""

    alphas_cumprod: Tensor

    def __init__(self, config: UnetConfig):
        super().__init__()
        from diffusers import UNet2DModel  # costs seconds to import, so only when a network is made

        self.config = config
        attends = [k >= len(config.widths) - config.attention_count for k in range(len(config.widths))]
        self.network = UNet2DModel(
            in_channels=3 * config.patch**2,
            out_channels=3 * config.patch**2,
            down_block_types=tuple("AttnDownBlock2D" if yes else "DownBlock2D" for yes in attends),
            up_block_types=tuple("AttnUpBlock2D" if yes else "UpBlock2D" for yes in reversed(attends)),
            block_out_channels=config.widths,
            layers_per_block=config.layer_count,
            attention_head_dim=config.head_size,
            norm_num_groups=8,
            resnet_time_scale_shift="scale_shift",
        )
        betas = torch.linspace(config.first_beta, config.last_beta, config.step_count, dtype=torch.float64)
        self.register_buffer("alphas_cumprod", (1 - betas).cumprod(0).float(), persistent=False)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(n, 3, s, s) noisy pictures and (n,) long steps in [0, step_count) -> (n, 3, s, s), the noise in them."""
        small = F.pixel_unshuffle(x, self.config.patch)
        return F.pixel_shuffle(self.network(small, t, return_dict=False)[0], self.config.patch)


def guess(x: Tensor, noise: Tensor, alpha: Tensor | float) -> Tensor:
    """The clean picture that x and the noise in it point to (Song et al. 2021, DDIM, equation 9)."""
    return (x - (1 - alpha) ** 0.5 * noise) / alpha**0.5


def ddim_step(x: Tensor, noise: Tensor, alpha_from: Tensor | float, alpha_to: Tensor | float) -> Tensor:
    """One deterministic step (Song et al. 2021, DDIM, equation 12 with sigma = 0): (n, 3, s, s) -> (n, 3, s, s).

    `noise` is the noise predicted in `x`; the alphas are values of `alphas_cumprod` in (0, 1], 1 for a clean picture,
    as numbers or tensors that broadcast against `x`. With alpha_to above alpha_from it takes noise away; with
    alpha_to below, it puts noise in (DDIM inversion).
    """
    return alpha_to**0.5 * guess(x, noise, alpha_from) + (1 - alpha_to) ** 0.5 * noise


@torch.no_grad()
def walk(unet: Denoiser, x: Tensor, start: int, end: int, count: int) -> Tensor:
    """(n, 3, s, s) at step `start` -> (n, 3, s, s) at step `end` in `count` DDIM steps, up or down; CLEAN is below 0.

    The noise is always predicted at the step where the walk stands, as DiffusionCLIP does in both directions.
    """
    alphas = [1.0, *unet.alphas_cumprod.tolist()]
    steps = np.linspace(start, end, count + 1).round().astype(int).tolist()
    for here, there in pairwise(steps):
        times = torch.full((len(x),), max(here, 0), device=x.device)
        x = ddim_step(x, unet(x, times), alphas[here + 1], alphas[there + 1])
    return x
