"""Small random changes of training pictures. Chance is drawn on the CPU and applied on the pictures' device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """(n, 3, s, s) in [-1, 1]: small rotation, zoom and shift; brightness, contrast, saturation; sometimes blur, noise."""
    return apply_augmentation(images, draw_augmentation(tuple(images.shape), generator))


def draw_augmentation(shape: tuple[int, ...], generator: torch.Generator) -> dict[str, Tensor]:
    """All chance of `augment` for pictures of `shape` (n, 3, s, s), drawn on the CPU, one row a picture.

    Only the pictures that get noise have a row in "noise".
    """
    n = shape[0]

    def uniform(lo: float, hi: float, *sizes: int) -> Tensor:
        return torch.rand(n, *sizes, generator=generator) * (hi - lo) + lo

    angle, zoom = uniform(-0.2, 0.2), torch.exp(uniform(-0.2, 0.35))
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    shift = uniform(-0.12, 0.12, 2)
    rows = [torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)]
    noisy = uniform(0, 1) < 0.3
    noise = torch.randn(int(noisy.sum()), *shape[1:], generator=generator)
    return {
        "movement": torch.stack(rows, 1),
        "saturation": uniform(0.7, 1.3, 1, 1, 1),
        "contrast": uniform(0.75, 1.15, 1, 1, 1),
        "brightness": uniform(-0.15, 0.15, 1, 1, 1),
        "blurred": (uniform(0, 1, 1, 1, 1) < 0.25).float(),
        "noisy": noisy,
        "noise": noise * uniform(0, 0.15, 1, 1, 1)[noisy],
    }


def apply_augmentation(images: Tensor, change: dict[str, Tensor]) -> Tensor:
    """The pictures (n, 3, s, s) changed as `draw_augmentation` says, on their own device."""
    grid = F.affine_grid(change["movement"], list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * change["saturation"]
    images = images * change["contrast"] + change["brightness"]
    blurred = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2.0, mode="bilinear", align_corners=False)
    images = torch.lerp(images, blurred, change["blurred"])
    images[change["noisy"]] += change["noise"]
    return images.clamp(-1, 1)
