"""Editing without learning: at every sampling step CLIP's gradient moves the predicted clean picture.

It follows classifier guidance (Dhariwal and Nichol 2021) and its asymmetric form (Kwon and Ye 2023), which changes the
predicted picture and keeps the predicted noise.
"""

from __future__ import annotations

from collections.abc import Generator

import torch
from torch import Tensor

from pipelines.clip.cutouts import views_alike
from pipelines.clip.losses import directional_loss, keeping_loss, reach_loss
from pipelines.edit.ddim import NoiseOf, Trajectory
from pipelines.models.base import Clip
from pipelines.models.unet.network import guess

PUSHES = 2  # a step
VIEWS = 3  # of each picture
STEP = 0.06  # root mean square of one push, in units of [-1, 1], at guidance 1 and strength 1


def walk_down_guided(
    noise_of: NoiseOf,
    clip: Clip,
    direction: Tensor,
    way: Trajectory,
    strengths: Tensor,
    *,
    guidance: float,
    keep: float,
    smooth: float,
    generator: torch.Generator,
    mask: Tensor | None = None,
) -> Generator[tuple[int, Tensor], None, Tensor]:
    """Sample from the end of one picture's Trajectory; returns (n, 3, h, w), one for each of (n,) strengths.

    The first strength must be 0. `direction` is (d,) of unit length; `keep` and `smooth` are weights of `keeping_loss`;
    outside `mask`, (1, 1, h, w) in [0, 1], the states are those of the Trajectory. Yields the number of steps made and the
    predicted clean pictures (n, 3, h, w).
    """
    n = len(strengths)
    x = way.states[-1].expand(n, -1, -1, -1)
    for k in reversed(range(len(way.errors))):
        alpha, alpha_next = way.alphas[k + 1], way.alphas[k]
        noise = noise_of(x, way.grid[k + 1])
        clean = guess(x, noise, alpha)
        for _ in range(PUSHES):
            push = _push(clip, direction, clean[:1], clean, strengths, keep, smooth, generator)
            clean = clean - guidance * STEP * push
        x = alpha_next**0.5 * clean + (1 - alpha_next) ** 0.5 * noise + way.errors[k]
        if mask is not None:
            x = way.states[k] + mask * (x - way.states[k])
        yield len(way.errors) - k, clean
    return x


@torch.enable_grad()
def _push(
    clip: Clip,
    direction: Tensor,
    before: Tensor,
    after: Tensor,
    strengths: Tensor,
    keep: float,
    smooth: float,
    generator: torch.Generator,
) -> Tensor:
    """The gradient of the loss at `after` (n, 3, h, w), scaled to a root mean square of |strength| each."""
    after = after.detach().requires_grad_()
    before = before.detach()
    seen = views_alike(torch.cat([before, after]), VIEWS, clip.config.small_size, generator).flatten(0, 1)
    with torch.no_grad():
        vectors = clip.encode_image(seen[:VIEWS]).repeat(len(after), 1)
    strength = strengths.repeat_interleave(VIEWS)
    changed = clip.encode_image(seen[VIEWS:])
    loss = reach_loss(vectors, changed, direction, strength)
    loss = loss + directional_loss(vectors, changed, strength.sign()[:, None] * direction)
    loss = loss.sum() / VIEWS + keeping_loss(before, after, keep, smooth).sum()
    (gradient,) = torch.autograd.grad(loss, after)
    size = gradient.square().mean((1, 2, 3), keepdim=True).sqrt()
    return gradient / (size + 1e-8) * strengths.abs()[:, None, None, None]
