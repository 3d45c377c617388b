"""What the decoder-only DALL·Es share: a stream of text tokens, then a grid of image tokens, and its key/value cache."""

from __future__ import annotations

import torch
from torch import Tensor

from pipelines.models.checkpoint import Config


class StreamConfig(Config):
    """The lengths of a stream."""

    text_length: int
    grid: int  # image tokens along a side

    @property
    def prompt_length(self) -> int:
        """Text tokens that a prompt may have."""
        return self.text_length

    @property
    def image_length(self) -> int:
        """Image tokens in a picture."""
        return self.grid * self.grid


class Cache:
    """Keys and values of every slot, in place from the start; `seen[layer][slot]` are the slots that a slot looks at.

    Reading only those makes a step's attention cost a few dozen image keys, not a thousand.
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
        """masks: (k, length, length) bool, of which each layer names one. `like` gives device and dtype."""
        shape = (len(mask_of_layer), row_count, head_count, masks.shape[1], head_size)
        self.keys, self.values = like.new_empty(shape), like.new_empty(shape)
        slots = [mask.nonzero()[:, 1].split(mask.sum(1).tolist()) for mask in masks]
        self.seen = [slots[number] for number in mask_of_layer]

    def write(self, layer: int, start: int, keys: Tensor, values: Tensor) -> None:
        """Keep (n, heads, t, size) for slots from `start` on; each of n serves row_count / n neighbouring rows."""
        end, repeat = start + keys.shape[2], self.keys.shape[1] // len(keys)
        if repeat > 1:
            keys, values = keys.repeat_interleave(repeat, 0), values.repeat_interleave(repeat, 0)
        self.keys[layer, :, :, start:end] = keys
        self.values[layer, :, :, start:end] = values

    def read(self, layer: int, slot: int) -> tuple[Tensor, Tensor]:
        """The keys and values that `slot` looks at, (row_count, heads, seen, size) each."""
        seen = self.seen[layer][slot]
        return self.keys[layer].index_select(2, seen), self.values[layer].index_select(2, seen)


def image_pattern(pattern: str, grid: int, kernel: int = 11) -> Tensor:
    """(grid^2, grid^2) bool: may image token i (row of the result) look at image token j?

    "row": itself and the `grid` tokens before it in raster order, which reaches the same column one row up.
    "column": itself and the tokens above it. "convolution": the causal half of a kernel x kernel window around it,
    in raster order, so that it wraps at the ends of rows. Ramesh et al. 2021, figure 11.
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
        rows_up = (back + reach).div(
            grid, rounding_mode="floor"
        )  # nearest row offset with |column offset| <= reach
        across = back - rows_up * grid
        return (back >= 0) & (across.abs() <= reach) & (rows_up <= reach)
    raise ValueError(f"pattern {pattern!r} is not row, column or convolution")
