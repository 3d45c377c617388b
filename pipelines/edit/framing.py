"""Between a picture of any size and the model's small square: pictures are reduced, changes are enlarged and added.

Adding only the change keeps the detail of a large picture. Where nothing changed, and outside of crop and mask, the result
is the picture bit for bit.
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

MIN_SIDE = 8  # pixels of a crop's side
RADIUS = 2  # of the guided filter, in the model's pixels
FLAT = 0.004  # its epsilon: variance below this counts as flat


@dataclass(frozen=True)
class Framing:
    """Maps the `box` (left, top, right, bottom) of a picture, padded to a square with its edges, to side x side pixels."""

    box: tuple[int, int, int, int]
    side: int

    @classmethod
    def of(cls, size: tuple[int, int], box: tuple[int, int, int, int] | None, side: int) -> Framing:
        """The framing of a picture of (width, height); without a box, of the whole picture.

        BadInput when the box is not inside the picture, or has a side below MIN_SIDE.
        """
        width, height = size
        left, top, right, bottom = box or (0, 0, width, height)
        if right > width or bottom > height:
            raise BadInput("edit.crop_outside", right=right, bottom=bottom, width=width, height=height)
        if min(right - left, bottom - top) < MIN_SIDE:
            raise BadInput("edit.crop_too_small", width=right - left, height=bottom - top, least=MIN_SIDE)
        return cls((left, top, right, bottom), side)

    def reduced(self, picture: Image.Image) -> Tensor:
        """The model's input: (1, 3, side, side) in [-1, 1], not resampled if the box has that size."""
        return self._square(to_tensor([picture.crop(self.box)]))

    def reduced_mask(self, mask: Image.Image) -> Tensor:
        """The box of a grey picture -> (1, 1, side, side) in [0, 1]."""
        return self._square(to_tensor([mask.convert("RGB").crop(self.box)]))[:, :1] / 2 + 0.5

    def returned(self, picture: Image.Image, change: Tensor, mask: Image.Image | None) -> Image.Image:
        """The picture with `change`, (1, 3, side, side) in units of [-1, 1], times `mask` added to its box.

        For a larger box the change is enlarged by a fast guided filter (He and Sun 2015), so that its edges follow the
        picture's; the part that the filter removes is enlarged by bilinear interpolation.
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
        """The change (1, 3, side, side) -> the size of part (1, 3, h, w)."""
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
