"""The state of a run between two steps."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class State:
    """The state of a run between two steps."""

    z: Tensor  # (1, c, h / factor, w / factor), continuous
    optimizer: torch.optim.Optimizer
    ema: Tensor  # of z, what is shown
    step: int = 0
    guess: Tensor | None = None  # (1, 3, h, w) in [-1, 1]: what a diffusion model last took the picture for
    base: Tensor | None = None  # (1, 3, h, w) in [-1, 1]: what a mask keeps
    best: tuple[float, int, Tensor] | None = None  # the critic's score, the step and its tokens
    # (step, CLIP's score, the critic's score)
    curve: list[tuple[int, float, float]] = field(default_factory=list[tuple[int, float, float]])
    # (step, tokens) since the last snapshot
    frames: list[tuple[int, Tensor]] = field(default_factory=list[tuple[int, Tensor]])

    def shown(self, ema_decay: float) -> Tensor:
        """The latents to show, (1, c, rows, columns): the running average if `ema_decay` is above 0, else z."""
        return self.ema if ema_decay else self.z
