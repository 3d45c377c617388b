"""The dVAE (Ramesh et al. 2021, section 2.1 and appendix A) on the convolutions of the VQGAN."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models.base import CodecNetwork
from pipelines.models.vqgan.network import VqganConfig, convolutions

EDGE = 0.1  # of the logit-Laplace distribution, which has no pixels at 0 and 1
FINEST = -4.0  # logarithm of the smallest scale: half a step of 8 bits at the edge


@dataclass(frozen=True)
class DvaeConfig(VqganConfig):
    """Sizes, as VqganConfig's. The encoder ends in as many channels as the last width."""


class Dvae(CodecNetwork):
    """The encoder gives logits of the tokens; the decoder gives a logit-Laplace distribution of every pixel.

    `encode` returns the code of the likeliest token, without a gradient. The sides of pictures are any multiples of
    `config.factor`.
    """

    def __init__(self, config: DvaeConfig):
        super().__init__()
        self.config = config
        network = convolutions(config, config.widths[-1], 6)
        self.encoder, self.decoder = network.encoder, network.decoder
        self.to_logits, self.after_codes = (
            nn.Conv2d(config.widths[-1], config.code_count, 1),
            network.post_quant_conv,
        )
        self.codes = nn.Parameter(torch.randn(config.code_count, config.code_size) * 0.5)

    def logits(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, code_count, h / factor, w / factor)."""
        return self.to_logits(self.encoder(F.pixel_unshuffle(images, self.config.patch)))

    def encode_tokens(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, h / factor, w / factor) likeliest tokens."""
        return self.logits(images).argmax(1)

    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, c, h / factor, w / factor): the codes of the likeliest tokens."""
        return self.embed(self.encode_tokens(images))

    def distribution(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """(n, c, h, w) codes -> logits of the medians and logarithms of the scales, (n, 3, h * factor, w * factor)."""
        both = F.pixel_shuffle(self.decoder(self.after_codes(codes)), self.config.patch)
        medians, scales = both.chunk(2, 1)
        return medians, FINEST + F.softplus(scales - FINEST)

    def decode(self, codes: Tensor) -> Tensor:
        """(n, c, h, w) codes, or anything between them -> (n, 3, h * factor, w * factor), about [-1, 1]: the medians."""
        medians, _ = self.distribution(codes)
        return from_open(medians.sigmoid())


def to_open(images: Tensor) -> Tensor:
    """Pictures in [-1, 1] -> [EDGE, 1 - EDGE], where the distribution has its support."""
    return (0.5 - EDGE) * images + 0.5


def from_open(pixels: Tensor) -> Tensor:
    """The inverse of `to_open`; (0, 1) becomes a little more than [-1, 1]."""
    return (pixels - 0.5) / (0.5 - EDGE)
