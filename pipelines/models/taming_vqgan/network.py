"""VQGAN as CompVis published it (Esser et al. 2021), and its variants.

These are Gumbel codes, Sber's wavelets, LDM's, dalle-mini's, and LlamaGen's codes of unit length (Sun et al. 2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.errors import BadInput
from pipelines.models.base import CodecNetwork
from pipelines.models.checkpoint import Config


@dataclass(frozen=True)
class TamingVqganConfig(Config):
    """Sizes; the defaults are those of f16 with 16384 codes. The picture is halved between levels."""

    image_size: int = 256
    input_width: int = 128
    widths: tuple[int, ...] = (128, 128, 256, 256, 512)  # a level, from full resolution down
    block_count: int = 2  # a level of the encoder; the decoder has one more
    attention_levels: tuple[int, ...] = (4,)
    latent_size: int = 256
    code_count: int = 16384
    code_size: int = 256
    gumbel: bool = False  # the encoder scores the codes, instead of looking for the nearest
    wavelet: bool = False  # the decoder paints Haar wavelets, and so a picture twice as large
    # of codes and of what is encoded, so that the nearest code is that of the least angle
    unit_length: bool = False
    unit_range: bool = False  # inside, pixels are in [0, 1]
    has_encoder: bool = True

    @property
    def factor(self) -> int:
        """Pixels per token, along a side."""
        return 2 ** (len(self.widths) - 1 + self.wavelet)

    @property
    def grid(self) -> int:
        """Tokens along a side of a training picture."""
        return self.image_size // self.factor


class TamingVqgan(CodecNetwork):
    """The Codec. Names are those of published checkpoints, except `codes`, the table, and `logits` of Gumbel VQGANs."""

    def __init__(self, config: TamingVqganConfig):
        super().__init__()
        self.config = config
        if config.has_encoder:
            self.encoder = Encoder(config)
            self.quant_conv = nn.Conv2d(config.latent_size, config.code_size, 1)
            if config.gumbel:
                self.logits = nn.Conv2d(config.code_size, config.code_count, 1)
        self.codes = nn.Parameter(torch.randn(config.code_count, config.code_size) * 0.5)
        self.post_quant_conv = nn.Conv2d(config.code_size, config.latent_size, 1)
        self.decoder = Decoder(config)

    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, c, h / factor, w / factor), before quantization.

        With `gumbel`, the codes of the likeliest tokens instead, without a gradient. BadInput without an encoder.
        """
        return self.embed(self.encode_tokens(images)) if self.config.gumbel else self._features(images)

    def encode_tokens(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, h / factor, w / factor) nearest or, with `gumbel`, likeliest tokens."""
        features = self._features(images)
        return self.logits(features).argmax(1) if self.config.gumbel else self.quantize(features)

    def decode(self, codes: Tensor) -> Tensor:
        """(n, c, h, w) codes, or anything between them -> (n, 3, h * factor, w * factor), about [-1, 1]."""
        pixels = self.decoder(self.post_quant_conv(codes.to(self.codes.dtype)))
        if self.config.wavelet:
            pixels = inverse_haar(pixels)
        return pixels * 2 - 1 if self.config.unit_range else pixels

    def _features(self, images: Tensor) -> Tensor:
        if not self.config.has_encoder:
            raise BadInput("models.decoder_only")
        pixels = (images + 1) / 2 if self.config.unit_range else images
        if self.config.wavelet:
            pixels = F.avg_pool2d(pixels, 2)  # the encoder knows nothing of wavelets, and reads half the size
        features = self.quant_conv(self.encoder(pixels.to(self.codes.dtype)))
        return F.normalize(features, dim=1) if self.config.unit_length else features


class Encoder(nn.Module):
    """(n, 3, h, w) -> (n, latent_size, h / f, w / f), f = 2 ** (levels - 1)."""

    def __init__(self, config: TamingVqganConfig):
        super().__init__()
        widths, last = config.widths, len(config.widths) - 1
        self.conv_in = nn.Conv2d(3, config.input_width, 3, padding=1)
        self.down = nn.ModuleList()
        for k, (before, width) in enumerate(pairwise((config.input_width, *widths))):
            level = Level(before, width, config.block_count, k in config.attention_levels)
            if k < last:
                level.downsample = Downsample(width)
            self.down.append(level)
        self.mid = Middle(widths[-1])
        self.norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.latent_size, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) -> (n, latent_size, h / f, w / f)."""
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """(n, latent_size, h, w) -> (n, 3 or with wavelets 12, h * f, w * f), f = 2 ** (levels - 1)."""

    def __init__(self, config: TamingVqganConfig):
        super().__init__()
        widths = config.widths
        self.conv_in = nn.Conv2d(config.latent_size, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList()
        for k, (width, before) in enumerate(pairwise((*widths, widths[-1]))):
            level = Level(before, width, config.block_count + 1, k in config.attention_levels)
            if k > 0:
                level.upsample = Upsample(width)
            self.up.append(level)
        self.norm_out = _norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 12 if config.wavelet else 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, latent_size, h, w) -> (n, 3 or 12, h * f, w * f)."""
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Level(nn.Module):
    """Residual blocks of one width, each followed by attention where the level has it, then a change of size."""

    def __init__(self, width_in: int, width: int, block_count: int, attention: bool):
        super().__init__()
        self.block = nn.ModuleList(Block(width if k else width_in, width) for k in range(block_count))
        self.attn = nn.ModuleList(Attention(width) for _ in range(block_count if attention else 0))
        self.downsample: nn.Module = nn.Identity()
        self.upsample: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(n, width_in, h, w) -> (n, width, h', w'), sides halved, doubled or kept."""
        for k, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[k](x)
        return self.upsample(self.downsample(x))


class Middle(nn.Module):
    """Block, attention, block, where the picture is smallest."""

    def __init__(self, width: int):
        super().__init__()
        self.block_1 = Block(width, width)
        self.attn_1 = Attention(width)
        self.block_2 = Block(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) -> the same shape."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Block(nn.Module):
    """x + two 3x3 convolutions, each after a norm and a swish."""

    def __init__(self, width_in: int, width: int):
        super().__init__()
        self.norm1 = _norm(width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.norm2 = _norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(n, width_in, h, w) -> (n, width, h, w)."""
        change = self.conv1(F.silu(self.norm1(x)))
        change = self.conv2(F.silu(self.norm2(change)))
        return self.nin_shortcut(x) + change


class Attention(nn.Module):
    """x + single-head self-attention over all places."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = _norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) -> the same shape."""
        normal = self.norm(x)
        q, k, v = (conv(normal).flatten(2).mT[:, None] for conv in (self.q, self.k, self.v))  # (n, 1, hw, c)
        seen = F.scaled_dot_product_attention(q, k, v)[:, 0].mT.reshape(x.shape)
        return x + self.proj_out(seen)


class Downsample(nn.Module):
    """Halves both sides by a strided convolution, with a pixel of padding at the right and below only."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) -> (n, width, h / 2, w / 2)."""
        wraps = self.conv.padding_mode == "circular"  # a seamless twin
        return self.conv(F.pad(x, (0, 1, 0, 1), mode="circular" if wraps else "constant"))


class Upsample(nn.Module):
    """Doubles both sides by repeating pixels, then a convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) -> (n, width, 2 h, 2 w)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def inverse_haar(bands: Tensor) -> Tensor:
    """The inverse Haar wavelet transform: (n, 12, h, w) -> (n, 3, 2h, 2w).

    The bands are the averages of the three colours, and then, colour by colour, the differences between rows, between
    columns, and between diagonals.
    """
    n, _, h, w = bands.shape
    average, (row, column, diagonal) = bands[:, :3], bands[:, 3:].reshape(n, 3, 3, h, w).unbind(2)
    corners = (
        average + row + column + diagonal,
        average + row - column - diagonal,
        average - row + column - diagonal,
        average - row - column + diagonal,
    )
    return F.pixel_shuffle(torch.stack(corners, 2).flatten(1, 2) / 2, 2)


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, width, eps=1e-6)
