"""OpenAI's dVAE (Ramesh et al. 2021, appendix A): pictures to image tokens and back."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models.base import CodecNetwork
from pipelines.models.checkpoint import Config

GROUPS = (1, 2, 4, 8)  # widths of the four groups, in units of the narrowest


@dataclass(frozen=True)
class DvaeConfig(Config):
    """Sizes; the defaults are the published ones. A width is that of the group at full resolution."""

    image_size: int = 256
    encoder_width: int = 256
    encoder_blocks: int = 2  # a group
    decoder_width: int = 256
    decoder_blocks: int = 2
    code_count: int = 8192
    code_size: int = 128

    @property
    def factor(self) -> int:
        """Pixels per token, along a side: the picture is halved between groups."""
        return 2 ** (len(GROUPS) - 1)

    @property
    def grid(self) -> int:
        """Tokens along a side of a training picture."""
        return self.image_size // self.factor


class Dvae(CodecNetwork):
    """A code is the output of the decoder's first convolution, 1x1, for a one-hot token: one row of `codes`.

    The encoder gives logits of the tokens. `encode` returns the code of the likeliest one, without a gradient.
    """

    def __init__(self, config: DvaeConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder_width, config.encoder_blocks, config.code_count)
        self.codes = nn.Parameter(torch.randn(config.code_count, config.code_size) / config.code_count**0.5)
        self.decoder = Decoder(config.code_size, config.decoder_width, config.decoder_blocks)

    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, c, h / 8, w / 8): the codes of the likeliest tokens."""
        return self.embed(self.encode_tokens(images))

    def encode_tokens(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, h / 8, w / 8) likeliest tokens."""
        # 0.8 x + 0.1 for x in [0, 1]: the logit-Laplace distribution has no edges
        pixels = 0.4 * images + 0.5
        return self.encoder(pixels.to(self.codes.dtype)).argmax(1)

    def decode(self, codes: Tensor) -> Tensor:
        """(n, c, h, w) codes, or anything between them -> (n, 3, h * 8, w * 8), about [-1, 1].

        The network predicts a logit-Laplace distribution of every pixel; the picture is its median.
        """
        means, _ = self.decoder(codes.to(self.codes.dtype)).chunk(2, 1)
        return (means.sigmoid() - 0.5) / 0.4


class Encoder(nn.Module):
    """(n, 3, h, w) in [0.1, 0.9] -> (n, code_count, h / 8, w / 8) logits."""

    def __init__(self, width: int, block_count: int, code_count: int):
        super().__init__()
        self.input = nn.Conv2d(3, width, 7, padding=3)
        self.groups = _groups([width, *(width * k for k in GROUPS)], block_count, kernels=(3, 3, 3, 1))
        self.output = nn.Conv2d(width * GROUPS[-1], code_count, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) -> (n, code_count, h / 8, w / 8)."""
        x = self.input(x)
        for k, group in enumerate(self.groups):
            x = group(F.max_pool2d(x, 2) if k else x)
        return self.output(F.relu(x))


class Decoder(nn.Module):
    """(n, code_size, h, w) codes -> (n, 6, h * 8, w * 8): logits of the medians, logarithms of the scales."""

    def __init__(self, code_size: int, width: int, block_count: int):
        super().__init__()
        self.groups = _groups(
            [code_size, *(width * k for k in reversed(GROUPS))], block_count, kernels=(1, 3, 3, 3)
        )
        self.output = nn.Conv2d(width, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, code_size, h, w) -> (n, 6, h * 8, w * 8)."""
        for k, group in enumerate(self.groups):
            x = group(F.interpolate(x, scale_factor=2.0, mode="nearest") if k else x)
        return self.output(F.relu(x))


class Block(nn.Module):
    """x + gain * four convolutions, each after a ReLU, with a quarter of the width between them."""

    def __init__(self, width_in: int, width: int, kernels: tuple[int, ...], gain: float):
        super().__init__()
        widths = pairwise((width_in, width // 4, width // 4, width // 4, width))
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, kernel, padding=kernel // 2)
            for (a, b), kernel in zip(widths, kernels, strict=True)
        )
        self.shortcut = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """(n, width_in, h, w) -> (n, width, h, w)."""
        change = x
        for convolution in self.convolutions:
            change = convolution(F.relu(change))
        return self.shortcut(x) + self.gain * change


def _groups(widths: list[int], block_count: int, kernels: tuple[int, ...]) -> nn.ModuleList:
    """Groups of blocks, from each width to the next. The residual gain is 1 / (number of blocks)^2."""
    gain = 1 / (len(GROUPS) * block_count) ** 2
    return nn.ModuleList(
        nn.Sequential(*(Block(before if k == 0 else width, width, kernels, gain) for k in range(block_count)))
        for before, width in pairwise(widths)
    )
