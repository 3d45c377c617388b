"""The canvas of Optimize: its size, its codec, its masks and regions, and the gradients through it."""

from __future__ import annotations

import re
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.errors import BadInput
from pipelines.io.images import open_picture, to_tensor
from pipelines.models.base import Codec

LONGEST = 512  # pixels; a larger start picture is reduced to it unless a size is given
LARGEST = 1024 * 1024  # pixels of a canvas


def straight_through(z: Tensor, vqgan: Codec) -> Tensor:
    """The nearest codes of z going forward, the identity going back (van den Oord et al. 2017)."""
    return vqgan.embed(vqgan.nearest(z.detach())) + (z - z.detach())


class _ClampWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bounds = (low, high)
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        (x,) = ctx.saved_tensors
        outside = x - x.clamp(*ctx.bounds)
        return gradient * (gradient * outside >= 0), None, None


def clamp_with_gradient(x: Tensor, low: float, high: float) -> Tensor:
    """Clamp; going back, a value outside the bounds gets the gradient only where descent leads it back inside."""
    return cast(Any, _ClampWithGradient).apply(x, low, high)


def side_region(name: str, size: tuple[int, int]) -> Tensor:
    """(1, 1, h, w): one on the named half of the canvas, or in its middle."""
    height, width = size
    region = torch.zeros(1, 1, height, width)
    rows, columns = slice(None), slice(None)
    if name == "top":
        rows = slice(0, height // 2)
    elif name == "bottom":
        rows = slice(height // 2, None)
    elif name == "left":
        columns = slice(0, width // 2)
    elif name == "right":
        columns = slice(width // 2, None)
    else:
        rows, columns = slice(height // 4, -(-3 * height // 4)), slice(width // 4, -(-3 * width // 4))
    region[:, :, rows, columns] = 1
    return region


def only_inside(picture: Tensor, region: Tensor | None) -> Tensor:
    """The part of the picture around a region; gradients reach nothing outside the region."""
    assert region is not None
    picture = picture.detach() + region * (picture - picture.detach())
    rows, columns = (region[0, 0] > 0).any(1).nonzero(), (region[0, 0] > 0).any(0).nonzero()
    if not len(rows):
        return picture
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    return picture[:, :, top:bottom, left:right]


def eight_bits(picture: Tensor) -> Tensor:
    return (((picture.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1).contiguous()


def canvas_size(size: str, init: str, vqgan: Codec) -> tuple[int, int]:
    """Width and height of the result: `size` such as 192x128, else the start picture's, else the model's own.

    BadInput unless tokens can make them.
    """
    factor = vqgan.config.factor
    if size:
        width, height = (int(one) for one in re.split("[xX×]", size))
        for name, side in (("width", width), ("height", height)):
            if side < 2 * factor or side % factor:
                good = max(2 * factor, round(side / factor) * factor)
                raise BadInput(
                    f"{name} {side} is not a multiple of {factor} from {2 * factor} on; try {good}"
                )
        if width * height > LARGEST:
            raise BadInput(f"{width}x{height} are {width * height:,} pixels; the most is {LARGEST:,}")
        return width, height
    if init:
        width, height = open_picture(init).size
        if (longer := max(width, height)) > LONGEST:
            width, height = (max(1, round(side * LONGEST / longer)) for side in (width, height))
        if min(width, height) < 2 * factor:
            raise BadInput(
                f"the start picture is {width}x{height}; its sides must be at least {2 * factor}, or give a size"
            )
        return width, height
    return vqgan.config.image_size, vqgan.config.image_size


def token_grid(width: int, height: int, vqgan: Codec) -> tuple[int, int]:
    """Rows and columns of tokens that cover a canvas."""
    factor = vqgan.config.factor
    return -(-height // factor), -(-width // factor)


def resized(x: Tensor, size: tuple[int, ...]) -> Tensor:
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="area")


class Canvas:
    """The size of a run's canvas in pixels and tokens, the codec that paints it, and the masks that were read for it.

    Sizes of pictures and masks here are (height, width). `size` is (width, height), as people write it.
    """

    def __init__(self, size: tuple[int, int], codec: Codec, *, halves: bool):
        self.codec, self.halves = codec, halves
        self.device = codec.codes.device
        self.width, self.height = size
        self.rows, self.columns = token_grid(self.width, self.height, codec)
        self.low = codec.codes.min(0).values[:, None, None]
        self.high = codec.codes.max(0).values[:, None, None]
        self._masks: dict[tuple[str, tuple[int, int]], Tensor] = {}

    def pixels(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Height and width of so many rows and columns of tokens."""
        return grid[0] * self.codec.config.factor, grid[1] * self.codec.config.factor

    @property
    def full_size(self) -> tuple[int, int]:
        """Height and width of the canvas when it is no longer coarse, edges that will be cropped included."""
        return self.pixels((self.rows, self.columns))

    def encode(self, picture: Tensor) -> Tensor:
        return self.codec.encode(picture).float().contiguous()

    def decode(self, codes: Tensor) -> Tensor:
        """Codes -> pictures in float32; only the decoder itself may compute in bfloat16.

        Everything that is compared with what a step decodes comes from here too: `pull` feels the rounding of one that
        does not, and the optimizer steps as far for it as for CLIP.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.halves):
            picture = self.codec.decode(codes)
        return clamp_with_gradient(picture.float(), -1.0, 1.0)

    def render(self, tokens: Tensor, mask: str, base: Tensor | None) -> Tensor:
        """(1, h, w) tokens -> (1, 3, h, w) in [-1, 1] under a mask picture of the settings."""
        with torch.no_grad():
            return self.composite(self.decode(self.codec.embed(tokens)), mask, base)

    def composite(self, picture: Tensor, mask: str, base: Tensor | None) -> Tensor:
        """The base outside the mask, to the bit; the picture inside; between them where the mask is grey."""
        if not mask or base is None:
            return picture
        levels = self.mask(mask, (picture.shape[2], picture.shape[3])).to(self.device)
        if base.shape != picture.shape:
            base = F.interpolate(base, picture.shape[-2:], mode="area")
        return torch.where(levels > 0, base + levels * (picture - base), base)

    def mask(self, source: str, size: tuple[int, int]) -> Tensor:
        """(1, 1, h, w) in [0, 1] from a mask picture in the settings."""
        if (source, size) not in self._masks:
            image = open_picture(source).convert("L")
            levels = to_tensor([image.convert("RGB")])[:, :1].add(1).div(2)
            self._masks[source, size] = resized(self.on_canvas(levels), size)
        return self._masks[source, size]

    def on_canvas(self, picture: Tensor) -> Tensor:
        """The picture with its edges repeated on the right and below until tokens cover it."""
        height, width = self.full_size
        edges = (0, width - picture.shape[-1], 0, height - picture.shape[-2])
        return F.pad(picture, edges, mode="replicate").to(self.device)

    def cropped(self, picture: Tensor) -> Tensor:
        """The picture without the edges that only tokens need; a coarse one as it is."""
        if picture.shape[-2:] != self.full_size:
            return picture
        return picture[..., : self.height, : self.width]
