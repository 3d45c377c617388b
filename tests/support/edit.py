"""What the tests of Edit share: runs to their end, pictures, and runs that are stopped or killed on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from pipelines.core.execute import run
from pipelines.core.journal import Journal
from pipelines.core.pipeline import Result
from pipelines.edit.directions import AdaptedUnet, Direction, network_hash
from pipelines.edit.pipeline import Edit
from pipelines.edit.settings import EditSettings
from pipelines.io.images import picture_to_uri
from pipelines.models.base import Denoiser

QUICK: dict[str, Any] = {
    "mode": "quick",
    "steps": 3,
    "updates": 3,
    "strip": 1,
}  # enough to see whether something happens


STRONG: dict[str, Any] = {"step_size": 0.03, **QUICK}  # so much that every pixel notices


def finished(edit: Edit, settings: EditSettings, journal: Journal | None = None) -> Result:
    *_, result = run(edit, settings, journal)
    assert isinstance(result, Result)
    return result


def first(result: Result) -> Image.Image:
    return result.pictures[0].image


def pixels(result: Result) -> list[bytes]:
    return [picture.image.tobytes() for picture in result.pictures]


def speckled(size: tuple[int, int], seed: int = 0, low: int = 0, high: int = 256) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(low, high, (size[1], size[0], 3), dtype=np.uint8))


def smooth(size: tuple[int, int]) -> Image.Image:
    """A slope in each colour, far from black and white."""
    x, y = np.meshgrid(np.linspace(60, 190, size[0]), np.linspace(60, 190, size[1]))
    return Image.fromarray(np.stack([x, y, (x + y) / 2], -1).astype(np.uint8))


def half(size: tuple[int, int]) -> Image.Image:
    mask = Image.new("RGB", size)
    mask.paste((255, 255, 255), (0, 0, size[0] // 2, size[1]))
    return mask


def uri(picture: Image.Image) -> str:
    return picture_to_uri(picture)


def random_direction(unet: Denoiser, seed: int = 0, rank: int = 4, **facts: Any) -> Direction:
    """What a long learning might leave: an adapter that clearly changes what the denoiser says."""
    adapted_unet = AdaptedUnet(unet)
    adapted_unet.new_adapter(rank, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    tensors = {}
    for name, one in adapted_unet.tensors().items():
        grain = 0.2 * torch.randn(one.shape, generator=generator) if "lora_B" in name else one
        tensors[name] = grain.to(torch.float16)
    story = {"source": "a cat", "target": "two cats", "base": network_hash(unet), "clip": "ab" * 8}
    story |= {"mode": "quick", "rank": rank, "return_step": 400, "seed": seed}
    return Direction(tensors, story | {"figures": {"clip direction": 0.5}} | facts)


def finish(walk: Any) -> Any:
    while True:
        try:
            next(walk)
        except StopIteration as end:
            return end.value
