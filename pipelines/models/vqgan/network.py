"""VQGAN (Esser et al. 2021) and VQ-VAE (van den Oord et al. 2017): pictures to image tokens and back.

They are one network, and differ in how it is trained. It is VQModel of diffusers, between a pixel-unshuffle and a
pixel-shuffle, which avoid layers at full resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models.base import CodecNetwork
from pipelines.models.checkpoint import Config


@dataclass(frozen=True)
class VqganConfig(Config):
    """Sizes. The side is divided by `patch` (unshuffle), then by 2 for every width after the first."""

    image_size: int = 128
    patch: int = 4
    widths: tuple[int, ...] = (64, 128, 160)
    layer_count: int = 1
    code_count: int = 2048
    code_size: int = 16

    @property
    def factor(self) -> int:
        """Pixels per token, along a side."""
        return self.patch * 2 ** (len(self.widths) - 1)

    @property
    def grid(self) -> int:
        """Tokens along a side of a training picture."""
        return self.image_size // self.factor


def convolutions(config: VqganConfig, inner: int, outputs: int) -> Any:
    """The VQModel of a codec: `encoder` ends in `inner` channels, which `decoder` begins with.

    `outputs` are the numbers that the decoder gives for a pixel. `quant_conv` leads from `inner` to the code size, and
    `post_quant_conv` back.
    """
    # Costs seconds to import, so only when a network is made.
    from diffusers.models.autoencoders.vq_model import VQModel

    count = len(config.widths)
    return VQModel(
        in_channels=3 * config.patch**2,
        out_channels=outputs * config.patch**2,
        down_block_types=("DownEncoderBlock2D",) * count,
        up_block_types=("UpDecoderBlock2D",) * count,
        block_out_channels=config.widths,
        layers_per_block=config.layer_count,
        latent_channels=inner,
        num_vq_embeddings=config.code_count,
        vq_embed_dim=config.code_size,
        norm_num_groups=8,
        mid_block_add_attention=False,
    )


class Vqgan(CodecNetwork):
    """A convolutional Codec. The sides of pictures are any multiples of `config.factor`."""

    def __init__(self, config: VqganConfig):
        super().__init__()
        self.config = config
        network = convolutions(config, config.code_size, 3)
        self.encoder, self.decoder = network.encoder, network.decoder
        self.before_codes, self.after_codes = network.quant_conv, network.post_quant_conv
        self.codes = nn.Parameter(torch.randn(config.code_count, config.code_size) * 0.5)

    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, c, h / factor, w / factor), before quantization."""
        return self.before_codes(self.encoder(F.pixel_unshuffle(images, self.config.patch)))

    def decode(self, codes: Tensor) -> Tensor:
        """(n, c, h, w) codes, or anything between them -> (n, 3, h * factor, w * factor), about [-1, 1]."""
        return F.pixel_shuffle(self.decoder(self.after_codes(codes)), self.config.patch)
