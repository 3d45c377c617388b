"""Moves of a canvas: zoom, pan and rotation, for films."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def move_matrix(size: tuple[int, int], zoom: float, pan_x: float, pan_y: float, rotate: float) -> Tensor:
    """The matrix (1, 2, 3) of one move of a picture of `size` (height, width), for `moved`.

    `zoom` above 1 enlarges; the picture moves `pan_x` pixels to the right and `pan_y` down; `rotate` is in degrees,
    counter-clockwise.
    """
    height, width = size
    angle = math.radians(rotate)
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    dx, dy = 2 * pan_x / width, 2 * pan_y / height
    return torch.tensor([[[cos, -sin * height / width, -dx], [sin * width / height, cos, -dy]]])


def moved(x: Tensor, matrix: Tensor) -> Tensor:
    """(1, c, h, w), a picture or what lies on its grid, moved; what comes in at the edges is a reflection."""
    grid = F.affine_grid(matrix.to(x.device), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
