"""What a scene of the prompt means to CLIP, and to a model that reads texts itself."""

from __future__ import annotations

import torch

from pipelines.clip.targets import EncodedTarget, picture_targets, text_targets
from pipelines.core.looks import of_style, targets_in_words, under_looks
from pipelines.core.prompts import parse_list, parse_targets
from pipelines.guide.gradient import Predictor
from pipelines.guide.settings import GuideSettings
from pipelines.models.base import Clip, Denoiser


class Scenes:
    """The targets and the network of the scene at a step; those of the last call are cached."""

    def __init__(self, unet: Denoiser, clip: Clip, critic: Clip):
        self.unet, self.clip, self.critic = unet, clip, critic
        self._targets: dict[tuple[str, str, str], list[EncodedTarget]] = {}
        self._predictors: dict[tuple[str, float, str], Predictor] = {}

    def targets(self, current: GuideSettings, step: int) -> list[EncodedTarget]:
        """The targets of the scene, and the pictures to steer to."""
        key = current.scene_at(step), current.image_prompts, current.style
        if key not in self._targets:
            targets = text_targets(
                self.clip, self.critic, targets_in_words(parse_targets(key[0]), of_style(key[2]))
            )
            targets += picture_targets(self.clip, self.critic, parse_list(key[1]))
            self._targets = {key: targets}
        return self._targets[key]

    def predictor(self, current: GuideSettings, step: int) -> Predictor:
        """The network under the texts of the scene, each by its share of the positive weights; under none at guidance 0.

        The mean of guided predictions is composition as in Liu et al. 2022, "Compositional visual generation".
        """
        scene, guidance, style = current.scene_at(step), current.guidance, current.style
        if guidance is None:  # by a change on the way
            guidance = self.unet.proposed_guidance
        if (scene, guidance, style) not in self._predictors:
            unet, read = under_looks(self.unet, scene, [of_style(style)])
            texts = [(target.weight, target.text) for target in parse_targets(read) if target.weight > 0]
            if not (guidance and self.unet.reads_text):
                parts = [(1.0, self.unet.under(""))]
            else:
                total = sum(weight for weight, _ in texts)
                parts = [(weight / total, unet.under(text, guidance)) for weight, text in texts]
            self._predictors = {
                (scene, guidance, style): lambda x, t: torch.stack(
                    [share * unet(x, t) for share, unet in parts]
                ).sum(0)
            }
        return self._predictors[scene, guidance, style]
