"""What a run starts from: noise, a picture with noise, clouds of Perlin noise."""

from __future__ import annotations

import torch
from torch import Tensor

from pipelines.core.candidates import generator_at
from pipelines.guide.settings import GuideSettings
from pipelines.io.images import open_picture, round_to_uint8, to_tensor

OCTAVES = 5


def start_picture(settings: GuideSettings, size: tuple[int, int], device: torch.device) -> Tensor | None:
    """(1, 3, h, w) in [-1, 1], of `size` (height, width): the start picture of prepared settings, clouds, or None."""
    if settings.image:
        return to_tensor([open_picture(settings.image)]).to(device)
    if settings.perlin_init == "off":
        return None
    generator = generator_at(settings.seed, 0, "perlin")
    grey, colour = (
        torch.cat([perlin_noise(size, generator) for _ in range(count)]).expand(3, -1, -1) for count in (1, 3)
    )
    clouds = {"gray": grey, "color": colour, "mixed": (grey + colour) / 2}[settings.perlin_init]
    return round_to_uint8(clouds[None]).to(device)


def perlin_noise(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """(1, h, w) in [-1, 1]: Perlin noise (1985) of OCTAVES octaves, each twice as fine and half as strong."""
    height, width = size
    total = torch.zeros(size)
    for octave in range(OCTAVES):
        total = total + 0.5**octave * _lattice_noise(height, width, 2 ** (octave + 1), generator)
    return (total / total.abs().max().clamp(min=1e-6))[None]


def _lattice_noise(height: int, width: int, cells: int, generator: torch.Generator) -> Tensor:
    """(h, w): gradients at the corners of `cells` x `cells` cells, interpolated by Perlin's quintic (2002)."""
    angle = torch.rand(cells + 1, cells + 1, generator=generator) * 2 * torch.pi
    y, x = ((torch.arange(n) + 0.5) / n * cells for n in (height, width))
    row, column = y.long(), x.long()
    y, x = (y - row)[:, None], (x - column)[None, :]

    def corner(down: int, right: int) -> Tensor:
        turn = angle[row + down][:, column + right]
        return turn.cos() * (x - right) + turn.sin() * (y - down)

    down, right = (p**3 * (p * (p * 6 - 15) + 10) for p in (y, x))
    top = torch.lerp(corner(0, 0), corner(0, 1), right.expand(height, -1))
    bottom = torch.lerp(corner(1, 0), corner(1, 1), right.expand(height, -1))
    return torch.lerp(top, bottom, down.expand(-1, width))
