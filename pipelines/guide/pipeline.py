"""Guide (Crowson 2021, "CLIP guided diffusion"; Disco Diffusion): CLIP's gradient guides a diffusion model.

noisy x -> the network's clean guess -> decoder -> cuts -> CLIP -> great-circle distance -> gradient at x -> the predicted
noise is moved along it -> a step of DDIM. The model works on pixels or on latents, under the prompt or under no text. A
second CLIP, the critic, gives no gradient; it only scores.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from PIL import Image, ImageOps

from pipelines.core.journal import Journal
from pipelines.core.pipeline import Picture, Resumable, Step
from pipelines.core.settings import Settings
from pipelines.core.sizes import canvas_size
from pipelines.core.steering import map_pictures_in, scenes_until
from pipelines.core.stepwise import fingerprint, run_steps
from pipelines.guide.run import GuideRun
from pipelines.guide.settings import GuideSettings
from pipelines.io.folders import open_one_of
from pipelines.io.images import on_white, open_picture, picture_to_uri, to_pil
from pipelines.io.video import Frame, Timelapse
from pipelines.models.base import Clip, Denoiser

PROMPT_PICTURE = 256  # pixels of the longer side of a picture to steer to


@dataclass
class Guide(Resumable[GuideSettings]):
    """Guides a diffusion model from noise, or from a picture, by CLIP's gradient; also frame by frame."""

    unet: Denoiser
    clip: Clip
    critic: Clip

    Settings: ClassVar[type[Settings]] = GuideSettings

    # ------------------------------------------------------------------------------------------------------ preparing

    def prepare(self, settings: GuideSettings) -> GuideSettings:
        """The settings with pictures as PNG data URIs and with definite values for None.

        BadInput for unreadable pictures, and when the size does not fit the model.
        """
        size = self._size(settings)
        guidance = self.unet.proposed_guidance if settings.guidance is None else settings.guidance
        fields: dict[str, Any] = {"guidance": guidance if self.unet.reads_text else 0.0}
        fields |= {"skip_steps": settings.first_skip, "frames_skip_steps": settings.frame_skip}
        if settings.image:
            picture = on_white(open_picture(settings.image))
            fields["image"] = picture_to_uri(ImageOps.fit(picture, size, Image.Resampling.LANCZOS))

        def prompt_picture(source: str) -> str:
            picture = on_white(open_one_of(source))
            picture.thumbnail((PROMPT_PICTURE, PROMPT_PICTURE))
            return picture_to_uri(picture)

        fields |= map_pictures_in({"image_prompts": settings.image_prompts}, prompt_picture)
        if settings.changes:
            changed = {
                str(step): entry
                | map_pictures_in({k: v for k, v in entry.items() if k == "image_prompts"}, prompt_picture)
                for step, entry in settings.changes_by_step()
            }
            fields["changes"] = json.dumps(changed)
        return replace(settings, **fields)

    def _size(self, settings: GuideSettings) -> tuple[int, int]:
        """Width and height in pixels. A start picture's are rounded to what the model can draw."""
        config = self.unet.config
        width, height = canvas_size(settings.size, settings.image, config.factor, config.image_size)
        rounded = [round(side / config.factor) * config.factor for side in (width, height)]
        return rounded[0], rounded[1]

    # -------------------------------------------------------------------------------------------------------- running

    @torch.no_grad()
    def __call__(
        self, settings: GuideSettings, journal: Journal | None = None
    ) -> Generator[Step, None, list[Picture]]:
        """Yield a Step for each step, starting from the journal's last snapshot if it has one; return the last picture.

        Stopped, thrown in at a yield, ends the run with its picture so far. BadInput when the journal is another run's.
        """
        run = self._run(settings)
        stepwise = run_steps(run, "guide", settings, journal or Journal(), self.fingerprint(), run.pictures)
        return (yield from stepwise)

    def timelapse(self, settings: GuideSettings, journal: Journal) -> Timelapse:
        """The film of a journal of these prepared settings: all steps, or of an animation the end of every frame."""
        run, steps = self._run(settings), journal.steps()
        scenes = scenes_until(run.timeline, steps[-1] if steps else 0)
        first, each = settings.steps - settings.first_skip, settings.steps - settings.frame_skip

        def is_shown(position: int) -> bool:
            return settings.max_frames == 1 or (position + 1 >= first and (position + 1 - first) % each == 0)

        kept = [
            [k for k, (position,) in enumerate(journal.facts(step)["frames"]) if is_shown(position)]
            for step in steps
        ]

        def draw() -> Iterator[Frame]:
            for step, numbers in zip(steps, kept, strict=True):
                if not numbers:
                    continue
                snapshot = journal.load(step)
                for k in numbers:
                    (position,) = snapshot.facts["frames"][k]
                    scene = sum(begin <= position for begin, _ in scenes) - 1
                    with torch.no_grad():
                        image = run.image_of(snapshot.tensors["frames"][k])
                    yield Frame(image, scene)

        return Timelapse(draw(), sum(map(len, kept)), [words for _, words in scenes])

    @torch.no_grad()
    def image_at(self, settings: GuideSettings, journal: Journal, step: int) -> Image.Image:
        """The picture at the snapshot of `step` in a journal of these prepared settings. BadInput without the snapshot."""
        run = self._run(settings)
        run.restore(journal.load(step))
        return to_pil(run.current_picture())[0]

    def fingerprint(self) -> str:
        """A hash of samples of the networks' weights, 16 hexadecimal digits, to refuse a journal of other networks."""
        return fingerprint((self.unet, self.clip, self.critic))

    def _run(self, settings: GuideSettings) -> GuideRun:
        return GuideRun(self.unet, self.clip, self.critic, settings, self._size(settings))
