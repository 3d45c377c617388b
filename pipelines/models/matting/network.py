"""Natural image matting of icons without a trimap: from a picture to its opacity, alpha.

The network is a U-Net (Ronneberger et al. 2015). Beside the colours it is given what convolutions find hard to work out:
how much a pixel differs from the picture's border, and the minimum barrier to the border (Strand et al. 2013), which
is low inside everything that a flood fill from the border would reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models.checkpoint import Config

GUIDES = 6  # channels of `guides`
FAINT = 0.03  # a difference that is half of the way to a large one, where pictures are clean: 4 levels of 255
SAME, MOST_OF_IT = 1e-4, 0.9  # differences that are none; the share of a border's pixels that makes it even
WHITE_SHARE = 0.05  # of a border; from there on white is the ground
SEVERAL, FLAT = (
    0.6,
    0.8,
)  # the share that no colour of a scene's border has; that of its places like the place beside them
SCANS = 3  # in each direction
GROUPS = 8  # of every group norm


@dataclass(frozen=True)
class MattingConfig(Config):
    """Sizes. The side is divided by `patch` (unshuffle), then by 2 for every width after the first."""

    image_size: int = 128
    patch: int = 4
    widths: tuple[int, ...] = (48, 64, 80)
    detail_width: int = 16  # of the layers at full resolution

    @property
    def factor(self) -> int:
        """The sides of a picture are multiples of this, in pixels."""
        return self.patch * 2 ** (len(self.widths) - 1)


class Residual(nn.Module):
    """x plus two convolutions of it (He et al. 2016, with pre-activation)."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, width), nn.GroupNorm(GROUPS, width)
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) -> the same shape."""
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class Attention(nn.Module):
    """x plus what every place takes from all others (Vaswani et al. 2017), one head."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width)
        self.to_qkv, self.to_out = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) -> the same shape."""
        q, k, v = self.to_qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return x + self.to_out(mixed.transpose(1, 2).reshape(x.shape))


class Matting(nn.Module):
    """Says how opaque the thing in a picture is at every pixel. The sides of pictures are multiples of `config.factor`."""

    def __init__(self, config: MattingConfig):
        super().__init__()
        self.config = config
        widths, patch = config.widths, config.patch
        self.first = nn.Conv2d((3 + GUIDES) * patch**2, widths[0], 3, 1, 1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(widths))
        self.enter = nn.ModuleList(Residual(width) for width in widths)
        self.middle = Attention(widths[-1])
        self.up = nn.ModuleList(nn.Conv2d(a + b, a, 3, 1, 1) for a, b in pairwise(widths))
        self.leave = nn.Conv2d(widths[0], 8 * patch**2, 1)
        self.detail = nn.Conv2d(8 + 3 + GUIDES, config.detail_width, 3, 1, 1)
        self.last = nn.Conv2d(config.detail_width, 1, 3, 1, 1)

    def alpha(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, 1, h, w) float32 in [0, 1], the opacity, full where areas are `filled`."""
        return torch.where(filled(images), 1.0, self(images).float().sigmoid())

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, 1, h, w), the logits of alpha."""
        seen = torch.cat([images, guides(images).to(images.dtype)], 1)
        seen = seen.contiguous(memory_format=torch.channels_last)
        x, levels = self.first(F.pixel_unshuffle(seen, self.config.patch)), list[Tensor]()
        for k, block in enumerate(self.enter):
            x = block(x if k == 0 else self.down[k - 1](x))
            levels.append(x)
        x = self.middle(x)
        for k in reversed(range(len(self.up))):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = F.silu(self.up[k](torch.cat([levels[k], x], 1)))
        x = F.pixel_shuffle(self.leave(x), self.config.patch)
        return self.last(F.silu(self.detail(torch.cat([x, seen], 1))))


@torch.no_grad()
def filled(images: Tensor) -> Tensor:
    """Where a picture is of the thing for certain: (n, 3, h, w) in [-1, 1] -> (n, 1, h, w) bool.

    That is inside even areas of another colour than the border's, in pictures whose border is even. There noise cannot be
    the cause, be the difference as faint as that of a white stripe on white. Compressed and drawn pictures have none.
    And all of a drawn scene.
    """
    images = images.float()
    apart = (images - border_colour(images)[:, :, None, None]).abs().amax(1, keepdim=True)
    ring = torch.cat([part.flatten(1) for part in _ring(apart)], 1)
    even = ((ring < SAME).float().mean(1) > MOST_OF_IT)[:, None, None, None]
    near = F.pad(images, (1, 1, 1, 1), mode="replicate")
    spread = (F.max_pool2d(near, 3, 1) + F.max_pool2d(-near, 3, 1)).amax(1, keepdim=True)
    inside = ((apart > FAINT) & (spread < SAME)).float()
    return ((F.max_pool2d(inside, 3, 1, 1) > 0) & (apart > FAINT) & even) | scenes(images)[
        :, None, None, None
    ]


def scenes(images: Tensor) -> Tensor:
    """Which pictures are drawings that fill their square, (n, 3, h, w) in [-1, 1] -> (n,) bool.

    Their border is of several even colours, none of them white. Gradients and photographs are not even.
    """
    ground = border_colour(images)
    alike = (torch.cat(_ring(images), 2) - ground[:, :, None]).abs().amax(1) < FAINT
    sides = [images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]]
    flat = torch.cat([side.diff(dim=2).abs().amax(1) < SAME for side in sides], 1)
    coloured = (1 - ground).amax(1) > FAINT
    return coloured & (alike.float().mean(1) < SEVERAL) & (flat.float().mean(1) > FLAT)


def _ring(images: Tensor) -> list[Tensor]:
    """The two outermost rows and columns on each side."""
    sides = [images[..., :2, :], images[..., -2:, :], images[..., :2], images[..., -2:]]
    return [side.flatten(2) for side in sides]


def border_colour(images: Tensor) -> Tensor:
    """The ground's colour by the two outermost rows and columns: (n, 3, h, w) in [-1, 1] -> (n, 3).

    It is white where some of them is, because things that touch the border may cover most of it; else their median.
    """
    ring = torch.cat(_ring(images), 2)
    white = ((1 - ring).amax(1) < FAINT).float().mean(1) > WHITE_SHARE
    return torch.where(white[:, None], 1.0, ring.median(2).values)


@torch.no_grad()
def guides(images: Tensor) -> Tensor:
    """What tells foreground from border: (n, 3, h, w) in [-1, 1] -> (n, GUIDES, h, w) float32.

    The difference to the border's colour by channel; the barrier: the least, over all paths to the border, of the
    largest difference on the path; barrier and difference once more so that faint ones count.
    """
    images = images.float()
    difference = images - border_colour(images)[:, :, None, None]
    height = difference.abs().amax(1)
    climbed = torch.stack([barrier(height), height], 1)
    return torch.cat([difference, climbed[:, :1], climbed / (climbed + FAINT)], 1)


def barrier(height: Tensor) -> Tensor:
    """(n, h, w) heights >= 0 -> (n, h, w), how high one must climb to come from outside to each place.

    By raster scans, SCANS times in each of four directions, which find nearly every path (Zhang et al. 2015).
    """
    climb = torch.full_like(height, torch.inf)
    for _ in range(SCANS):
        for axis in (1, 2):
            climb = _scanned(climb, height, axis)
            climb = _scanned(climb.flip(axis), height.flip(axis), axis).flip(axis)
    return climb


def _scanned(climb: Tensor, height: Tensor, axis: int) -> Tensor:
    """One scan along an axis: paths that come from outside or from the place before."""
    lines, before = list[Tensor](), torch.zeros_like(climb.select(axis, 0))
    for here, wall in zip(climb.unbind(axis), height.unbind(axis), strict=True):
        before = torch.maximum(torch.minimum(here, before), wall)
        lines.append(before)
    return torch.stack(lines, axis)
