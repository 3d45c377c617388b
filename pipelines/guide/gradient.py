"""CLIP's gradient on a noisy picture (Crowson 2021, "CLIP guided diffusion"; after Dhariwal and Nichol 2021).

At every step the network's clean guess is decoded and looked at. The gradient of the loss at the noisy picture, its root
mean square clamped, is added to the predicted noise, as a classifier's score would be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.models.ddim import predict_x0

Predictor = Callable[[Tensor, Tensor], Tensor]  # (n, c, h, w) and (n,) steps -> the noise in it
Loss = Callable[[Tensor], Tensor]  # (1, 3, h, w) -> a scalar


@dataclass(frozen=True)
class Prediction:
    """What is known after looking at one noisy x."""

    noise: Tensor  # (1, c, h, w) predicted, before guidance
    guess: Tensor  # (1, c, h, w) the clean x that it means
    picture: Tensor | None  # (1, 3, h, w) the guess decoded, if it was looked at
    loss: Tensor  # a scalar
    gradient: Tensor  # (1, c, h, w) of the loss at x


@torch.enable_grad()
def guidance_gradient(
    predict: Predictor,
    decode: Callable[[Tensor], Tensor],
    x: Tensor,
    step: int,
    alpha: float,
    losses: Sequence[Loss],
    *,
    whole: bool,
) -> Prediction:
    """The gradient at x (1, c, h, w), which is at a `step` whose alphas_cumprod is `alpha`, of the sum of `losses`.

    Each loss is looked at alone, so that memory does not grow with their number. With `whole` the gradient goes through
    the network; otherwise the predicted noise counts as constant.
    """
    x = x.detach().requires_grad_()
    times = torch.full((len(x),), step, device=x.device)
    with torch.set_grad_enabled(whole):
        noise = predict(x, times)
    guess = predict_x0(x, noise, alpha)
    picture = decode(guess)
    seen = picture.detach().requires_grad_()
    upstream, total = torch.zeros_like(seen), torch.zeros((), device=x.device)
    for loss_of in losses:
        loss = loss_of(seen)
        upstream = upstream + torch.autograd.grad(loss, seen)[0]
        total = total + loss.detach()
    (gradient,) = torch.autograd.grad(picture, x, upstream)
    return Prediction(noise.detach(), guess.detach(), seen.detach(), total, gradient)


def clamped(gradient: Tensor, most: float) -> Tensor:
    """A gradient whose root mean square is at most `most`; 0 for no limit. Any shape."""
    if not most:
        return gradient
    size = gradient.square().mean().sqrt()
    return gradient * (size.clamp(max=most) / size.clamp(min=1e-20))
