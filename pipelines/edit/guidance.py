"""Editing without learning: at every sampling step CLIP's gradient moves the predicted clean picture.

It follows classifier guidance (Dhariwal and Nichol 2021) and its asymmetric form (Kwon and Ye 2023), which changes the
predicted picture and keeps the predicted noise.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import torch
from torch import Tensor

from pipelines.clip.cutouts import views_alike
from pipelines.clip.losses import directional_loss, magnitude_loss, preservation_loss
from pipelines.edit.ddim import NoisePredictor, Trajectory
from pipelines.models.base import Clip
from pipelines.models.ddim import predict_x0

PUSHES = 2  # a step
VIEWS = 3  # of each picture
STEP = 0.06  # root mean square of one push, in units of x, at guidance 1 and strength 1


def guided_sample(
    noise_of: NoisePredictor,
    decode: Callable[[Tensor], Tensor],
    clip: Clip,
    direction: Tensor,
    inversion: Trajectory,
    strengths: Tensor,
    *,
    guidance: float,
    l1_weight: float,
    tv_weight: float,
    generator: torch.Generator,
    mask: Tensor | None = None,
) -> Generator[tuple[int, Tensor], None, Tensor]:
    """Sample from the end of one picture's Trajectory; returns x (n, c, h, w), one for each of (n,) strengths.

    The first strength must be 0. `decode` turns x into pictures. `direction` is (d,) of unit length; `l1_weight` and
    `tv_weight` are weights of `preservation_loss`; outside `mask`, (1, 1, h, w) in [0, 1], the states are those of the
    Trajectory. Yields the number of steps made and the predicted clean x.
    """
    n = len(strengths)
    x = inversion.states[-1].expand(n, -1, -1, -1)
    for k in reversed(range(len(inversion.errors))):
        alpha, alpha_next = inversion.alphas[k + 1], inversion.alphas[k]
        noise = noise_of(x, inversion.grid[k + 1])
        clean = predict_x0(x, noise, alpha)
        for _ in range(PUSHES):
            push = _guidance_gradient(
                decode, clip, direction, clean[:1], clean, strengths, l1_weight, tv_weight, generator
            )
            clean = clean - guidance * STEP * push
        x = alpha_next**0.5 * clean + (1 - alpha_next) ** 0.5 * noise + inversion.errors[k]
        if mask is not None:
            x = inversion.states[k] + mask * (x - inversion.states[k])
        yield len(inversion.errors) - k, clean
    return x


@torch.enable_grad()
def _guidance_gradient(
    decode: Callable[[Tensor], Tensor],
    clip: Clip,
    direction: Tensor,
    before: Tensor,
    after: Tensor,
    strengths: Tensor,
    l1_weight: float,
    tv_weight: float,
    generator: torch.Generator,
) -> Tensor:
    """The gradient of the loss at `after` (n, c, h, w), scaled to a root mean square of |strength| each."""
    after = after.detach().requires_grad_()
    with torch.no_grad():
        image = decode(before)
    images = decode(after)
    seen = views_alike(torch.cat([image, images]), VIEWS, clip.config.small_size, generator).flatten(0, 1)
    with torch.no_grad():
        vectors = clip.encode_image(seen[:VIEWS]).repeat(len(after), 1)
    strength = strengths.repeat_interleave(VIEWS)
    changed = clip.encode_image(seen[VIEWS:])
    loss = magnitude_loss(vectors, changed, direction, strength)
    loss = loss + directional_loss(vectors, changed, strength.sign()[:, None] * direction)
    loss = loss.sum() / VIEWS + preservation_loss(image, images, l1_weight, tv_weight).sum()
    (gradient,) = torch.autograd.grad(loss, after)
    size = gradient.square().mean((1, 2, 3), keepdim=True).sqrt()
    return gradient / (size + 1e-8) * strengths.abs()[:, None, None, None]
