"""DDIM (Song et al. 2021) for every Denoiser, on pictures or latents: noise levels, the predicted clean x, and steps."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from pipelines.models.base import Denoiser
from pipelines.models.typed import floats

CLEAN = -1  # the step before the first, where nothing of x is lost


def linear_alphas_cumprod(
    first_beta: float = 1e-4, last_beta: float = 0.02, step_count: int = 1000
) -> Tensor:
    """(step_count,) float32 for variances (betas) that grow linearly, as in Ho et al. 2020."""
    betas = torch.linspace(first_beta, last_beta, step_count, dtype=torch.float64)
    return (1 - betas).cumprod(0).float()


def predict_x0(x: Tensor, noise: Tensor, alpha: Tensor | float) -> Tensor:
    """The clean x predicted from x and the noise in it, of any shape: Song et al. 2021, equation 9.

    `alpha` is the value of `alphas_cumprod` at x's step, in (0, 1].
    """
    return (x - (1 - alpha) ** 0.5 * noise) / alpha**0.5


def ddim_step(x: Tensor, noise: Tensor, alpha_from: Tensor | float, alpha_to: Tensor | float) -> Tensor:
    """One deterministic step of x, of any shape: Song et al. 2021, equation 12 with sigma = 0.

    `noise` is the noise predicted in `x`; the alphas are values of `alphas_cumprod` in (0, 1], 1 for a clean x, as numbers
    or tensors that broadcast against `x`. The step denoises if alpha_to is above alpha_from, and adds noise (DDIM
    inversion) if it is below.
    """
    return alpha_to**0.5 * predict_x0(x, noise, alpha_from) + (1 - alpha_to) ** 0.5 * noise


def stochastic_ddim_step(
    x: Tensor, noise: Tensor, alpha: float, next_alpha: float, eta: float, generator: torch.Generator
) -> Tensor:
    """One step from `alpha` to `next_alpha` with fresh noise: (1, c, h, w) -> the same shape (equations 12 and 16).

    `eta` 0 adds no noise, 1 as much as Ho et al. 2020. Noise is drawn on the CPU.
    """
    sigma = eta * ((1 - next_alpha) / (1 - alpha)) ** 0.5 * (1 - alpha / next_alpha) ** 0.5
    guess = predict_x0(x, noise, alpha)
    x = next_alpha**0.5 * guess + max(1 - next_alpha - sigma**2, 0.0) ** 0.5 * noise
    if sigma:
        x = x + sigma * torch.randn(x.shape, generator=generator).to(x.device)
    return x


@torch.no_grad()
def ddim_walk(unet: Denoiser, x: Tensor, start: int, end: int, count: int) -> Tensor:
    """x (n, c, h, w) at step `start` -> the same shape at step `end`, by `count` DDIM steps in either direction.

    Steps are in [0, step_count), or CLEAN. The noise of each DDIM step is predicted at the step where it begins, as in
    DiffusionCLIP (Kim et al. 2022), both when noise is added and when it is removed.
    """
    alphas = [1.0, *floats(unet.alphas_cumprod)]
    steps: list[int] = np.linspace(start, end, count + 1).round().astype(int).tolist()
    for step, next_step in pairwise(steps):
        times = torch.full((len(x),), max(step, 0), device=x.device)
        x = ddim_step(x, unet(x, times), alphas[step + 1], alphas[next_step + 1])
    return x
