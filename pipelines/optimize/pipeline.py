"""Optimize (VQGAN-CLIP, Crowson et al. 2022): CLIP's gradient moves the latent grid of a VQGAN.

z -> nearest code, straight-through -> decoder -> clamp with a one-sided gradient -> augmented cutouts -> CLIP ->
weighted great-circle distance -> optimizer on z -> z clamped to the codebook's range. Generating and editing differ only
in the initial z. A second CLIP, the critic, gives no gradient; its score selects the best step.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from PIL import Image, ImageOps

from pipelines.core.journal import Journal
from pipelines.core.pipeline import Picture, Resumable, Step
from pipelines.core.record import read_texts
from pipelines.core.settings import Settings
from pipelines.core.steering import map_pictures_in
from pipelines.core.stepwise import fingerprint, run_steps
from pipelines.errors import BadInput
from pipelines.io.folders import open_one_of
from pipelines.io.images import on_white, open_picture, picture_to_uri, to_tensor
from pipelines.io.masks import read_mask
from pipelines.io.video import Timelapse
from pipelines.models.base import Clip, Codec
from pipelines.models.device import precision_on
from pipelines.models.latent_diffusion import LatentDiffusion
from pipelines.optimize.canvas import canvas_size, proposed_coarse, token_grid
from pipelines.optimize.run import OptimizeRun
from pipelines.optimize.settings import OptimizeSettings
from pipelines.optimize.start import drawn_picture, read_tokens
from pipelines.optimize.timelapse import restyle, timelapse_of


@dataclass
class Optimize(Resumable[OptimizeSettings]):
    """Optimizes a picture under CLIP's gradient, starting from random codes, a picture or image tokens."""

    vqgan: Codec
    clip: Clip
    critic: Clip
    diffusion: LatentDiffusion | None = None

    Settings: ClassVar[type[Settings]] = OptimizeSettings

    # ------------------------------------------------------------------------------------------------------ preparing

    def prepare(self, settings: OptimizeSettings) -> OptimizeSettings:
        """The settings with pictures as PNG data URIs, a draft's tokens read from its record, and a definite precision.

        A start that is drawn is drawn here, and becomes the start picture. BadInput for unreadable pictures, when tokens
        or precision do not fit the canvas, the codec or the device, and when the pack cannot draw or pull.
        """
        if settings.diffusion_weight is None:
            own = 0.0 if self.diffusion is None else self.diffusion.proposed_pull
            settings = replace(settings, diffusion_weight=own)
        if self.diffusion is None and any(later.diffusion_weight for _, later in settings.timeline()):
            raise BadInput("optimize.cannot_pull")
        if settings.start == "drawn" and not (settings.image or settings.tokens):
            if self.diffusion is None:
                raise BadInput("optimize.cannot_draw")
            settings = replace(
                settings, image=picture_to_uri(drawn_picture(settings, self.diffusion, self.clip))
            )
        width, height = canvas_size(settings.size, settings.image, self.vqgan)
        init_size = None
        fields: dict[str, Any] = {"precision": precision_on(self.vqgan.codes.device, settings.precision)}
        if settings.coarse is None:
            fields["coarse"] = proposed_coarse(settings, self.vqgan)
        if settings.image:
            picture = open_picture(settings.image)
            init_size = picture.size
            fitted = ImageOps.fit(on_white(picture), (width, height), Image.Resampling.LANCZOS)
            fields["image"] = picture_to_uri(fitted)
            if not settings.tokens and (tokens := self._draft(settings.image, fitted)):
                fields["tokens"] = tokens

        def mask(source: str) -> str:
            return picture_to_uri(read_mask(source, (width, height), init_size))

        def prompt_picture(source: str) -> str:
            picture = on_white(open_one_of(source))
            picture.thumbnail((256, 256))
            return picture_to_uri(picture)

        for names, change in ((("mask", "regions"), mask), (("image_prompts",), prompt_picture)):
            fields |= map_pictures_in({name: getattr(settings, name) for name in names}, change)
        if settings.changes:
            changed = {}
            for step, entry in settings.changes_by_step():
                entry = entry | map_pictures_in(
                    {k: v for k, v in entry.items() if k in ("mask", "regions")}, mask
                )
                entry |= map_pictures_in(
                    {k: v for k, v in entry.items() if k == "image_prompts"}, prompt_picture
                )
                changed[str(step)] = entry
            fields["changes"] = json.dumps(changed)
        settings = replace(settings, **fields)
        if settings.tokens:
            read_tokens(settings, self.vqgan)
        return settings

    def _draft(self, source: str, fitted: Image.Image) -> str:
        """The image tokens in a picture's record, if they decode to its pixels (mean difference below 0.01); else ""."""
        try:
            record = json.loads(read_texts(source).get("atelier", ""))
            tokens = [int(token) for token in record["picture"]["tokens"]]
        except (BadInput, ValueError, LookupError, TypeError, OverflowError, RecursionError):
            return ""
        rows, columns = token_grid(*fitted.size, self.vqgan)
        if len(tokens) != rows * columns or not all(0 <= token < len(self.vqgan.codes) for token in tokens):
            return ""
        with torch.no_grad():
            decoded = self.vqgan.decode_tokens(
                torch.tensor(tokens, device=self.vqgan.codes.device).view(1, rows, columns)
            )
        picture = to_tensor([fitted])
        same = decoded.shape == picture.shape and (decoded.cpu().clamp(-1, 1) - picture).abs().mean() < 0.01
        return " ".join(map(str, tokens)) if same else ""

    # -------------------------------------------------------------------------------------------------------- running

    @torch.no_grad()
    def __call__(
        self, settings: OptimizeSettings, journal: Journal | None = None
    ) -> Generator[Step, None, list[Picture]]:
        """Yield a Step an update, starting from the journal's last snapshot if it has one; return the pictures.

        Stopped, thrown in at a yield, ends the run with its pictures so far. BadInput when the journal is another run's.
        """
        run = self._run(settings)
        stepwise = run_steps(
            run, "optimize", settings, journal or Journal(), self.fingerprint(), run.pictures
        )
        return (yield from stepwise)

    def timelapse(self, settings: OptimizeSettings, journal: Journal) -> Timelapse:
        """The time-lapse of a journal of these prepared settings."""
        return timelapse_of(self._run(settings), journal)

    def restyle(
        self, settings: OptimizeSettings, frame: Image.Image, before: Picture | None
    ) -> OptimizeSettings:
        """The settings for the next frame of a film, as `timelapse.restyle`."""
        return restyle(settings, frame, before)

    @torch.no_grad()
    def image_at(self, settings: OptimizeSettings, journal: Journal, step: int) -> Image.Image:
        """The picture at the snapshot of `step` in a journal of these prepared settings. BadInput without the snapshot."""
        run = self._run(settings)
        run.restore(journal.load(step))
        return run.current_picture()

    def fingerprint(self) -> str:
        """A hash of samples of the networks' weights, 16 hexadecimal digits, to refuse a journal of other networks."""
        return fingerprint((self.vqgan, self.clip, self.critic))

    def _run(self, settings: OptimizeSettings) -> OptimizeRun:
        return OptimizeRun(self.vqgan, self.clip, self.critic, settings, self.diffusion)
