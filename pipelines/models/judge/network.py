"""The judge: a classifier that only evaluations use. No pipeline draws, ranks or selects with it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models.checkpoint import Config
from pipelines.models.clip.network import ClipConfig, ImageTower


@dataclass(frozen=True)
class JudgeConfig(Config):
    """Sizes of the residual CNN (He et al. 2016), and `things`, the names of its classes."""

    things: tuple[str, ...]
    image_size: int = 64
    widths: tuple[int, ...] = (64, 128, 256, 384)
    block_counts: tuple[int, ...] = (1, 2, 2, 2)
    embedding_size: int = 256


class Judge(nn.Module):
    """Classifies pictures by their cosine with one learned vector for each class."""

    def __init__(self, config: JudgeConfig):
        super().__init__()
        self.config = config
        self.tower = ImageTower(
            ClipConfig(
                0,
                widths=config.widths,
                block_counts=config.block_counts,
                embedding_size=config.embedding_size,
            )
        )
        self.things = nn.Parameter(
            F.normalize(torch.randn(len(config.things), config.embedding_size), dim=-1)
        )

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1], of any size -> (n, things) cosines in [-1, 1]."""
        size = self.config.image_size
        if images.shape[-1] > size:
            images = F.interpolate(images, (size, size), mode="area")
        elif images.shape[-1] < size:
            images = F.interpolate(images, (size, size), mode="bilinear", align_corners=False)
        vectors = F.normalize(self.tower((images - 0.5) / 0.6).float(), dim=-1)
        return vectors @ F.normalize(self.things, dim=-1).T
