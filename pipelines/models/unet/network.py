"""A small unconditional diffusion model of pixels (Ho et al. 2020) that predicts noise.

The network is UNet2DModel of diffusers, between a pixel-unshuffle and a pixel-shuffle, which avoid layers at full
resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from pipelines.models.base import PixelDenoiser
from pipelines.models.checkpoint import Config
from pipelines.models.ddim import linear_alphas_cumprod


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
