"""The DALL·E and the dVAE of the library DALLE-pytorch, for checkpoints that users trained with it.

A decoder after Ramesh et al. 2021 with GEGLU (Shazeer 2020), LayerScale (Touvron et al. 2021), rotary positions (Su et
al. 2021) and token shift (Peng 2021). Its attention patterns differ from the paper's: rows without the row above, and a
window that extends up and left only.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2, pi
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models.base import CodecNetwork
from pipelines.models.checkpoint import Config
from pipelines.models.decoder_only import DecoderOnlyConfig, KVCache, image_pattern

ATTENTION_TYPES = ("full", "axial_row", "axial_col", "conv_like")
FAR_TEXT = 8192.0  # where image tokens stand on the line of text positions
FAR_PICTURE = -10.0  # where text tokens stand on the picture's axes, which run from -1 to 1


@dataclass(frozen=True)
class DallePytorchConfig(DecoderOnlyConfig):
    """Sizes. `text_vocabulary` counts one pad for each of the `text_length` positions, at its end.

    `attention_types` repeat, layer by layer. With `rotary` there are no learned positions. `pixel_frequencies`, of the
    rotary axes, are "linear" or "octaves" (evenly spaced, or doubling), which differs between versions of the library.
    """

    text_vocabulary: int
    image_vocabulary: int
    text_length: int = 256
    grid: int = 32
    width: int = 512
    layer_count: int = 8
    head_count: int = 8
    head_size: int = 64
    attention_types: tuple[str, ...] = ("full",)
    kernel: int = 5  # side of the convolutional pattern
    rotary: bool = True
    shift_tokens: bool = True
    sandwich: bool = False  # a LayerNorm also after attention and after the feed-forward
    stable: bool = False  # states divided by their largest value, before the logits
    pixel_frequencies: str = "linear"

    @property
    def text_slots(self) -> int:
        """Slots before the first image token: BOS and the text."""
        return self.text_length + 1

    @property
    def length(self) -> int:
        """Slots of the whole stream; the last image token has none, since nothing is predicted from it."""
        return self.text_slots + self.image_length - 1

    def pattern(self, layer: int) -> str:
        """One of ATTENTION_TYPES for a layer counted from 0."""
        return self.attention_types[layer % len(self.attention_types)]


def attention_mask(config: DallePytorchConfig, pattern: str) -> Tensor:
    """(length, length) bool: text is causal; image tokens attend to all text, and to image tokens by the pattern.

    "full": all tokens before. "axial_row" and "axial_col": those of the same row, or column. "conv_like": those in the
    kernel x kernel window that has the token in its lower right corner. ValueError for other patterns.
    """
    place = torch.arange(config.image_length)
    row = place.div(config.grid, rounding_mode="floor")
    rows_up, columns_back = (index[:, None] - index[None, :] for index in (row, place % config.grid))
    if pattern == "full":
        image = torch.ones_like(rows_up, dtype=torch.bool).tril()
    elif pattern == "axial_row":
        image = (rows_up == 0) & (columns_back >= 0)
    elif pattern == "axial_col":
        image = image_pattern("column", config.grid)
    elif pattern == "conv_like":
        image = (rows_up >= 0) & (columns_back >= 0) & (torch.maximum(rows_up, columns_back) < config.kernel)
    else:
        raise ValueError(f"attention type {pattern!r} is not one of {', '.join(ATTENTION_TYPES)}")
    t = config.text_slots
    mask = torch.ones(config.length, config.length, dtype=torch.bool).tril()
    mask[t:, t:] = image[:-1, :-1]
    return mask


def rotary_angles(config: DallePytorchConfig) -> Tensor:
    """(length + 1, 6 * (head_size // 6)) radians by which pairs of neighbouring channels are rotated (Su et al. 2021).

    One third of the channels is for the position in the text, one for the row and one for the column. Tokens without a
    position on an axis get one far outside of its range. The last slot is that of the last image token, which is never
    an input. ValueError for an unknown rule of pixel frequencies.
    """
    size = config.head_size // 3  # of a third; the last channel of an odd one does not turn
    text_frequencies = 1 / 10_000 ** (torch.arange(0, size, 2)[: size // 2].float() / size)
    if config.pixel_frequencies == "linear":
        pixel_frequencies = torch.linspace(1, 5, size // 2) * pi
    elif config.pixel_frequencies == "octaves":
        pixel_frequencies = torch.logspace(0, log2(5), size // 2, base=2) * pi
    else:
        raise ValueError(f"pixel frequencies {config.pixel_frequencies!r} are not linear or octaves")
    t, n, grid = config.text_slots, config.image_length, config.grid
    along = torch.cat([torch.arange(t).float(), torch.full((n,), FAR_TEXT)])
    axis, outside = torch.linspace(-1, 1, grid), torch.full((t,), FAR_PICTURE)
    down = torch.cat([outside, axis.repeat_interleave(grid)])
    across = torch.cat([outside, axis.repeat(grid)])
    thirds = (
        place[:, None] * frequencies
        for place, frequencies in (
            (along, text_frequencies),
            (down, pixel_frequencies),
            (across, pixel_frequencies),
        )
    )
    return torch.cat([third.repeat_interleave(2, 1) for third in thirds], 1)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """(n, heads, t, size) with its first r channels rotated in pairs by the angles of cosine and sine (t, r)."""
    turned, kept = x[..., : cosine.shape[1]], x[..., cosine.shape[1] :]
    quarter_turn = torch.stack([-turned[..., 1::2], turned[..., 0::2]], -1).flatten(-2)
    return torch.cat([turned * cosine + quarter_turn * sine, kept], -1)


def shift_text(x: Tensor) -> Tensor:
    """(n, t, width) -> the same shape, the first half of the channels taken from the token before (Peng 2021)."""
    moved, kept = x.chunk(2, -1)
    return torch.cat([F.pad(moved, (0, 0, 1, 0))[:, :-1], kept], -1)


def shift_image(x: Tensor, grid: int) -> Tensor:
    """(n, t, width), tokens in raster order -> the same shape, with channels of neighbouring tokens.

    The first quarter of the channels comes from the token above, the second from the left one; 0 where there is none.
    """
    t, quarter = x.shape[1], shifted_channels(x.shape[2]) // 2
    above, left, kept = torch.split(x, [quarter, quarter, x.shape[2] - 2 * quarter], -1)
    above = F.pad(above, (0, 0, grid, 0))[:, :t]
    inside = torch.arange(t, device=x.device) % grid != 0
    left = F.pad(left, (0, 0, 1, 0))[:, :t] * inside[:, None]
    return torch.cat([above, left, kept], -1)


def shifted_channels(width: int) -> int:
    """Number of channels that `shift_image` takes from the two neighbours: two quarters, each rounded up."""
    return 2 * -(-width // 4)


class StepKVCache(KVCache):
    """A KVCache that also keeps, for the shift, the shifted channels of the last `grid` tokens in every half layer."""

    def __init__(
        self,
        masks: Tensor,
        mask_of_layer: list[int],
        row_count: int,
        config: DallePytorchConfig,
        like: Tensor,
    ):
        super().__init__(masks, mask_of_layer, row_count, config.head_count, config.head_size, like)
        channels = shifted_channels(config.width)
        self.recent = like.new_zeros(config.layer_count, 2, row_count, config.grid, channels)

    def shift(self, layer: int, half: int, x: Tensor, position: int) -> Tensor:
        """(row_count, 1, width) at raster `position` -> the same shape, shifted as by `shift_image`."""
        recent = self.recent[layer, half]  # by column: the row above, to the left of it this row
        quarter, column = recent.shape[-1] // 2, position % recent.shape[1]
        above = recent[:, column, :quarter].clone()
        left = recent[:, column - 1, quarter:] if column else torch.zeros_like(recent[:, 0, quarter:])
        recent[:, column] = x[:, 0, : 2 * quarter]
        return torch.cat([above, left, x[:, 0, 2 * quarter :]], -1)[:, None]


class Block(nn.Module):
    """Pre-norm Transformer block; attention and feed-forward are each scaled by a learned vector."""

    def __init__(self, config: DallePytorchConfig):
        super().__init__()
        width, inner = config.width, config.head_count * config.head_size
        self.head_count = config.head_count
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.after1, self.after2 = (
            nn.LayerNorm(width) if config.sandwich else nn.Identity() for _ in range(2)
        )
        self.scale1, self.scale2 = (
            nn.Parameter(torch.full((width,), 0.1)),
            nn.Parameter(torch.full((width,), 0.1)),
        )
        self.qkv, self.out = nn.Linear(width, 3 * inner, bias=False), nn.Linear(inner, width)
        self.up, self.down = nn.Linear(width, 8 * width), nn.Linear(4 * width, width)

    def queries_keys_values(
        self, x: Tensor, turn: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(n, t, width), normalized and shifted -> three of (n, heads, t, size), all rotated by `turn`, if given."""
        n, t, _ = x.shape
        qkv = self.qkv(x).view(n, t, 3, self.head_count, -1).permute(2, 0, 3, 1, 4)
        q, k, v = (rotate(vectors, *turn) for vectors in qkv) if turn else qkv
        return q, k, v

    def attend(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """(n, t, width) x, its queries, and keys and values (n, heads, s, size) -> x plus the attention's output."""
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        return x + self.scale1 * self.after1(self.out(h))

    def feed_forward(self, x: Tensor, shifted: Tensor) -> Tensor:
        """(n, t, width) x -> x plus the feed-forward of `shifted`, which is norm2(x) after the token shift."""
        values, gates = self.up(shifted).chunk(2, -1)
        return x + self.scale2 * self.after2(self.down(values * F.gelu(gates)))


class DallePytorch(nn.Module):
    """The Decoder. `forward` gives all logits at once; `prefill` and `decode_step` sample with a static cache."""

    masks: Tensor
    cosine: Tensor
    sine: Tensor

    def __init__(self, config: DallePytorchConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.text_token = nn.Embedding(config.text_vocabulary, width)
        self.image_token = nn.Embedding(config.image_vocabulary, width)
        if not config.rotary:
            self.text_position = nn.Embedding(config.text_slots, width)
            self.row, self.column = nn.Embedding(config.grid, width), nn.Embedding(config.grid, width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layer_count))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, config.image_vocabulary)
        patterns = [config.pattern(layer) for layer in range(config.layer_count)]
        kinds = sorted(set(patterns))
        self.mask_of_layer = [kinds.index(pattern) for pattern in patterns]
        masks = torch.stack([attention_mask(config, kind) for kind in kinds])
        self.register_buffer("masks", masks, persistent=False)
        if config.rotary:
            angles = rotary_angles(config)
            self.register_buffer("cosine", angles.cos(), persistent=False)
            self.register_buffer("sine", angles.sin(), persistent=False)

    @property
    def layers(self) -> list[Block]:
        """The blocks, with their own type."""
        return cast(list[Block], list(self.blocks))

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.head.weight.device

    def text_tokens(self, ids: list[int]) -> Tensor:
        """A prompt's ids -> (text_length,) int64, cut or padded with 0. [] is the text without a condition."""
        laid = torch.tensor(ids[: self.config.text_length], dtype=torch.long, device=self.device)
        return F.pad(laid, (0, self.config.text_length - len(laid)))

    def embed_text(self, text: Tensor) -> Tensor:
        """(n, text_length) tokens, where 0 stands for the position's own pad -> (n, text_slots, width) with BOS."""
        config = self.config
        pads = torch.arange(config.text_vocabulary - config.text_length, config.text_vocabulary).to(text)
        x = self.text_token(F.pad(torch.where(text == 0, pads, text), (1, 0)))  # BOS is 0
        return x if config.rotary else x + self.text_position.weight

    def embed_image(self, image: Tensor, start: int = 0) -> Tensor:
        """(n, t) tokens at raster positions start, start + 1, ... -> (n, t, width)."""
        x = self.image_token(image)
        if self.config.rotary:
            return x
        place = torch.arange(start, start + image.shape[1], device=image.device)
        rows = place.div(self.config.grid, rounding_mode="floor")
        return x + self.row(rows) + self.column(place % self.config.grid)

    def logits(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., image_vocabulary) float32."""
        if self.config.stable:
            x = x / x.amax(-1, keepdim=True)
        return self.head(self.norm(x)).float()

    def forward(self, text: Tensor, image: Tensor) -> Tensor:
        """(n, text_length) and (n, image_length) tokens -> (n, image_length, image_vocabulary) logits, no cache."""
        x = torch.cat([self.embed_text(text), self.embed_image(image[:, :-1])], 1)
        for layer in range(self.config.layer_count):
            x, _, _ = self._layer(layer, x)
        return self.logits(x[:, self.config.text_slots - 1 :])

    def prefill(self, text: Tensor, row_count: int) -> tuple[StepKVCache, Tensor]:
        """(n, text_length) texts -> a cache of row_count rows, and the first image token's logits.

        Each text serves row_count / n neighbouring rows. The logits are (row_count, image_vocabulary) float32.
        """
        cache = StepKVCache(self.masks, self.mask_of_layer, row_count, self.config, self.head.weight)
        x = self.embed_text(text)
        for layer in range(self.config.layer_count):
            x, k, v = self._layer(layer, x)
            cache.write(layer, 0, k, v)
        return cache, self.logits(x[:, -1]).repeat_interleave(row_count // len(text), 0)

    def decode_step(self, cache: StepKVCache, token: Tensor, position: int) -> Tensor:
        """Image tokens (row_count,) at raster `position` -> (row_count, image_vocabulary) float32 logits of the next."""
        x, slot = self.embed_image(token[:, None], position), self.config.text_slots + position
        shifts = self.config.shift_tokens
        for layer, block in enumerate(self.layers):
            h = block.norm1(x)
            h = cache.shift(layer, 0, h, position) if shifts else h
            q, k, v = block.queries_keys_values(h, self._turn(slot, slot + 1))
            cache.write(layer, slot, k, v)
            x = block.attend(x, q, *cache.read(layer, slot), None)
            h = block.norm2(x)
            x = block.feed_forward(x, cache.shift(layer, 1, h, position) if shifts else h)
        return self.logits(x[:, 0])

    def _layer(self, layer: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One layer on the stream's first t slots: (n, t, width) -> the same shape, and the layer's keys and values."""
        block, t = self.layers[layer], x.shape[1]
        q, k, v = block.queries_keys_values(self._shift(block.norm1(x)), self._turn(0, t))
        x = block.attend(x, q, k, v, self.masks[self.mask_of_layer[layer], :t, :t])
        return block.feed_forward(x, self._shift(block.norm2(x))), k, v

    def _shift(self, x: Tensor) -> Tensor:
        """The token shift of the stream's first t slots (n, t, width), all text among them."""
        if not self.config.shift_tokens:
            return x
        t = self.config.text_slots
        return torch.cat([shift_text(x[:, :t]), shift_image(x[:, t:], self.config.grid)], 1)

    def _turn(self, start: int, end: int) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines for slots from start to end, where positions are rotary."""
        return (self.cosine[start:end], self.sine[start:end]) if self.config.rotary else None


# --------------------------------------------------------------------------------------------------------- image tokens


@dataclass(frozen=True)
class DiscreteVaeConfig(Config):
    """Sizes. Each of `layer_count` layers halves the side; `block_count` residual blocks work at the smallest."""

    image_size: int = 256
    code_count: int = 512
    code_size: int = 512
    layer_count: int = 3
    block_count: int = 0
    width: int = 64

    @property
    def factor(self) -> int:
        """Pixels per token, along a side."""
        return 2**self.layer_count

    @property
    def grid(self) -> int:
        """Tokens along a side of a training picture."""
        return self.image_size // self.factor


class DiscreteVae(CodecNetwork):
    """The discrete autoencoder of DALLE-pytorch, for pictures in [-1, 1] at both ends.

    The encoder gives logits of the tokens. `encode` returns the code of the likeliest one, without a gradient.
    """

    def __init__(self, config: DiscreteVaeConfig):
        super().__init__()
        self.config = config
        width, layers, blocks = config.width, range(config.layer_count), range(config.block_count)
        self.codes = nn.Parameter(torch.randn(config.code_count, config.code_size))
        self.encoder = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(width if k else 3, width, 4, 2, 1), nn.ReLU()) for k in layers),
            *(ResidualBlock(width) for _ in blocks),
            nn.Conv2d(width, config.code_count, 1),
        )
        narrow = width if blocks else config.code_size  # what the first doubling gets
        self.decoder = nn.Sequential(
            *([nn.Conv2d(config.code_size, width, 1)] if blocks else []),
            *(ResidualBlock(width) for _ in blocks),
            *(nn.Sequential(Doubling(width if k else narrow, width), nn.ReLU()) for k in layers),
            nn.Conv2d(width, 3, 1),
        )

    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, c, h / factor, w / factor): the codes of the likeliest tokens."""
        return self.embed(self.encode_tokens(images))

    def encode_tokens(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, h / factor, w / factor) likeliest tokens."""
        return self.encoder(images.to(self.codes.dtype)).argmax(1)

    def decode(self, codes: Tensor) -> Tensor:
        """(n, c, h, w) codes, or anything between them -> (n, 3, h * factor, w * factor), about [-1, 1]."""
        return self.decoder(codes.to(self.codes.dtype))

    def seamless(self) -> Self:
        """A copy that shares the weights and whose convolutions pad circularly, so that pictures tile seamlessly."""
        twin = super().seamless()
        for module in twin.modules():
            if isinstance(module, Doubling):
                module.wraps = True
        return twin


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(conv(x)))))."""

    def __init__(self, width: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) -> the same shape."""
        return x + self.net(x)


class Doubling(nn.ConvTranspose2d):
    """A transposed convolution that doubles the sides. With `wraps` it pads circularly, which torch does not support."""

    def __init__(self, width_in: int, width: int):
        cast(Any, super()).__init__(width_in, width, 4, stride=2, padding=1)
        self.wraps = False

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """(n, width_in, h, w) -> (n, width, 2 h, 2 w)."""
        if not self.wraps:
            return super().forward(x)
        # 2 pixels wider at each edge after doubling, which are cut off
        x = F.pad(x, (1, 1, 1, 1), mode="circular")
        return F.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=3)
