"""Shared by the decoder-only DALL·Es: a stream of text tokens, then a grid of image tokens, and its key/value cache."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models.checkpoint import Config
from pipelines.models.typed import integers


class DecoderOnlyConfig(Config):
    """Base of their configs: the lengths of a stream, in tokens."""

    text_length: int
    grid: int  # image tokens along a side

    @property
    def semantic_length(self) -> int:
        """Tokens that are drawn before the picture's: none."""
        return 0

    @property
    def prompt_length(self) -> int:
        """Text tokens that a prompt may have."""
        return self.text_length

    @property
    def image_length(self) -> int:
        """Image tokens in a picture."""
        return self.grid * self.grid


class BlockConfig(Protocol):
    """The sizes that a block needs."""

    @property
    def width(self) -> int:
        """Numbers in a state."""
        ...

    @property
    def layer_count(self) -> int:
        """Blocks in the network."""
        ...

    @property
    def head_count(self) -> int:
        """Heads of the attention."""
        ...


class NormalizedBlock(nn.Module):
    """Pre-norm Transformer block with normalized queries and keys (Dehghani et al. 2023), for stable training.

    A subclass says how it attends.
    """

    def __init__(self, config: BlockConfig):
        super().__init__()
        width = config.width
        self.head_count = config.head_count
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
        # the attention's temperature, since q and k have unit length
        self.gain = nn.Parameter(torch.tensor(10.0))
        nn.init.normal_(self.out.weight, std=0.02 / (2 * config.layer_count) ** 0.5)
        nn.init.normal_(self.down.weight, std=0.02 / (2 * config.layer_count) ** 0.5)

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, t, width) -> three of (n, heads, t, width / heads)."""
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, self.head_count, -1).permute(2, 0, 3, 1, 4)
        return F.normalize(q, dim=-1) * self.gain.to(q.dtype), F.normalize(k, dim=-1), v


class KVCache:
    """A static cache of the keys and values of every slot. `seen[layer][slot]` are the slots that a slot attends to.

    A step gathers only those: for image tokens a few dozen keys instead of a thousand.
    """

    def __init__(
        self,
        masks: Tensor,
        mask_of_layer: list[int],
        row_count: int,
        head_count: int,
        head_size: int,
        like: Tensor,
    ):
        """`masks` is (k, length, length) bool, and `mask_of_layer` the index of each layer's mask in it.

        `like` gives the device and the dtype of the cache.
        """
        shape = (len(mask_of_layer), row_count, head_count, masks.shape[1], head_size)
        self.keys, self.values = like.new_empty(shape), like.new_empty(shape)
        slots = [torch.split(mask.nonzero()[:, 1], integers(mask.sum(1))) for mask in masks]
        self.seen = [slots[number] for number in mask_of_layer]

    def write(self, layer: int, start: int, keys: Tensor, values: Tensor) -> None:
        """Store keys and values (n, heads, t, size) at slots start, start + 1, ...

        Each of the n is repeated for row_count / n consecutive rows.
        """
        end, repeat = start + keys.shape[2], self.keys.shape[1] // len(keys)
        if repeat > 1:
            keys, values = keys.repeat_interleave(repeat, 0), values.repeat_interleave(repeat, 0)
        self.keys[layer, :, :, start:end] = keys
        self.values[layer, :, :, start:end] = values

    def read(self, layer: int, slot: int) -> tuple[Tensor, Tensor]:
        """The keys and the values that `slot` attends to, (row_count, heads, seen, size) each."""
        seen = self.seen[layer][slot]
        return self.keys[layer].index_select(2, seen), self.values[layer].index_select(2, seen)


class CausalKVCache(KVCache):
    """A static cache where a slot attends to itself and all slots before it, so that nothing need be gathered."""

    def __init__(
        self, length: int, layer_count: int, row_count: int, head_count: int, head_size: int, like: Tensor
    ):
        """`like` gives the device and the dtype of the cache."""
        causal = torch.ones(1, length, length, dtype=torch.bool).tril()
        super().__init__(causal, [0] * layer_count, row_count, head_count, head_size, like)

    def read(self, layer: int, slot: int) -> tuple[Tensor, Tensor]:
        """The keys and the values up to `slot`, (row_count, heads, slot + 1, size) each."""
        return self.keys[layer, :, :, : slot + 1], self.values[layer, :, :, : slot + 1]


def image_pattern(pattern: str, grid: int, kernel: int = 11) -> Tensor:
    """(grid^2, grid^2) bool, True where image token i (the row) attends to image token j (the column).

    "row": itself and the `grid` tokens before it in raster order, which reaches the same column one row up.
    "column": itself and the tokens above it. "convolution": the causal half of a kernel x kernel window around it,
    in raster order, so that it wraps at the ends of rows. Ramesh et al. 2021, figure 11. ValueError for other names.
    """
    i = torch.arange(grid * grid)[:, None]
    j = torch.arange(grid * grid)[None, :]
    back = i - j  # how many tokens ago
    if pattern == "row":
        return (back >= 0) & (back <= grid)
    if pattern == "column":
        return (back >= 0) & (back % grid == 0)
    if pattern == "convolution":
        reach = kernel // 2
        # nearest row offset with |column offset| <= reach
        rows_up = (back + reach).div(grid, rounding_mode="floor")
        across = back - rows_up * grid
        return (back >= 0) & (across.abs() <= reach) & (rows_up <= reach)
    raise ValueError(f"pattern {pattern!r} is not row, column or convolution")
