"""The canvas of Optimize: its size, codec, masks and regions, and the straight-through and clamp gradients."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.core import sizes
from pipelines.io.images import open_picture, to_tensor
from pipelines.models.base import Codec
from pipelines.optimize.settings import OptimizeSettings

USUAL_FACTOR = 16  # of the codecs of VQGAN-CLIP


def straight_through(z: Tensor, vqgan: Codec) -> Tensor:
    """Latents (n, c, h, w) -> their nearest codes, with the gradient of the identity (van den Oord et al. 2017)."""
    return vqgan.embed(vqgan.quantize(z.detach())) + (z - z.detach())


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
    """Clamp x to [low, high]; outside the bounds the gradient is kept only where descent moves the value inside."""
    return cast(Any, _ClampWithGradient).apply(x, low, high)


def named_region(name: str, size: tuple[int, int]) -> Tensor:
    """(1, 1, h, w): 1 on the half "top", "bottom", "left" or "right" of the canvas, or in its middle, and 0 elsewhere."""
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


def crop_to_region(picture: Tensor, region: Tensor | None) -> Tensor:
    """(1, 3, h, w) cropped to the bounding box of a region (1, 1, h, w); outside the region there is no gradient."""
    assert region is not None
    picture = picture.detach() + region * (picture - picture.detach())
    rows, columns = (region[0, 0] > 0).any(1).nonzero(), (region[0, 0] > 0).any(0).nonzero()
    if not len(rows):
        return picture
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    return picture[:, :, top:bottom, left:right]


def canvas_size(size: str, image: str, vqgan: Codec) -> tuple[int, int]:
    """Width and height of the result in pixels, as `sizes.canvas_size` for a codec."""
    return sizes.canvas_size(size, image, vqgan.config.factor, vqgan.config.image_size)


def token_grid(width: int, height: int, vqgan: Codec) -> tuple[int, int]:
    """Rows and columns of tokens that cover a canvas."""
    factor = vqgan.config.factor
    return -(-height // factor), -(-width // factor)


def proposed_coarse(settings: OptimizeSettings, vqgan: Codec) -> int:
    """How often the canvas doubles when the settings leave it open: once, for a crisp codec and a start from nothing.

    With 16 x 16 tokens a splash breaks up into details that CLIP likes and nobody else sees; with 8 x 8 it finds a shape.
    """
    from_nothing = settings.start != "drawn" and not (settings.image or settings.tokens)
    return int(from_nothing and vqgan.config.factor < USUAL_FACTOR)


def resized(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """(n, c, h, w) reduced to `size` (height, width) by area averaging."""
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="area")


class Canvas:
    """The size of a run's canvas in pixels and tokens, its codec, and a cache of its masks.

    Sizes of pictures and masks are (height, width), but the argument `size` is (width, height). `halves` lets the decoder
    compute in bfloat16.
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
        """Height and width in pixels of a grid of (rows, columns) tokens."""
        return grid[0] * self.codec.config.factor, grid[1] * self.codec.config.factor

    @property
    def full_size(self) -> tuple[int, int]:
        """Height and width in pixels of the full grid of tokens, with the edges that `cropped` removes."""
        return self.pixels((self.rows, self.columns))

    def encode(self, picture: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, c, h / factor, w / factor) float32. BadInput when the codec has no encoder."""
        return self.codec.encode(picture).float().contiguous()

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (n, c, h, w) -> (n, 3, h * factor, w * factor) float32 in [-1, 1], clamped by `clamp_with_gradient`.

        With `halves` the decoder computes in bfloat16. Pictures that are compared with a decoded step must be decoded here
        too, since `anchor_weight` would otherwise act on the difference in rounding.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.halves):
            picture = self.codec.decode(codes)
        return clamp_with_gradient(picture.float(), -1.0, 1.0)

    def render(self, tokens: Tensor, mask: str, base: Tensor | None) -> Tensor:
        """Tokens (1, rows, columns) -> (1, 3, h, w) in [-1, 1], composited with `base` by a mask picture."""
        with torch.no_grad():
            return self.composite(self.decode(self.codec.embed(tokens)), mask, base)

    def composite(self, picture: Tensor, mask: str, base: Tensor | None) -> Tensor:
        """(1, 3, h, w): the base, bit for bit, where the mask is black; the picture where it is white; a blend in grey."""
        if not mask or base is None:
            return picture
        levels = self.mask(mask, (picture.shape[2], picture.shape[3])).to(self.device)
        if base.shape != picture.shape:
            base = F.interpolate(base, picture.shape[-2:], mode="area")
        return torch.where(levels > 0, base + levels * (picture - base), base)

    def mask(self, source: str, size: tuple[int, int]) -> Tensor:
        """(1, 1, h, w) in [0, 1] from a mask picture of the settings, reduced to `size` (height, width)."""
        if (source, size) not in self._masks:
            image = open_picture(source).convert("L")
            levels = to_tensor([image.convert("RGB")])[:, :1].add(1).div(2)
            self._masks[source, size] = resized(self.on_canvas(levels), size)
        return self._masks[source, size]

    def on_canvas(self, picture: Tensor) -> Tensor:
        """(n, c, height, width) -> (n, c, *full_size), with the edges repeated at the right and below."""
        height, width = self.full_size
        edges = (0, width - picture.shape[-1], 0, height - picture.shape[-2])
        return F.pad(picture, edges, mode="replicate").to(self.device)

    def cropped(self, picture: Tensor) -> Tensor:
        """(n, c, *full_size) -> (n, c, height, width); a picture of another size is returned unchanged."""
        if picture.shape[-2:] != self.full_size:
            return picture
        return picture[..., : self.height, : self.width]
