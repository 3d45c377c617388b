"""A small unconditional diffusion model (Ho et al. 2020) that predicts noise, the base model of Edit; and DDIM steps.

The network is UNet2DModel of diffusers, between a pixel-unshuffle and a pixel-shuffle, which avoid layers at full
resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.models.base import Denoiser, PixelDenoiser, linear_alphas_cumprod
from pipelines.models.checkpoint import Config
from pipelines.models.typed import floats

CLEAN = -1  # the step before the first, where nothing of the picture is lost


@dataclass(frozen=True)
class UnetConfig(Config):
    """Sizes and noise schedule. The network's side is `image_size / patch`, halved at every width after the first.

    The variances (betas) grow linearly, as in Ho et al. 2020 and in the open checkpoints that DiffusionCLIP is used
    with, so that a return step means the same noise level in all packs. On emoji at 64 x 64 the share of variance that
    is still unknown rises almost evenly with t; with the cosine schedule more than half of the rise is in the last
    tenth of the steps.
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
        """The sides of a picture must be multiples of this, in pixels."""
        return self.patch * 2 ** (len(self.widths) - 1)


class Unet(PixelDenoiser):
    """Predicts the noise. `alphas_cumprod` (step_count,) float32 is the picture's share of the variance at each t."""

    def __init__(self, config: UnetConfig):
        super().__init__(linear_alphas_cumprod(config.first_beta, config.last_beta, config.step_count))
        # Costs seconds to import, so only when a network is made.
        from diffusers.models.unets.unet_2d import UNet2DModel

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

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(n, 3, s, s) noisy pictures and (n,) int64 steps in [0, step_count) -> (n, 3, s, s), the noise in them."""
        small = F.pixel_unshuffle(x, self.config.patch)
        return F.pixel_shuffle(self.network(small, t, return_dict=False)[0], self.config.patch)


def predict_x0(x: Tensor, noise: Tensor, alpha: Tensor | float) -> Tensor:
    """The clean picture predicted from x and the noise in it: (n, 3, s, s) -> the same shape.

    `alpha` is the value of `alphas_cumprod` at x's step, in (0, 1]. Song et al. 2021, DDIM, equation 9.
    """
    return (x - (1 - alpha) ** 0.5 * noise) / alpha**0.5


def ddim_step(x: Tensor, noise: Tensor, alpha_from: Tensor | float, alpha_to: Tensor | float) -> Tensor:
    """One deterministic step (Song et al. 2021, DDIM, equation 12 with sigma = 0): (n, 3, s, s) -> (n, 3, s, s).

    `noise` is the noise predicted in `x`; the alphas are values of `alphas_cumprod` in (0, 1], 1 for a clean picture,
    as numbers or tensors that broadcast against `x`. The step denoises if alpha_to is above
    alpha_from, and adds noise (DDIM inversion) if it is below.
    """
    return alpha_to**0.5 * predict_x0(x, noise, alpha_from) + (1 - alpha_to) ** 0.5 * noise


@torch.no_grad()
def ddim_walk(unet: Denoiser, x: Tensor, start: int, end: int, count: int) -> Tensor:
    """(n, 3, s, s) at step `start` -> (n, 3, s, s) at step `end` by `count` DDIM steps in either direction.

    Steps are in [0, step_count), or CLEAN. The noise of each DDIM step is predicted at the step where it begins, as in
    DiffusionCLIP (Kim et al. 2022), both when noise is added and when it is removed.
    """
    alphas = [1.0, *floats(unet.alphas_cumprod)]
    steps: list[int] = np.linspace(start, end, count + 1).round().astype(int).tolist()
    for step, next_step in pairwise(steps):
        times = torch.full((len(x),), max(step, 0), device=x.device)
        x = ddim_step(x, unet(x, times), alphas[step + 1], alphas[next_step + 1])
    return x
