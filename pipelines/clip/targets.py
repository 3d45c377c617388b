"""Targets of a run that CLIP steers: texts, pictures and noise as vectors of CLIP's space, and the distance to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.clip.cutouts import whole_view
from pipelines.clip.losses import great_circle
from pipelines.clip.ranking import text_vector
from pipelines.io.images import open_picture, to_tensor
from pipelines.models.base import Clip
from pipelines.models.sampling import generator_of


class WrittenTarget(Protocol):
    """A target as the grammar of prompts reads it."""

    @property
    def text(self) -> str:
        """Words, the path or data URI of a picture, or a number."""
        ...

    @property
    def weight(self) -> float:
        """Its weight, not 0."""
        ...

    @property
    def stop(self) -> float | None:
        """The distance at which its gradient ends."""
        ...


@dataclass(frozen=True, eq=False)
class EncodedTarget:
    """One target: a unit vector of CLIP's space, a signed weight, the stop, and the region of the picture.

    A `weight` below zero maximizes the distance. `stop` is a great-circle distance (theta^2 / 2) below which there is no
    gradient, or for a negative weight above which there is none. None means no limit.
    """

    vector: Tensor  # (d,)
    critic: Tensor | None  # (d',), None for what only CLIP knows, such as noise
    weight: float
    stop: float | None = None
    region: Tensor | None = None  # (1, 1, h, w) in [0, 1]

    def distance(self, vectors: Tensor) -> Tensor:
        """The great-circle distance of (n, d) unit vectors, (n,), held at the stop where there is no gradient any more."""
        distance = great_circle(vectors, self.vector)
        if self.stop is None:
            return distance
        return distance.clamp(min=self.stop) if self.weight > 0 else distance.clamp(max=self.stop)


@torch.no_grad()
def text_targets(clip: Clip, critic: Clip, written: Iterable[WrittenTarget]) -> list[EncodedTarget]:
    """Targets whose texts are words."""
    return [
        EncodedTarget(
            text_vector(clip, target.text), text_vector(critic, target.text), target.weight, target.stop
        )
        for target in written
    ]


@torch.no_grad()
def picture_targets(clip: Clip, critic: Clip, written: Iterable[WrittenTarget]) -> list[EncodedTarget]:
    """Targets whose texts are paths or data URIs of pictures. BadInput when one cannot be opened."""
    targets: list[EncodedTarget] = []
    for target in written:
        picture = to_tensor([open_picture(target.text)]).to(clip.device)
        vectors = [m.encode_image(whole_view(picture, m.config.image_size))[0] for m in (clip, critic)]
        targets.append(EncodedTarget(vectors[0], vectors[1], target.weight, target.stop))
    return targets


def noise_targets(clip: Clip, written: Iterable[WrittenTarget]) -> list[EncodedTarget]:
    """Random directions, whose texts are their seeds."""
    targets: list[EncodedTarget] = []
    for target in written:
        generator = generator_of(int(target.text))
        vector = torch.randn(clip.config.embedding_size, generator=generator)
        targets.append(EncodedTarget(F.normalize(vector, dim=0).to(clip.device), None, target.weight))
    return targets
