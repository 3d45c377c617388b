"""The targets of a run: prompts, regions, pictures and noise of the settings as vectors of CLIP's space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.clip.cutouts import whole_view
from pipelines.clip.ranking import text_vector
from pipelines.io.images import open_picture, to_tensor
from pipelines.models.base import Clip
from pipelines.models.sampling import generator_of
from pipelines.optimize.canvas import Canvas, named_region
from pipelines.optimize.prompts import SIDES, parse_regions, parse_story, parse_targets
from pipelines.optimize.settings import OptimizeSettings


@dataclass(frozen=True, eq=False)
class EncodedTarget:
    """One target: a unit vector of CLIP's space, a signed weight, the stop as in `Target`, and the region."""

    vector: Tensor  # (d,)
    critic: Tensor | None  # (d',), None for what only CLIP knows, such as noise
    weight: float
    stop: float | None = None
    region: Tensor | None = None  # (1, 1, h, w) in [0, 1]


def story_of(settings: OptimizeSettings) -> list[tuple[int, str]]:
    """The scenes of the prompt: (first step, prompt) in order. BadInput when it does not follow the grammar."""
    return parse_story(settings.prompt, settings.steps)


def scene_at(settings: OptimizeSettings, step: int) -> str:
    """The prompt of the scene at a step."""
    return next(words for begin, words in reversed(story_of(settings)) if begin <= step)


class Targets:
    """Encodes the targets of the settings, and caches those of the last call of `at`."""

    def __init__(self, clip: Clip, critic: Clip, canvas: Canvas):
        self.clip, self.critic, self.canvas = clip, critic, canvas
        self._encoded: dict[tuple[str, ...], list[EncodedTarget]] = {}

    def at(self, current: OptimizeSettings, step: int, size: tuple[int, int]) -> list[EncodedTarget]:
        """The targets at a step; `size` is the (height, width) of the picture that is decoded at that step."""
        scene = scene_at(current, step)
        key = (scene, current.regions, current.image_prompts, current.noise_prompts, str(size))
        if key not in self._encoded:
            self._encoded = {key: self.read(current, scene, size)}
        return self._encoded[key]

    @torch.no_grad()
    def read(self, current: OptimizeSettings, scene: str, size: tuple[int, int]) -> list[EncodedTarget]:
        """All targets of the settings with the prompt `scene`; regions are (1, 1, *size)."""
        clip, critic, device = self.clip, self.critic, self.canvas.device
        targets = [
            EncodedTarget(
                text_vector(clip, target.text), text_vector(critic, target.text), target.weight, target.stop
            )
            for target in parse_targets(scene)
        ]
        for part in parse_regions(current.regions):
            target = part.target
            region = (
                named_region(part.where, size) if part.where in SIDES else self.canvas.mask(part.where, size)
            )
            vector = text_vector(clip, target.text)
            targets.append(EncodedTarget(vector, None, target.weight, target.stop, region.to(device)))
        for target in parse_targets(current.image_prompts):
            picture = to_tensor([open_picture(target.text)]).to(device)
            vectors = [m.encode_image(whole_view(picture, m.config.image_size))[0] for m in (clip, critic)]
            targets.append(EncodedTarget(vectors[0], vectors[1], target.weight, target.stop))
        for target in parse_targets(current.noise_prompts):
            generator = generator_of(int(target.text))
            vector = torch.randn(clip.config.embedding_size, generator=generator)
            targets.append(EncodedTarget(F.normalize(vector, dim=0).to(device), None, target.weight))
        return targets
