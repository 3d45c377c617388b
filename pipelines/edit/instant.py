"""Instant edits: FlowEdit at some strengths, with as much focus as CLIP allows.

More focus keeps more of the picture, and too much of it keeps the edit from happening. How much is right differs from
picture to picture. So an edit of full strength is drawn with several, and the largest is taken under which CLIP is sure
to see the target and not the source. The critic has no part in it.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pipelines.clip.ranking import text_vector
from pipelines.core.looks import of_style, under_looks
from pipelines.core.pipeline import Step
from pipelines.core.prompts import as_words, parse_targets
from pipelines.edit.ddim import as_steps, noise_predictor
from pipelines.edit.flow_edit import SOURCE_GUIDANCE, STEPS, flow_edit, flow_grid, target_guidance
from pipelines.edit.inputs import EditInputs
from pipelines.edit.results import edited_images
from pipelines.edit.settings import EditSettings
from pipelines.models.typed import floats

FOCUSES = (0.95, 0.65, 0.35)  # that are tried, the most first
SURE = 0.97  # CLIP's probability of the target beside the source, from which on it is sure


@dataclass
class InstantDrawing:
    """Draws x at strengths as `strip_pictures` asks for them. `x` (1, c, h, w) is what is edited.

    Where the settings name no focus, the first call chooses one for all.
    """

    settings: EditSettings
    inputs: EditInputs
    x: Tensor
    chosen: float | None = None
    # strength -> x, of the focus chosen
    _full: dict[float, Tensor] = field(default_factory=dict[float, Tensor])

    def __call__(self, strengths: list[float]) -> Generator[Step, None, Tensor]:
        """(n, c, h, w), x edited once for each strength; negative ones go from the target to the source."""
        if self.settings.focus is not None:
            return (yield from self._flow(strengths, [self.settings.focus] * len(strengths)))
        if self.chosen is None:
            yield from self._choose()
        left = [strength for strength in strengths if strength not in self._full]
        drawn = dict(self._full)
        if left:
            others = yield from self._flow(left, [self.chosen or 0.0] * len(left))
            drawn |= dict(zip(left, others, strict=True))
        return torch.stack([drawn[strength] for strength in strengths])

    def facts(self) -> dict[str, Any]:
        """The focus that was chosen, for the record."""
        return {} if self.chosen is None else {"focus": self.chosen}

    def _choose(self) -> Generator[Step, None, None]:
        full = 1.0 if self.settings.strength >= 0 else -1.0
        count = len(FOCUSES)
        drawn = yield from self._flow([full] * count, list(FOCUSES), "choose")
        images = edited_images(self.settings, self.inputs, self.x, [full] * count, drawn)
        clip, framing = self.inputs.models.clip, self.inputs.framing
        vectors = clip.encode_image(torch.cat([framing.reduced(image) for image in images]).to(self.x.device))
        texts = [text_vector(clip, text) for text in (self.settings.source, self.settings.target)]
        away, towards = texts if full > 0 else reversed(texts)
        sure = floats((clip.logit_scale * (vectors @ (towards - away))).sigmoid())
        place = next((k for k, probability in enumerate(sure) if probability >= SURE), count - 1)
        self.chosen, self._full = FOCUSES[place], {full: drawn[place]}

    def _flow(
        self, strengths: list[float], focuses: list[float], stage: str = "draw"
    ) -> Generator[Step, None, Tensor]:
        settings, unet = self.settings, self.inputs.models.unet
        styled, words = under_looks(unet, as_words(settings.prompt), [of_style(settings.style)])
        ends = [(unet, settings.source), (styled, parse_targets(words)[0].text)]
        (from_unet, source), (to_unet, target) = ends if settings.strength >= 0 else reversed(ends)
        grid, begins = flow_grid(settings.return_step, settings.steps or STEPS, strengths)
        walk = flow_edit(
            noise_predictor(from_unet.under(source, SOURCE_GUIDANCE)),
            noise_predictor(to_unet.under(target, target_guidance(settings))),
            unet.alphas_cumprod, self.x, grid, begins, settings.seed, self.inputs.small_mask, focuses,
        )  # fmt: skip
        return (yield from as_steps(stage, len(grid) - 1, walk, unet.decode))
