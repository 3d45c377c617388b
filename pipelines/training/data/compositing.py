"""Pictures of the data as tensors: as they are, or icons turned, moved and laid over plain colours."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def to_images(pictures: np.ndarray) -> Tensor:
    """(n, s, s, 3) uint8 -> (n, 3, s, s) float32 in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def composed(
    rgba: np.ndarray, colours: np.ndarray, movement: np.ndarray, opaque: np.ndarray | None = None
) -> Tensor:
    """Icons, turned and moved, over plain colours: (n, 3, s, s) float32 in [-1, 1].

    rgba (n, s, s, 4) uint8; colours (n, 3) in [0, 255]; movement (n, 4): angle in radians, logarithm of how much
    smaller, and shift right and down as shares of half a side. No movement leaves every pixel as it is. Pictures that
    fill their square, `opaque` (n,), show no edge: see `kept_inside`.
    """
    if opaque is not None:
        movement = kept_inside(movement, opaque)
    angle, smaller, right, down = torch.from_numpy(movement).float().T
    cos, sin = angle.cos() * smaller.exp(), angle.sin() * smaller.exp()
    theta = torch.stack([torch.stack([cos, -sin, -right], 1), torch.stack([sin, cos, -down], 1)], 1)
    x = torch.from_numpy(np.ascontiguousarray(rgba)).permute(0, 3, 1, 2).float() / 255
    x = torch.cat([x[:, :3] * x[:, 3:], x[:, 3:]], 1)  # premultiplied, so that hidden colours stay hidden
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    moved = F.grid_sample(x, grid, mode="bicubic", padding_mode="zeros", align_corners=False)
    if opaque is not None and opaque.any():  # what lies between the last pixels and the edge is theirs
        rows = torch.from_numpy(np.flatnonzero(opaque))
        moved[rows] = F.grid_sample(
            x[rows], grid[rows], mode="bicubic", padding_mode="border", align_corners=False
        )
    x = moved
    background = torch.from_numpy(colours / 255).float()[:, :, None, None]
    return (x[:, :3] + (1 - x[:, 3:]) * background).clamp(0, 1) * 2 - 1


def kept_inside(movement: np.ndarray, opaque: np.ndarray) -> np.ndarray:
    """Movements (n, 4) of `composed`, of which those of pictures that fill their square (n,) show no edge.

    They do not turn, come nearer instead of going away, and shift no further than they are cut.
    """
    near = np.abs(movement[:, 1:2])
    room = 1 - np.exp(-near)
    inside = np.concatenate([np.zeros_like(near), -near, movement[:, 2:].clip(-room, room)], 1)
    return np.where(opaque[:, None], inside, movement)
