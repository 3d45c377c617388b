"""Cutouts: augmented views of a canvas for CLIP, so that single pixels cannot raise its score.

All views of a step are one batch. Each has a homography, which holds crop, rotation, shear, flip and perspective in one
matrix, so that pixels are resampled once, by one `grid_sample`. Colours, boxes and noise follow. All random numbers come
from one generator.

Schemes: "mixed" has close views and views of the whole canvas; "pooled" resizes the whole canvas to CLIP's size and
augments that; "original" cuts random squares without augmentation (Crowson et al. 2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Views:
    """How strongly one kind of view is augmented.

    Angles are in degrees. `sides` is the range of a view's side as shares of the canvas's side that `of` names.
    """

    sides: tuple[float, float]
    of: str  # "shorter" or "longer" side of the canvas
    # the centre's freedom: 1 anywhere inside, or shares of the side where the view is the larger
    stray: float
    rotation: float = 0.0
    shear: float = 0.0
    perspective: float = 0.0
    flip: bool = False
    colour: float = 0.0  # brightness, contrast, saturation and hue
    erase: float = 0.0  # probability of a box
    power: float = 1.0  # of the uniform number that decides the side: above 1, small views are more frequent


WIDE = Views(
    (1.0, 1.15), "longer", 0.06, rotation=8, shear=4, perspective=0.12, flip=True, colour=0.1, erase=0.3
)
POOLED = Views((1.0, 1.0), "shorter", 0.1, rotation=15, shear=5, perspective=0.35, colour=0.1, erase=0.7)


def close_views(min_crop: float) -> Views:
    """Views of a part of the canvas, from `min_crop` to 0.95 of its shorter side."""
    sides = (min(min_crop, 0.95), 0.95)
    return Views(
        sides, "shorter", 1.0, rotation=12, shear=5, perspective=0.2, flip=True, colour=0.1, erase=0.3
    )


def cutouts(
    canvas: Tensor,
    count: int,
    size: int,
    generator: torch.Generator,
    scheme: str = "mixed",
    min_crop: float = 0.4,
    noise: float = 0.1,
) -> Tensor:
    """Cut augmented views from a canvas.

    Args:
        canvas: (1, 3, h, w) in [-1, 1].
        count: The number of views.
        size: The side of a view in pixels.
        generator: A generator on the CPU, from which all random numbers come.
        scheme: "mixed", "pooled" or "original".
        min_crop: The smallest side of a close view, as a share of the canvas's shorter side.
        noise: The largest standard deviation of the noise that is added to a view.

    Returns:
        (count, 3, size, size), differentiable. Noise takes some values outside [-1, 1].
    """
    height, width = canvas.shape[-2:]
    longer, shorter = max(height, width), min(height, width)
    if scheme == "mixed":
        # a long canvas needs more looks at the whole
        wide = math.ceil(count * min(0.4 * longer / shorter, 0.7))
        parts = [(WIDE, wide, canvas), (close_views(min_crop), count - wide, canvas)]
    elif scheme == "pooled":
        pooled = (F.adaptive_avg_pool2d(canvas, size) + F.adaptive_max_pool2d(canvas, size)) / 2
        parts = [(POOLED, count, pooled)]
    else:
        least = min(size / shorter, 1.0)
        parts = [(Views((least, 1.0), "shorter", 1.0), count, canvas)]
    padding = ("border", "reflection")[int(torch.randint(2, (), generator=generator))]
    cuts = [views_of(source, kind, n, size, generator, padding) for kind, n, source in parts if n]
    batch = torch.cat(cuts) if len(cuts) > 1 else cuts[0]
    if noise:
        strength = torch.rand(count, 1, 1, 1, generator=generator) * noise
        grain = strength * torch.randn(batch.shape, generator=generator)
        batch = batch + grain.to(batch.device, batch.dtype)
    return batch


ALIKE = Views((0.7, 1.0), "shorter", 1.0, rotation=8, shear=3, perspective=0.1, flip=True)


def views_alike(
    pictures: Tensor, count: int, size: int, generator: torch.Generator, noise: float = 0.05
) -> Tensor:
    """(n, 3, h, w) in [-1, 1] -> (n, count, 3, size, size): the same views with the same noise of every picture.

    Losses that compare pictures use it, so that views of two pictures differ in content only. `noise` is the noise's
    standard deviation.
    """
    n, _, height, width = pictures.shape
    matrices = homographies(ALIKE, count, height, width, generator)
    # (count, 3n, s, s)
    views = sample_views(pictures.reshape(1, 3 * n, height, width), matrices, size, "border")
    grain = torch.randn(count, 1, 3, size, size, generator=generator) * noise
    views = views.view(count, n, 3, size, size) + grain.to(views.device, views.dtype)
    return views.transpose(0, 1)


def whole_view(canvas: Tensor, size: int) -> Tensor:
    """(n, 3, h, w) -> (n, 3, size, size): the whole canvas, made square by repeating its edge pixels, then resized."""
    height, width = canvas.shape[-2:]
    if height != width:
        side = max(height, width)
        left, top = (side - width) // 2, (side - height) // 2
        edges = (left, side - width - left, top, side - height - top)
        canvas = F.pad(canvas, edges, mode="replicate")
    return F.interpolate(canvas, (size, size), mode="area" if canvas.shape[-1] >= size else "bilinear")


def homographies(kind: Views, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Random matrices of one kind of view, (count, 3, 3) float32 on the CPU.

    They take points (x, y, 1) of a view to points of the canvas, both in [-1, 1]^2. `height` and `width` are the
    canvas's, in pixels.
    """

    def uniform(lo: float, hi: float) -> Tensor:
        return torch.rand(count, generator=generator) * (hi - lo) + lo

    longer, shorter = max(height, width), min(height, width)
    low, high = kind.sides
    side = torch.rand(count, generator=generator) ** kind.power * (high - low) + low
    side = side * (longer if kind.of == "longer" else shorter)  # in pixels, as all lengths here
    room_x, room_y = (width - side).clamp(min=0) / 2, (height - side).clamp(min=0) / 2
    # a view as large as the canvas may look a little past its edge
    stray = kind.stray * side / 2 * (kind.stray < 1)
    centre_x = uniform(-1, 1) * (room_x + stray)
    centre_y = uniform(-1, 1) * (room_y + stray)
    often = (torch.rand(3, count, generator=generator) < 0.7).float()
    angle = uniform(-1, 1) * math.radians(kind.rotation) * often[0]
    shear = uniform(-1, 1) * math.tan(math.radians(kind.shear)) * often[0]
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0) if kind.flip else torch.ones(count)
    tilt_x, tilt_y = (uniform(-1, 1) * kind.perspective * often[1] for _ in range(2))
    cos, sin, half, zero = angle.cos(), angle.sin(), side / 2, torch.zeros(count)
    affine = torch.stack(
        [
            torch.stack([half * cos * flip, half * (shear * cos - sin), centre_x], 1),
            torch.stack([half * sin * flip, half * (shear * sin + cos), centre_y], 1),
            torch.stack([zero, zero, zero + 1], 1),
        ],
        1,
    )
    perspective = torch.eye(3).repeat(count, 1, 1)
    perspective[:, 2, 0], perspective[:, 2, 1] = tilt_x, tilt_y
    to_canvas = torch.tensor([2 / width, 2 / height, 1.0])
    return to_canvas[:, None] * (affine @ perspective)


def sample_views(canvas: Tensor, matrices: Tensor, size: int, padding: str) -> Tensor:
    """(1, c, h, w) and (n, 3, 3) homographies -> (n, c, size, size), sampled bilinearly.

    `padding` is `grid_sample`'s mode for points outside the canvas.
    """
    n = len(matrices)
    line = (torch.arange(size) * 2 + 1) / size - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    # (n, s * s, 3)
    points = torch.stack([x, y, torch.ones_like(x)], -1).view(1, -1, 3) @ matrices.transpose(1, 2)
    # one tall picture: no copies of the canvas
    grid = (points[..., :2] / points[..., 2:]).view(1, n * size, size, 2)
    views = F.grid_sample(
        canvas, grid.to(canvas.device, canvas.dtype), padding_mode=padding, align_corners=False
    )
    return views.view(canvas.shape[1], n, size, size).transpose(0, 1)


def views_of(
    canvas: Tensor, kind: Views, count: int, size: int, generator: torch.Generator, padding: str
) -> Tensor:
    """(1, 3, h, w) -> (count, 3, size, size): random views of one kind. `padding` is `grid_sample`'s mode."""
    height, width = canvas.shape[-2:]
    matrices = homographies(kind, count, height, width, generator)
    reach = kind.sides[0] * (max(height, width) if kind.of == "longer" else min(height, width))
    if (shrink := round(reach / size)) > 1:  # bilinear sampling alone would skip pixels
        canvas = F.avg_pool2d(canvas, shrink, ceil_mode=True, count_include_pad=False)
    views = sample_views(canvas, matrices, size, padding)
    if kind.colour:
        matrix, bias = colour_jitter(count, kind.colour, generator)
        matrix, bias = matrix.to(views.device, views.dtype), bias.to(views.device, views.dtype)
        views = torch.einsum("nij,njhw->nihw", matrix, views) + bias[:, :, None, None]
    if kind.erase:
        hole, grey = boxes(count, size, kind.erase, generator)
        views = torch.where(hole.to(views.device), grey.to(views.device, views.dtype), views)
    return views


def colour_jitter(count: int, strength: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random changes of brightness, contrast, saturation and hue: (n, 3, 3) matrices and (n, 3) biases.

    They apply to RGB in [-1, 1]. Hue is a rotation about the grey axis. `strength` is the largest change, 0 for none.
    """
    change = (torch.rand(4, count, generator=generator) * 2 - 1) * strength
    change = change * (torch.rand(count, generator=generator) < 0.7)
    brightness, contrast, saturation, hue = change
    angle = hue * math.pi
    grey = torch.full((3, 3), 1 / 3)  # projects on the grey axis, around which hue turns
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / 3**0.5
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    turn = cos * torch.eye(3) + sin * cross + (1 - cos) * grey
    saturate = grey + (1 + saturation)[:, None, None] * (torch.eye(3) - grey)
    matrix = (1 + contrast)[:, None, None] * (saturate @ turn)
    return matrix, brightness[:, None].expand(-1, 3)


def boxes(count: int, size: int, probability: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random boxes that hide a part of a view (random erasing, Zhong et al. 2020).

    Returns (n, 1, size, size) bool, true inside the box, and its grey (n, 1, 1, 1) in [-1, 1]. A view has a box with
    `probability`.
    """
    uniform = torch.rand(6, count, generator=generator)
    area, ratio = 0.05 + 0.2 * uniform[0], torch.exp((uniform[1] * 2 - 1) * math.log(2.0))
    half_x, half_y = (area * ratio).sqrt() / 2, (area / ratio).sqrt() / 2
    line = (torch.arange(size) + 0.5) / size
    inside_x = (line - uniform[2, :, None]).abs() < half_x[:, None]
    inside_y = (line - uniform[3, :, None]).abs() < half_y[:, None]
    hole = (
        inside_y[:, None, :, None]
        & inside_x[:, None, None, :]
        & (uniform[4] < probability)[:, None, None, None]
    )
    return hole, (uniform[5] * 2 - 1)[:, None, None, None]
