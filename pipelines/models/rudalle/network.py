"""ruDALL-E (Malevich and its variants): the sparse decoder of Ramesh et al. 2021 with 1.3 billion parameters, for Russian.

One stream of text slots, then image slots. For stability (CogView, Ding et al. 2021, section 2.4) there is a LayerNorm
before and one after each half of a block, and two more before the logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models.decoder_only import DecoderOnlyConfig, KVCache, image_pattern

BOS, EOS = 2, 3  # the ids of every ruDALL-E vocabulary; 0 is the pad, 1 the unknown
HALF_LIMIT = 65504  # the largest float16; trained in half precision, the network clamps what attention adds


@dataclass(frozen=True)
class RudalleConfig(DecoderOnlyConfig):
    """Sizes, by default Malevich's.

    `text_vocabulary` counts one pad for each of the `text_length` positions, at its end. `version` is 2 or 3: in
    version 2 the network itself puts one more BOS before the text, and the convolutional window wraps at the borders.
    """

    text_vocabulary: int = 16512
    image_vocabulary: int = 8192
    text_length: int = 128
    grid: int = 32
    width: int = 2048
    layer_count: int = 24
    head_count: int = 16
    kernel: int = 11  # side of the convolutional pattern
    version: int = 3

    @property
    def text_slots(self) -> int:
        """Slots before the first image token."""
        return self.text_length + (self.version == 2)

    @property
    def length(self) -> int:
        """Slots of the whole stream. In version 2 the last image token has none: nothing is predicted from it."""
        return self.text_length + self.image_length

    def pattern(self, layer: int) -> str:
        """The attention pattern of a layer counted from 0: "row", "column" or "convolution"."""
        if layer % 4 == 1:
            return "column"
        return "convolution" if layer == self.layer_count - 1 else "row"


def window_pattern(grid: int, kernel: int, wraps: bool) -> Tensor:
    """(grid^2, grid^2) bool: the causal half of a kernel x kernel window around each image token.

    With `wraps` opposite borders of the picture are neighbours; without it the window ends at them.
    """
    place = torch.arange(grid * grid)
    rows, columns = (
        (index[:, None] - index[None, :]).abs()
        for index in (place.div(grid, rounding_mode="floor"), place % grid)
    )
    if wraps:
        rows, columns = torch.minimum(rows, grid - rows), torch.minimum(columns, grid - columns)
    reach = kernel // 2
    return ((rows <= reach) & (columns <= reach)).tril()


def attention_mask(config: RudalleConfig, pattern: str) -> Tensor:
    """(length, length) bool: text is causal; image tokens attend to all text, and to image tokens by the pattern.

    The image part begins at slot `text_length` in both versions. In version 2 that slot holds the last text token, which
    is therefore masked like the first image token.
    """
    t = config.text_length
    mask = torch.ones(config.length, config.length, dtype=torch.bool).tril()
    if pattern == "convolution":
        mask[t:, t:] = window_pattern(config.grid, config.kernel, wraps=config.version == 2)
    else:
        mask[t:, t:] = image_pattern(pattern, config.grid)
    return mask


class Block(nn.Module):
    """Attention and feed-forward, each between two LayerNorms (the sandwich of Ding et al. 2021)."""

    def __init__(self, config: RudalleConfig):
        super().__init__()
        width = config.width
        self.head_count = config.head_count
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.after1, self.after2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, t, width) -> three of (n, heads, t, width / heads)."""
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, self.head_count, -1).permute(2, 0, 3, 1, 4)
        return q, k, v

    def attend(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """(n, t, width) x, its queries, and keys and values (n, heads, s, width / heads) -> the block's output, as x."""
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        h = self.out(h.transpose(1, 2).reshape(x.shape)).clamp(-HALF_LIMIT, HALF_LIMIT)
        x = x + self.after1(h)
        return x + self.after2(self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh")))


class Rudalle(nn.Module):
    """The Decoder. `forward` gives all logits at once; `prefill` and `decode_step` sample with a static cache."""

    masks: Tensor

    def __init__(self, config: RudalleConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.text_token = nn.Embedding(config.text_vocabulary, width)
        self.text_position = nn.Embedding(config.text_length + 1, width)
        self.image_token = nn.Embedding(config.image_vocabulary, width)
        self.row, self.column = nn.Embedding(config.grid, width), nn.Embedding(config.grid, width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layer_count))
        self.norm, self.head_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.head = nn.Linear(width, config.image_vocabulary)
        patterns = [config.pattern(layer) for layer in range(config.layer_count)]
        kinds = sorted(set(patterns))
        self.mask_of_layer = [kinds.index(pattern) for pattern in patterns]
        masks = torch.stack([attention_mask(config, kind) for kind in kinds])
        self.register_buffer("masks", masks, persistent=False)

    @property
    def layers(self) -> list[Block]:
        """The blocks, with their own type."""
        return cast(list[Block], list(self.blocks))

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.head.weight.device

    def text_tokens(self, ids: list[int]) -> Tensor:
        """A prompt's ids -> (text_length,) int64: BOS, the ids, EOS, padding 0. Long texts are cut, EOS included.

        The empty list gives the empty prompt, which is the text without a condition.
        """
        laid = torch.tensor([BOS, *ids, EOS][: self.config.text_length], device=self.device)
        return F.pad(laid, (0, self.config.text_length - len(laid)))

    def embed_text(self, text: Tensor) -> Tensor:
        """(n, text_length) tokens, where 0 stands for the position's own pad -> (n, text_slots, width)."""
        config = self.config
        pads = torch.arange(config.text_vocabulary - config.text_length, config.text_vocabulary).to(text)
        text = torch.where(text == 0, pads, text)
        if config.version == 2:
            text = F.pad(text, (1, 0), value=BOS)
        return self.text_token(text) + self.text_position.weight[: config.text_slots]

    def embed_image(self, image: Tensor, start: int = 0) -> Tensor:
        """(n, t) tokens at raster positions start, start + 1, ... -> (n, t, width)."""
        place = torch.arange(start, start + image.shape[1], device=image.device)
        rows = place.div(self.config.grid, rounding_mode="floor")
        return self.image_token(image) + self.row(rows) + self.column(place % self.config.grid)

    def logits(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., image_vocabulary) float32."""
        return self.head(self.head_norm(self.norm(x))).float()

    def forward(self, text: Tensor, image: Tensor) -> Tensor:
        """(n, text_length) and (n, image_length) tokens -> (n, image_length, image_vocabulary) logits, no cache."""
        x = torch.cat([self.embed_text(text), self.embed_image(image[:, :-1])], 1)
        t = x.shape[1]
        for block, number in zip(self.layers, self.mask_of_layer, strict=True):
            x = block.attend(x, *block.queries_keys_values(x), self.masks[number, :t, :t])
        return self.logits(x[:, self.config.text_slots - 1 :])

    def prefill(self, text: Tensor, row_count: int) -> tuple[KVCache, Tensor]:
        """(n, text_length) texts -> a cache of row_count rows, and the first image token's logits.

        Each text serves row_count / n neighbouring rows. The logits are (row_count, image_vocabulary) float32.
        """
        config = self.config
        head_size = config.width // config.head_count
        cache = KVCache(
            self.masks, self.mask_of_layer, row_count, config.head_count, head_size, self.head.weight
        )
        x, t = self.embed_text(text), config.text_slots
        for layer, block in enumerate(self.layers):
            q, k, v = block.queries_keys_values(x)
            cache.write(layer, 0, k, v)
            x = block.attend(x, q, k, v, self.masks[self.mask_of_layer[layer], :t, :t])
        return cache, self.logits(x[:, -1]).repeat_interleave(row_count // len(text), 0)

    def decode_step(self, cache: KVCache, token: Tensor, position: int) -> Tensor:
        """Image tokens (row_count,) at raster `position` -> (row_count, image_vocabulary) float32 logits of the next."""
        x, slot = self.embed_image(token[:, None], position), self.config.text_slots + position
        for layer, block in enumerate(self.layers):
            q, k, v = block.queries_keys_values(x)
            cache.write(layer, slot, k, v)
            x = block.attend(x, q, *cache.read(layer, slot), None)
        return self.logits(x[:, 0])
