"""DDIM inversion and sampling (Song et al. 2021) on a truncated grid of steps, as in DiffusionCLIP (Kim et al. 2022).

Each inversion step is solved by fixed-point iteration for the state whose sampling step gives the state before (Pan et al.
2023; Garibi et al. 2024, ReNoise). The remaining errors are kept and added back in sampling (Ju et al. 2023, "Direct
Inversion"), so that sampling with the same network gives the picture back.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from pipelines.core.generators import mapped
from pipelines.core.pipeline import Step
from pipelines.models.base import Denoiser
from pipelines.models.ddim import CLEAN, ddim_step, predict_x0
from pipelines.models.typed import integers

NoisePredictor = Callable[[Tensor, int], Tensor]  # (n, c, h, w) at a step in [0, 1000) -> the noise in it
MOST_AT_ONCE = 16  # x in one call of a network

R = TypeVar("R")


def noise_predictor(unet: Denoiser) -> NoisePredictor:
    """The predictions of a denoiser for any number of x at one step, at most MOST_AT_ONCE in one call."""

    def noise_of(x: Tensor, step: int) -> Tensor:
        steps = torch.full((min(len(x), MOST_AT_ONCE),), step, device=x.device)
        parts = [unet(part, steps[: len(part)]) for part in torch.split(x, MOST_AT_ONCE)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    return noise_of


def time_grid(return_step: int, count: int) -> list[int]:
    """Increasing steps from CLEAN to `return_step` - 1, about evenly spaced: count + 1, or fewer where they coincide."""
    steps = torch.linspace(CLEAN, return_step - 1, count + 1, dtype=torch.float64).round().int()
    return list(dict.fromkeys(integers(steps)))


def alphas_at(alphas_cumprod: Tensor, grid: list[int]) -> list[float]:
    """The value of alphas_cumprod at each step of a grid, 1 for CLEAN."""
    return [1.0 if step == CLEAN else alphas_cumprod[step].item() for step in grid]


@dataclass(frozen=True)
class Trajectory:
    """A DDIM inversion. `states[k]`, (n, c, h, w), is at step `grid[k]`, and `alphas[k]` is alphas_cumprod there.

    `states[0]` is the picture or its latents. `noises[k]` is the noise predicted in `states[k + 1]`, and `errors[k]` is
    `states[k]` minus the result of the sampling step from `states[k + 1]`.
    """

    grid: list[int]
    alphas: list[float]
    states: list[Tensor]
    noises: list[Tensor]
    errors: list[Tensor]


def ddim_invert(
    noise_of: NoisePredictor, alphas_cumprod: Tensor, x: Tensor, grid: list[int], iterations: int
) -> Generator[tuple[int, Tensor], None, Trajectory]:
    """Invert x (n, c, h, w). Yields the number of steps made and the given x, and returns the Trajectory.

    Each step calls `noise_of` 1 + `iterations` times; there is one more call before the first step.
    """
    alphas = alphas_at(alphas_cumprod, grid)
    states = [x]
    noises: list[Tensor] = []
    errors: list[Tensor] = []
    noise = noise_of(x, 0)
    for k, step in enumerate(grid[1:]):
        up = ddim_step(x, noise, alphas[k], alphas[k + 1])
        for _ in range(iterations):
            up = ddim_step(x, noise_of(up, step), alphas[k], alphas[k + 1])
        noise = noise_of(up, step)
        noises.append(noise)
        errors.append(x - ddim_step(up, noise, alphas[k + 1], alphas[k]))
        states.append(up)
        x = up
        yield k + 1, states[0]
    return Trajectory(grid, alphas, states, noises, errors)


def ddim_sample(
    noise_of: NoisePredictor,
    inversion: Trajectory,
    copies: int = 1,
    mask: Tensor | None = None,
    add_back: bool = True,
) -> Generator[tuple[int, Tensor], None, Tensor]:
    """Sample from the end of a Trajectory with another noise predictor; returns x (n * copies, c, h, w).

    Yields the number of steps made and the predicted clean x. With the same predictor, and the errors added back,
    the result is the start. Outside `mask`, (1, 1, h, w) in [0, 1], the states are those of the Trajectory.
    """
    x = inversion.states[-1].repeat_interleave(copies, 0)
    for k in reversed(range(len(inversion.errors))):
        noise = noise_of(x, inversion.grid[k + 1])
        clean = predict_x0(x, noise, inversion.alphas[k + 1])
        x = ddim_step(x, noise, inversion.alphas[k + 1], inversion.alphas[k])
        if add_back:
            x = x + inversion.errors[k].repeat_interleave(copies, 0)
        if mask is not None:
            there = inversion.states[k].repeat_interleave(copies, 0)
            x = there + mask * (x - there)
        yield len(inversion.errors) - k, clean
    return x


def as_steps(
    stage: str, total: int, walk: Generator[tuple[int, Tensor], None, R], decode: Callable[[Tensor], Tensor]
) -> Generator[Step, None, R]:
    """A walk that yields numbers of steps and x, as Steps that show x decoded. Returns what the walk returns."""

    def step(made: tuple[int, Tensor]) -> Step:
        done, x = made
        return Step(stage, done, max(total, done), {}, lambda: decode(x))

    return mapped(walk, step)


def add_noise(x: Tensor, alpha: Tensor | float, generator: torch.Generator) -> Tensor:
    """sqrt(alpha) x + sqrt(1 - alpha) noise, with Gaussian noise drawn on the CPU (Ho et al. 2020, equation 4)."""
    noise = torch.randn(x.shape, generator=generator).to(x.device)
    return alpha**0.5 * x + (1 - alpha) ** 0.5 * noise
