"""Pictures of several things, each drawn alone, laid in its place, and drawn together.

A small network mixes the things of a prompt. So each is drawn by itself, the pictures are laid side by side, and the
canvas is walked from a share of the noise under the whole prompt (as Sarukkai et al. 2023, "Collage Diffusion"; Meng et
al. 2022, SDEdit).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

from PIL import Image

from pipelines.core.candidates import candidate_seed
from pipelines.core.laying import laid
from pipelines.core.looks import under_looks
from pipelines.core.regions import ALONE, TOGETHER, Placed, read_regions, texts_of
from pipelines.diffuse.course import course_of
from pipelines.diffuse.settings import MIN_SIDE, DiffuseSettings
from pipelines.io.images import to_pil, to_tensor
from pipelines.models.latent_diffusion import Known, LatentDiffusion, Tick, walk

WHOLE = ("image", "source_prompt", "word_weights", "prune")  # settings under which nothing is laid in places


@dataclass(frozen=True)
class Collage:
    """Draws the things of prepared settings for the rows of a batch, and lays them in their places."""

    model: LatentDiffusion
    settings: DiffuseSettings
    things: list[Placed]

    @classmethod
    def of(cls, model: LatentDiffusion, settings: DiffuseSettings) -> Collage | None:
        """None where the settings have no regions."""
        return cls(model, settings, read_regions(settings.regions)) if settings.regions else None

    @property
    def texts(self) -> list[str]:
        """What is drawn alone."""
        return texts_of(self.things)

    def draw(self, text: str, seeds: list[int], looks: list[str]) -> Generator[Tick, None, list[Image.Image]]:
        """One of `texts` in the model's own size, a row a seed in its look. Yields a Tick a step."""
        assert self.settings.steps is not None
        side, steps = max(self.model.image_size, MIN_SIDE), max(round(ALONE * self.settings.steps), 1)
        model, prompt = under_looks(self.model, text, looks)
        own = replace(
            self.settings, prompt=prompt, read_as="", regions="", width=side, height=side, windows="never"
        )
        condition, course = course_of(model, own, len(seeds))
        own_seeds = [candidate_seed(seed, 1 + self.texts.index(text)) for seed in seeds]
        ticks = walk(model, own_seeds, (side, side), condition, steps, own.guidance or 0.0, None, course)
        latents = yield from ticks
        return to_pil(self.model.decode(latents))

    def laid(self, drawn: dict[str, list[Image.Image]]) -> Known:
        """What the walk of the canvas begins from, of the pictures of each text, a row a picture."""
        width, height, steps = self.settings.width, self.settings.height, self.settings.steps
        assert width is not None and height is not None and steps is not None
        canvases = to_tensor(laid(self.things, drawn, (width, height))).to(self.model.device)
        return Known(self.model.encode(canvases), max(TOGETHER, 1 / steps))
