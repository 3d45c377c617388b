"""Larger pictures with crisp edges, without learning: sharpening that may not overshoot, and back-projection.

A bicubic enlargement is sharpened, kept within the values that were near each place before (so no halo comes), and
corrected by what it lacks when it is made small again (Irani and Peleg 1991); three times over.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

ROUNDS, AMOUNT = 3, 0.5
SPREAD = 0.7  # of the blur that sharpening takes away, in pixels of the small picture
MOST = 2048  # pixels of a side that is enlarged in this way


def enlarged(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An RGBA picture at another size, with premultiplied colours, so that no hidden colour comes out at its edges.

    It is doubled as often as is needed, then made smaller. Sizes above MOST, and smaller ones, are resampled.
    """
    premultiplied = picture.convert("RGBa")
    if size[0] > picture.width or size[1] > picture.height:
        levels = torch.from_numpy(np.asarray(premultiplied).copy()).permute(2, 0, 1)[None].float() / 255
        while max(levels.shape[-2:]) <= MOST // 2 and (
            levels.shape[-1] < size[0] or levels.shape[-2] < size[1]
        ):
            levels = doubled(levels)
        whole = levels.clamp(0, 1).mul(255).round().to(torch.uint8)[0].permute(1, 2, 0).numpy()
        # premultiplied colours are below their opacity
        whole[..., :3] = np.minimum(whole[..., :3], whole[..., 3:])
        premultiplied = Image.frombytes("RGBa", (whole.shape[1], whole.shape[0]), whole.tobytes())
    return premultiplied.resize(size, Image.Resampling.LANCZOS).convert("RGBA")


def doubled(x: Tensor) -> Tensor:
    """(n, c, h, w) in [0, 1] -> (n, c, 2 h, 2 w), within the values that are near each place in x."""
    near = F.pad(x, (1, 1, 1, 1), mode="replicate")
    most, least = (_large(part) for part in (F.max_pool2d(near, 3, 1), -F.max_pool2d(-near, 3, 1)))
    y = _bicubic(x)
    for _ in range(ROUNDS):
        y = (y + AMOUNT * (y - _blurred(y))).clamp(least, most)
        y = y + _bicubic(x - F.avg_pool2d(y, 2))
    return y.clamp(least, most)


def _bicubic(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bicubic", align_corners=False)


def _large(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _blurred(x: Tensor) -> Tensor:
    """Blurred by a Gaussian of SPREAD pixels of the small picture."""
    spread = 2 * SPREAD
    radius = round(3 * spread)
    ramp = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    weights = torch.exp(-ramp.square() / (2 * spread**2))
    across = (weights / weights.sum()).expand(x.shape[1], 1, 1, -1)
    padded = F.pad(x, (radius,) * 4, mode="replicate")
    rows = F.conv2d(padded, across, groups=x.shape[1])
    return F.conv2d(rows, across.transpose(2, 3), groups=x.shape[1])
