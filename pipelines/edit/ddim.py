"""Up the noise and down again, deterministically (DDIM), so that the way back ends exactly where the way up began.

DiffusionCLIP walks a truncated grid of steps that need not be even. On the way up each step is solved for the state from
which the step down arrives (fixed-point iteration, Pan et al. 2023; Garibi et al. 2024, ReNoise); what error remains is
kept and added on the way down (Ju et al. 2023, "Direct Inversion").
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.models.typed import integers
from pipelines.models.unet.network import CLEAN, ddim_step, guess

NoiseOf = Callable[[Tensor, int], Tensor]  # (n, 3, h, w) at a step in [0, 1000) -> the noise in it


def time_grid(return_step: int, count: int) -> list[int]:
    """count + 1 steps from CLEAN up to `return_step` - 1, about evenly; fewer where they would coincide."""
    steps = torch.linspace(CLEAN, return_step - 1, count + 1, dtype=torch.float64).round().int()
    return list(dict.fromkeys(integers(steps)))


def levels(alphas_cumprod: Tensor, grid: list[int]) -> list[float]:
    """alphas_cumprod at each step of a grid, 1 for CLEAN."""
    return [1.0 if step == CLEAN else alphas_cumprod[step].item() for step in grid]


@dataclass(frozen=True)
class Trajectory:
    """A walk up. `states[k]` (n, 3, h, w) is at `grid[k]`, whose alphas_cumprod is `alphas[k]`;
    `states[0]` is the picture.

    `noises[k]` is the noise that was seen in `states[k + 1]`, and `errors[k]` what the step down from there misses
    `states[k]` by.
    """

    grid: list[int]
    alphas: list[float]
    states: list[Tensor]
    noises: list[Tensor]
    errors: list[Tensor]


def walk_up(
    noise_of: NoiseOf, alphas_cumprod: Tensor, x: Tensor, grid: list[int], refine: int
) -> Generator[int, None, Trajectory]:
    """Yield the number of steps made; return the Trajectory. Costs 1 + `refine` calls of `noise_of` a step, and one."""
    alphas = levels(alphas_cumprod, grid)
    states = [x]
    noises: list[Tensor] = []
    errors: list[Tensor] = []
    noise = noise_of(x, 0)
    for k, step in enumerate(grid[1:]):
        up = ddim_step(x, noise, alphas[k], alphas[k + 1])
        for _ in range(refine):
            up = ddim_step(x, noise_of(up, step), alphas[k], alphas[k + 1])
        noise = noise_of(up, step)
        noises.append(noise)
        errors.append(x - ddim_step(up, noise, alphas[k + 1], alphas[k]))
        states.append(up)
        x = up
        yield k + 1
    return Trajectory(grid, alphas, states, noises, errors)


def walk_down(
    noise_of: NoiseOf, way: Trajectory, copies: int = 1, mask: Tensor | None = None, add_back: bool = True
) -> Generator[tuple[int, Tensor], None, Tensor]:
    """From the top of a Trajectory down to pictures (n * copies, 3, h, w), by another noise than the one it went up by.

    Yields the number of steps made and what the clean picture looks like from there. With the same noise, and the errors
    added back, the pictures are those of the start. Outside `mask` (1, 1, h, w) the walk down follows the walk up.
    """
    x = way.states[-1].repeat_interleave(copies, 0)
    for k in reversed(range(len(way.errors))):
        noise = noise_of(x, way.grid[k + 1])
        clean = guess(x, noise, way.alphas[k + 1])
        x = ddim_step(x, noise, way.alphas[k + 1], way.alphas[k])
        if add_back:
            x = x + way.errors[k].repeat_interleave(copies, 0)
        if mask is not None:
            there = way.states[k].repeat_interleave(copies, 0)
            x = there + mask * (x - there)
        yield len(way.errors) - k, clean
    return x


def noised(x: Tensor, alpha: Tensor | float, generator: torch.Generator) -> Tensor:
    """Pictures with fresh Gaussian noise, drawn on the CPU, of the share 1 - alpha of the variance."""
    noise = torch.randn(x.shape, generator=generator).to(x.device)
    return alpha**0.5 * x + (1 - alpha) ** 0.5 * noise
