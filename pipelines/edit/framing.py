"""Between a picture of any size and the model's small square: in by reduction, back by adding the change.

Only the change comes back, so that a large picture keeps its own detail; where nothing changed, and outside crop and mask,
not one bit differs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipelines.errors import BadInput
from pipelines.io.images import to_tensor

LEAST = 8  # pixels of a crop's side
RADIUS = 2  # of the guided filter, in the model's pixels
FLAT = 0.004  # its epsilon: variance below this counts as flat


@dataclass(frozen=True)
class Framing:
    """`box` (left, top, right, bottom) of a picture goes, padded to a square by its edges, to side x side pixels."""

    box: tuple[int, int, int, int]
    side: int

    @classmethod
    def of(cls, size: tuple[int, int], box: tuple[int, int, int, int] | None, side: int) -> Framing:
        """For a picture of (width, height); the whole of it without a box. BadInput when the box is not inside."""
        width, height = size
        left, top, right, bottom = box or (0, 0, width, height)
        if right > width or bottom > height:
            raise BadInput("edit.crop_outside", right=right, bottom=bottom, width=width, height=height)
        if min(right - left, bottom - top) < LEAST:
            raise BadInput("edit.crop_too_small", width=right - left, height=bottom - top, least=LEAST)
        return cls((left, top, right, bottom), side)

    def reduced(self, picture: Image.Image) -> Tensor:
        """What the model sees: (1, 3, side, side) in [-1, 1], 8-bit values where the part has that very size."""
        return self._square(to_tensor([picture.crop(self.box)]))

    def reduced_mask(self, mask: Image.Image) -> Tensor:
        """A grey picture's part -> (1, 1, side, side) in [0, 1]."""
        return self._square(to_tensor([mask.convert("RGB").crop(self.box)]))[:, :1] / 2 + 0.5

    def returned(self, picture: Image.Image, change: Tensor, mask: Image.Image | None) -> Image.Image:
        """The picture with `change` (1, 3, side, side), in units of [-1, 1], added to its part, as far as `mask` allows.

        A larger part gets the change by a fast guided filter (He and Sun 2015), which lets its edges follow the part's
        own, and what the filter smooths away by interpolation.
        """
        part = to_tensor([picture.crop(self.box)])  # (1, 3, h, w)
        height, width = part.shape[-2:]
        if (height, width) != (self.side, self.side):
            change = self._enlarged(change.float().cpu(), part)
        change = change.float().cpu()
        if mask is not None:
            change = change * (to_tensor([mask.convert("RGB").crop(self.box)])[:, :1] / 2 + 0.5)
        levels = ((part + change).clamp(-1, 1) + 1).mul(127.5).round().to(torch.uint8)
        result = picture.copy()
        result.paste(Image.fromarray(np.ascontiguousarray(levels[0].permute(1, 2, 0).numpy())), self.box[:2])
        return result

    def _square(self, part: Tensor) -> Tensor:
        height, width = part.shape[-2:]
        longer = max(height, width)
        if height != width:
            part = F.pad(part, self._edges(height, width), mode="replicate")
        if longer == self.side:
            return part
        if longer > self.side:
            return F.interpolate(part, (self.side, self.side), mode="area")
        return F.interpolate(part, (self.side, self.side), mode="bilinear", align_corners=False)

    @staticmethod
    def _edges(height: int, width: int) -> tuple[int, int, int, int]:
        longer = max(height, width)
        left, top = (longer - width) // 2, (longer - height) // 2
        return left, longer - width - left, top, longer - height - top

    def _enlarged(self, change: Tensor, part: Tensor) -> Tensor:
        """(1, 3, side, side) -> the size of part (1, 3, h, w)."""
        height, width = part.shape[-2:]
        left, _, top, _ = self._edges(height, width)
        longer = max(height, width)

        def fitted(x: Tensor) -> Tensor:
            large = F.interpolate(x, (longer, longer), mode="bilinear", align_corners=False)
            return large[..., top : top + height, left : left + width]

        def mean(x: Tensor) -> Tensor:
            return F.avg_pool2d(F.pad(x, (RADIUS,) * 4, mode="replicate"), 2 * RADIUS + 1, 1)

        if longer <= self.side:
            return fitted(change)
        guide = self._square(part)
        mean_guide, mean_change = mean(guide), mean(change)
        slope = (mean(guide * change) - mean_guide * mean_change) / (
            mean(guide * guide) - mean_guide**2 + FLAT
        )
        slope, offset = mean(slope), mean(mean_change - slope * mean_guide)
        rest = change - (slope * guide + offset)
        return fitted(slope) * part + fitted(offset + rest)
