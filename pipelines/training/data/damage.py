"""Pictures damaged as networks damage them, so that CLIP learns to read what is drawn and not only what was designed.

Networks bend outlines, lose detail, lay a coloured haze over even areas, and put a part of one thing in the place of
another. `damages` draws all chance on the CPU, one row a picture; `damaged` makes the change; `redrawn` sends pictures
through a codec and exchanges some of their tokens on the way.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.models.base import Codec

SHARE = 0.5  # of the pictures that are damaged at all
# places along a side that bend, places of the haze, blocks that change place
WARP_GRID, HAZE_GRID, BLOCKS = 6, 8, 8
MAX_WARP, MAX_HAZE, MAX_NOISE = 0.07, 0.35, 0.25  # of half a side; of half the range of values, twice
SMALLER = (1, 2, 3, 4, 6)  # how many times smaller a picture may be seen


def damages(shape: tuple[int, ...], generator: torch.Generator, share: float = SHARE) -> dict[str, Tensor]:
    """All chance of `damaged` for pictures of `shape` (n, 3, s, s), one row a picture; about `share` of them change."""
    n, side = shape[0], shape[-1]

    def amount(most: float) -> Tensor:
        """(n, 1, 1, 1): none for most pictures, and small more often than large."""
        strength = torch.rand(n, generator=generator).square() * most
        return (strength * (torch.rand(n, generator=generator) < share))[:, None, None, None]

    smaller = torch.randint(len(SMALLER), (n,), generator=generator)
    smaller *= torch.rand(n, generator=generator) < share
    order = torch.arange(BLOCKS**2).repeat(n, 1)
    for row in (torch.rand(n, generator=generator) < share / 2).nonzero()[:, 0]:
        count = int(torch.randint(1, 7, (1,), generator=generator))
        places = torch.randint(BLOCKS**2, (2, count), generator=generator)
        order[row, places[0]] = places[1]
    return {
        "warp": torch.randn(n, 2, WARP_GRID, WARP_GRID, generator=generator) * amount(MAX_WARP),
        "haze": torch.randn(n, 3, HAZE_GRID, HAZE_GRID, generator=generator) * amount(MAX_HAZE),
        "noise": torch.randn(n, 3, side, side, generator=generator) * amount(MAX_NOISE),
        "smaller": smaller,
        "blocks": order,
    }


def damaged(images: Tensor, damage: dict[str, Tensor]) -> Tensor:
    """The pictures (n, 3, s, s) in [-1, 1] with the `damages` done, on their own device; s is a multiple of BLOCKS."""
    n, _, side, _ = images.shape
    images = _exchange_blocks(images, damage["blocks"])
    still = torch.eye(2, 3, device=images.device).repeat(n, 1, 1)
    bend = F.interpolate(damage["warp"], (side, side), mode="bicubic", align_corners=True)
    grid = F.affine_grid(still, list(images.shape), align_corners=False) + bend.permute(0, 2, 3, 1)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    for k, factor in enumerate(SMALLER):
        rows = (damage["smaller"] == k).nonzero()[:, 0]
        if factor > 1 and len(rows):
            less = F.interpolate(images[rows], (side // factor, side // factor), mode="area")
            images[rows] = F.interpolate(less, (side, side), mode="bilinear", align_corners=False)
    haze = F.interpolate(damage["haze"], (side, side), mode="bilinear", align_corners=False)
    return (images + haze + damage["noise"]).clamp(-1, 1)


def _exchange_blocks(images: Tensor, order: Tensor) -> Tensor:
    """(n, 3, s, s) with block k of a picture showing what its block order[k] showed: order (n, BLOCKS^2)."""
    n, channels, side, _ = images.shape
    size = side // BLOCKS
    blocks = images.view(n, channels, BLOCKS, size, BLOCKS, size).permute(0, 2, 4, 1, 3, 5)
    blocks = blocks.reshape(n, BLOCKS**2, -1)
    blocks = blocks.gather(1, order.to(images.device)[:, :, None].expand_as(blocks))
    blocks = blocks.view(n, BLOCKS, BLOCKS, channels, size, size).permute(0, 3, 1, 4, 2, 5)
    return blocks.reshape(n, channels, side, side)


def exchanges(
    count: int, token_count: int, generator: torch.Generator, share: float = 0.2, most: float = 0.25
) -> dict[str, Tensor]:
    """All chance of `redrawn`, one row a picture: about `share` of them go through the codec.

    Of such a picture's tokens 0 to `most` become others: its own from elsewhere, since networks err with what is likely.
    """
    shape = count, token_count
    exchanged = torch.rand(shape, generator=generator) < torch.rand(count, 1, generator=generator) * most
    elsewhere = torch.randint(token_count, shape, generator=generator)
    return {
        "redrawn": torch.rand(count, generator=generator) < share,
        "place": torch.where(exchanged, elsewhere, torch.arange(token_count)),
    }


@torch.no_grad()
def redrawn(codec: Codec, images: Tensor, exchange: dict[str, Tensor]) -> Tensor:
    """The pictures (n, 3, s, s) in [-1, 1], of which some went through the codec with tokens exchanged."""
    rows = exchange["redrawn"]
    if not rows.any():
        return images
    tokens = codec.encode_tokens(images[rows])
    mixed = tokens.flatten(1).gather(1, exchange["place"][rows]).view_as(tokens)
    images = images.clone()
    images[rows] = codec.decode_tokens(mixed).clamp(-1, 1).to(images.dtype)
    return images
