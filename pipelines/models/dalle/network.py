"""DALL·E (Ramesh et al. 2021): one decoder-only Transformer over text tokens, then image tokens.

Every image token sees the whole text. Among themselves image tokens attend sparsely, layer by layer as in the paper's
appendix: row, column, row, row, repeating, and a convolutional pattern in the last layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models.decoder_only import DecoderOnlyConfig, KVCache, NormalizedBlock, image_pattern


@dataclass(frozen=True)
class DalleConfig(DecoderOnlyConfig):
    """Sizes. `grid` is image tokens along a side. Texts are padded to `text_length`, with one pad vector a position."""

    text_vocabulary: int
    image_vocabulary: int
    text_length: int = 32
    grid: int = 16
    width: int = 192
    layer_count: int = 4
    head_count: int = 3
    kernel: int = 11  # side of the convolutional pattern

    @property
    def length(self) -> int:
        """Tokens in the whole stream."""
        return self.text_length + self.image_length

    def pattern(self, layer: int) -> str:
        """The attention pattern of a layer counted from 0: "row", "column" or "convolution"."""
        if layer == self.layer_count - 1:
            return "convolution"
        return "column" if layer % 4 == 1 else "row"


def attention_mask(config: DalleConfig, layer: int) -> Tensor:
    """(length, length) bool for one layer: text is causal; image tokens attend to all text, and by the layer's pattern."""
    t = config.text_length
    mask = torch.zeros(config.length, config.length, dtype=torch.bool)
    mask[:t, :t] = torch.ones(t, t, dtype=torch.bool).tril()
    mask[t:, :t] = True
    mask[t:, t:] = image_pattern(config.pattern(layer), config.grid, config.kernel)
    return mask


class Block(NormalizedBlock):
    """A block that attends to what its mask lets it see."""

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(n, t, width) -> the same, where all of it attends to all that the mask (t, t) lets it see."""
        return self.attend(x, *self.queries_keys_values(x), mask)

    def attend(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """(n, t, width) x, its queries, and keys and values (n, heads, s, width / heads) -> the block's output, as x."""
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
        x = x + self.out(h.transpose(1, 2).reshape(x.shape))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Dalle(nn.Module):
    """The Decoder. `forward` is for training; `prefill` and `decode_step` sample with a static key/value cache."""

    masks: Tensor

    def __init__(self, config: DalleConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.text_token = nn.Embedding(config.text_vocabulary, width)
        self.text_position = nn.Parameter(torch.randn(config.text_length, width) * 0.02)
        self.pad = nn.Parameter(torch.randn(config.text_length, width) * 0.02)  # one for each position
        self.image_token = nn.Embedding(config.image_vocabulary, width)
        self.row = nn.Parameter(torch.randn(config.grid, width) * 0.02)
        self.column = nn.Parameter(torch.randn(config.grid, width) * 0.02)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layer_count))
        self.norm = nn.LayerNorm(width)
        self.text_head = nn.Linear(width, config.text_vocabulary)
        self.image_head = nn.Linear(width, config.image_vocabulary)
        nn.init.normal_(self.text_token.weight, std=0.02)
        nn.init.normal_(self.image_token.weight, std=0.02)
        masks = torch.stack([attention_mask(config, k) for k in range(config.layer_count)])
        self.register_buffer("masks", masks, persistent=False)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.pad.device

    def text_tokens(self, ids: list[int]) -> Tensor:
        """A prompt's ids -> (text_length,) int64, cut or padded with 0. [] is the text without a condition."""
        row = torch.zeros(self.config.text_length, dtype=torch.long)
        ids = ids[: len(row)]
        row[: len(ids)] = torch.tensor(ids, dtype=torch.long)
        return row

    @property
    def layers(self) -> list[Block]:
        """The blocks, with their own type."""
        return cast(list[Block], list(self.blocks))

    def embed_text(self, text: Tensor) -> Tensor:
        """(n, text_length) tokens, 0 from the end of the text on -> (n, text_length, width)."""
        padded = (text == 0)[:, :, None]
        return (
            torch.where(padded, self.pad.to(self.text_token.weight.dtype), self.text_token(text))
            + self.text_position
        )

    def embed_image(self, image: Tensor, start: int = 0) -> Tensor:
        """(n, t) tokens at raster positions start, start + 1, ... -> (n, t, width)."""
        place = torch.arange(start, start + image.shape[1], device=image.device)
        grid = self.config.grid
        return self.image_token(image) + self.row[place // grid] + self.column[place % grid]

    def forward(self, text: Tensor, image: Tensor) -> Tensor:
        """(n, text_length) and (n, image_length) tokens -> (n, length - 1, width), the states that predict the next."""
        x = torch.cat([self.embed_text(text), self.embed_image(image[:, :-1])], 1)
        t = x.shape[1]
        for block, mask in zip(self.layers, self.masks, strict=True):
            x = block(x, mask[:t, :t])
        return self.norm(x)

    def image_logits(self, text: Tensor, image: Tensor) -> Tensor:
        """(n, text_length) and (n, image_length) tokens -> (n, image_length, image_vocabulary) float32, no cache."""
        return self.image_head(self.forward(text, image)[:, self.config.text_length - 1 :]).float()

    def prefill(self, text: Tensor, row_count: int) -> tuple[KVCache, Tensor]:
        """(n, text_length) texts -> a cache of row_count rows, and the first image token's logits.

        Each text serves row_count / n neighbouring rows. The logits are (row_count, image_vocabulary) float32.
        """
        config = self.config
        head_size, every = config.width // config.head_count, list(range(config.layer_count))
        cache = KVCache(self.masks, every, row_count, config.head_count, head_size, self.pad)
        x, t = self.embed_text(text), config.text_length
        for layer, block in enumerate(self.layers):
            q, k, v = block.queries_keys_values(x)
            cache.write(layer, 0, k, v)
            x = block.attend(x, q, k, v, self.masks[layer, :t, :t])
        logits = self.image_head(self.norm(x[:, -1])).float()
        return cache, logits.repeat_interleave(row_count // len(text), 0)

    def decode_step(self, cache: KVCache, token: Tensor, position: int) -> Tensor:
        """Image tokens (row_count,) at raster `position` -> (row_count, image_vocabulary) float32 logits of the next."""
        x, slot = self.embed_image(token[:, None], position), self.config.text_length + position
        for layer, block in enumerate(self.layers):
            q, k, v = block.queries_keys_values(x)
            cache.write(layer, slot, k, v)
            x = block.attend(x, q, *cache.read(layer, slot), None)
        return self.image_head(self.norm(x[:, 0])).float()
