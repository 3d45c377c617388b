"""Pictures at the doors: PIL to tensors in [-1, 1] and back, and the one safe way to open a stranger's picture."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_pil(pictures: Tensor) -> list[Image.Image]:
    """(n, 3, h, w) in [-1, 1] -> n RGB pictures of 8 bits; values outside are clamped."""
    levels = pictures.detach().float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return [Image.fromarray(one) for one in levels.permute(0, 2, 3, 1).cpu().numpy()]


def to_tensor(pictures: list[Image.Image]) -> Tensor:
    """n pictures of one size -> (n, 3, h, w) float32 in [-1, 1]; transparency must be gone already."""
    levels = np.stack([np.asarray(one.convert("RGB")) for one in pictures])  # (n, h, w, 3) uint8
    return torch.from_numpy(levels).permute(0, 3, 1, 2).float().div(127.5).sub(1)
