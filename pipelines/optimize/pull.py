"""The pull of a diffusion model: every few steps it says what it takes the picture for, and the loss draws it there.

The picture gets noise, and the model's guess of the clean one, under the prompt and guided, is what the next steps are
pulled to. In expectation that is score distillation (Poole et al. 2022, DreamFusion, section 3) in the form of clean
guesses. The noise falls over the run, as large shapes come before details (Huang et al. 2023, DreamTime).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.core.candidates import generator_at
from pipelines.core.looks import of_style, under_looks
from pipelines.core.prompts import MAX_TERMS, parse_targets
from pipelines.models.latent_diffusion import Course, LatentDiffusion, clean_guess, under_terms
from pipelines.optimize.settings import OptimizeSettings

EVERY = 10  # steps between two guesses
# share of the model's steps that is left, at the start and at the end of a run
NOISE = (1.0, 0.3)
NOISE_OF_PICTURE = (0.6, 0.3)  # of one that starts from a picture, which more noise would forget


class Pull:
    """Guesses of one model for the pictures of a run."""

    def __init__(self, model: LatentDiffusion, settings: OptimizeSettings):
        self.model, self.seed = model, settings.seed
        self.noise = NOISE_OF_PICTURE if settings.image or settings.tokens else NOISE
        self._read: dict[tuple[str, str, tuple[int, int]], tuple[Any, Course]] = {}

    @torch.no_grad()
    def guess(self, picture: Tensor, current: OptimizeSettings, step: int) -> Tensor:
        """What the model takes a picture (1, 3, h, w) for at a step: (1, 3, H, W), in about its own size."""
        size = self._size(picture)
        seen = F.interpolate(picture, (size[1], size[0]), mode="bilinear", antialias=True).clamp(-1, 1)
        under = self._under(current.scene_at(step), of_style(current.style), size)
        first, last = self.noise
        share = first + (last - first) * min(step / current.steps, 1)
        generator = generator_at(self.seed, step, "pull")
        guidance = self.model.proposed_guidance
        return clean_guess(self.model, seen, under, guidance, share, generator).clamp(-1, 1)

    def _under(self, scene: str, look: str, size: tuple[int, int]) -> tuple[Any, Course]:
        """The condition and the course of a scene in a look; the last one is kept, so that texts are read once."""
        key = (scene, look, size)
        if key not in self._read:
            model, words = under_looks(self.model, scene, [look])
            self._read = {key: under_terms(model, _terms(words), size, 1)}
        return self._read[key]

    def _size(self, picture: Tensor) -> tuple[int, int]:
        """Width and height in which a picture is guessed: the shorter side is the model's own."""
        height, width = picture.shape[-2:]
        share, multiple = self.model.image_size / min(height, width), self.model.side_multiple
        return round(width * share / multiple) * multiple, round(height * share / multiple) * multiple


def _terms(scene: str) -> list[tuple[str, float]]:
    """The texts of a scene and their shares of the guidance, the heaviest MAX_TERMS of them."""
    targets = sorted(parse_targets(scene), key=lambda target: -abs(target.weight))[:MAX_TERMS]
    total = sum(target.weight for target in targets if target.weight > 0)
    return [(target.text, target.weight / total) for target in targets]


def apart(picture: Tensor, guess: Tensor) -> Tensor:
    """The mean squared distance of two pictures (1, 3, ...), a scalar, in the smaller of their sizes.

    So a guess says nothing of details that it is too small for.
    """
    if picture.shape[2] > guess.shape[2]:
        picture = F.interpolate(picture, guess.shape[-2:], mode="area")
    elif picture.shape[2] < guess.shape[2]:
        guess = F.interpolate(guess, picture.shape[-2:], mode="area")
    return (picture - guess).square().mean()
