"""The targets of a run: prompts, regions, pictures and noise of the settings as vectors of CLIP's space."""

from __future__ import annotations

import torch

from pipelines.clip.ranking import text_vector
from pipelines.clip.targets import EncodedTarget, noise_targets, picture_targets, text_targets
from pipelines.core.looks import of_style, targets_in_words
from pipelines.core.prompts import SIDES, parse_list, parse_regions, parse_targets
from pipelines.models.base import Clip
from pipelines.optimize.canvas import Canvas, named_region
from pipelines.optimize.settings import OptimizeSettings


class Targets:
    """Encodes the targets of the settings, and caches those of the last call of `at`."""

    def __init__(self, clip: Clip, critic: Clip, canvas: Canvas):
        self.clip, self.critic, self.canvas = clip, critic, canvas
        self._encoded: dict[tuple[str, ...], list[EncodedTarget]] = {}

    def at(self, current: OptimizeSettings, step: int, size: tuple[int, int]) -> list[EncodedTarget]:
        """The targets at a step; `size` is the (height, width) of the picture that is decoded at that step."""
        scene = current.scene_at(step)
        key = (scene, current.style, current.regions, current.image_prompts, current.noise_prompts, str(size))
        if key not in self._encoded:
            self._encoded = {key: self.read(current, scene, size)}
        return self._encoded[key]

    @torch.no_grad()
    def read(self, current: OptimizeSettings, scene: str, size: tuple[int, int]) -> list[EncodedTarget]:
        """All targets of the settings with the prompt `scene`; regions are (1, 1, *size)."""
        clip, critic, device = self.clip, self.critic, self.canvas.device
        targets = text_targets(clip, critic, targets_in_words(parse_targets(scene), of_style(current.style)))
        for part in parse_regions(current.regions):
            target = part.target
            region = (
                named_region(part.where, size) if part.where in SIDES else self.canvas.mask(part.where, size)
            )
            vector = text_vector(clip, target.text)
            targets.append(EncodedTarget(vector, None, target.weight, target.stop, region.to(device)))
        targets += picture_targets(clip, critic, parse_list(current.image_prompts))
        return targets + noise_targets(clip, parse_list(current.noise_prompts))
