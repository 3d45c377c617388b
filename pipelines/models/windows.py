"""Pictures larger than a model's own square, by overlapping windows of that size (MultiDiffusion, Bar-Tal et al. 2023).

At each step the network reads every window, and where windows overlap the mean of its outputs counts. A scheduler's step
is affine in the output, so this is the mean of the windows' steps. An output weighs less the nearer it is to the edge of
its window (Jiménez 2023), so nothing ends at an edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pipelines.models.latent_diffusion import LatentDiffusion
from pipelines.models.typed import integers


@dataclass(frozen=True)
class Windows:
    """The windows of a canvas of `size`, (width, height) in pixels, on which `rows` pictures are drawn together.

    Neighbours overlap by at least half. How many the network reads at once depends on the sizes alone.
    """

    model: LatentDiffusion
    size: tuple[int, int]
    rows: int

    @cached_property
    def side(self) -> tuple[int, int]:
        """Height and width of a window in latents: the model's own, or the canvas's where that is smaller."""
        width, height = (min(side, self.model.image_size) // self.model.factor for side in self.size)
        return height, width

    @cached_property
    def places(self) -> list[tuple[int, int]]:
        """Top and left of each window in latents, row by row."""
        columns, rows = (
            _starts(side // self.model.factor, window)
            for side, window in zip(self.size, reversed(self.side), strict=True)
        )
        return [(top, left) for top in rows for left in columns]

    @cached_property
    def together(self) -> int:
        """How many windows of each picture the network reads at once."""
        height, width = (side * self.model.factor for side in self.side)
        return min(max(self.model.rows(width, height) // self.rows, 1), len(self.places))

    def condition(self, prompt: str, negative_prompt: str, guided: bool) -> Any:
        """What `predict` needs besides latents: the model's condition for all windows that it reads at once."""
        height, width = (side * self.model.factor for side in self.side)
        return self.model.condition(prompt, negative_prompt, width, height, self.rows * self.together, guided)

    def predict(self, latents: Tensor, t: Tensor, condition: Any, more: Tensor | None = None) -> Tensor:
        """The mean output of all windows, (n, c, h, w) like the latents; n is once or twice `rows`.

        `more` (n, d, h, w) are further input channels, as in `LatentDiffusion.predict`.
        """
        if len(self.places) == 1:
            return self.model.predict(latents, t, condition, more)
        height, width = self.side
        weight = (_tent(height)[:, None] * _tent(width)).to(latents.device)
        total = torch.zeros_like(latents)
        weights = latents.new_zeros(latents.shape[-2:])
        for first in range(0, len(self.places), self.together):
            places = self.places[first : first + self.together]
            idle = places[:1] * (self.together - len(places))  # so that every call has the same size
            read = self._windows(latents, places + idle)
            output = self.model.predict(
                read, t, condition, None if more is None else self._windows(more, places + idle)
            )
            parts = output.view(-1, self.together, self.rows, *output.shape[1:])
            for k, (top, left) in enumerate(places):
                there = (..., slice(top, top + height), slice(left, left + width))
                total[there] += weight * parts[:, k].flatten(0, 1)
                weights[there] += weight
        return total / weights

    def _windows(self, x: Tensor, places: list[tuple[int, int]]) -> Tensor:
        """Windows (n * len(places), c, h, w) of x (n, c, H, W), in the order of a condition's rows."""
        height, width = self.side
        parts = x.view(-1, self.rows, *x.shape[1:])
        cut = [parts[..., top : top + height, left : left + width] for top, left in places]
        return torch.stack(cut, 1).flatten(0, 2)


def _starts(length: int, window: int) -> list[int]:
    """Evenly spaced starts of windows that cover `length`, neighbours at most half a window apart."""
    count = -(-(length - window) // max(window // 2, 1)) + 1
    return integers(torch.linspace(0, length - window, count).round().long())


def _tent(length: int) -> Tensor:
    """(length,) float32 weights that grow by 1 from the ends to the middle, 1 at the ends."""
    ramp = torch.arange(1.0, length + 1)
    return torch.minimum(ramp, ramp.flip(0))
