"""Pictures that are mirrored on the way, as Disco Diffusion's symmetric transformations."""

from __future__ import annotations

import torch
from torch import Tensor

from pipelines.guide.settings import GuideSettings
from pipelines.models.base import Denoiser

AXES = {"vertical": (3,), "horizontal": (2,), "both": (2, 3)}  # symmetry -> dimensions that are halved


def is_mirrored(settings: GuideSettings, k: int) -> bool:
    """Whether the picture is mirrored after step k of a frame."""
    if settings.symmetry == "none":
        return False
    return any(round(share * settings.steps) == k for share in settings.mirrored_at())


def mirrored_walk(unet: Denoiser, symmetry: str, x: Tensor, guess: Tensor, alpha: float) -> Tensor:
    """x (1, c, h, w) at `alpha` with its clean `guess` and its noise mirrored, the left or the upper half kept."""
    axes = AXES[symmetry]
    clean = unet.encode(mirrored(unet.decode(guess), axes))
    return alpha**0.5 * clean + mirrored(x - alpha**0.5 * guess, axes)


def mirrored(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """(1, c, h, w) with its second half along each of `axes` replaced by the mirror image of the first."""
    for axis in axes:
        length = x.shape[axis]
        first = x.narrow(axis, 0, length - length // 2)
        x = torch.cat([first, x.narrow(axis, 0, length // 2).flip(axis)], axis)
    return x
