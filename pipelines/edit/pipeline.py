"""Edit (DiffusionCLIP, Kim et al. 2022): a picture changed along a text direction.

DDIM inversion to the return step, then sampling with a model that CLIP's directional loss has adapted, or under CLIP's
gradient; or FlowEdit, with a denoiser that reads texts. What is inverted and sampled, x, is the picture or its latents.
Strength 0 gives the picture back bit for bit. The critic, a CLIP that gives no gradient, scores the results.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from pipelines.core.generators import finished
from pipelines.core.journal import Journal
from pipelines.core.pipeline import Picture, Resumable, Step
from pipelines.core.settings import Settings
from pipelines.edit.ddim import (
    MOST_AT_ONCE,
    NoisePredictor,
    Trajectory,
    add_noise,
    as_steps,
    ddim_invert,
    ddim_sample,
    noise_predictor,
    time_grid,
)
from pipelines.edit.directions import (
    AdaptedUnet,
    Direction,
    check_direction_name,
    read_direction,
)
from pipelines.edit.flow_edit import STEPS, edits_by_text
from pipelines.edit.guidance import guided_sample
from pipelines.edit.inputs import EditInputs, pictures_as_settings, read_inputs
from pipelines.edit.instant import InstantDrawing
from pipelines.edit.preflight import Estimate, check_texts, estimate, proposed_return_step
from pipelines.edit.results import as_direction, edited_images, overshot
from pipelines.edit.settings import EditSettings
from pipelines.edit.source_images import SourceImages
from pipelines.edit.strip import strip_pictures
from pipelines.edit.tuning import PAPER_DOWN, PAPER_UP, AdapterTraining, adapter_of
from pipelines.errors import BadInput, Message, Stopped
from pipelines.models.base import Clip, Denoiser
from pipelines.models.checkpoint import network_hash
from pipelines.models.ddim import CLEAN, ddim_walk
from pipelines.models.sampling import generator_of


@dataclass
class Edit(Resumable[EditSettings]):
    """Changes a picture along the direction from one text to another, with a diffusion model guided by CLIP."""

    unet: Denoiser
    clip: Clip
    critic: Clip
    pictures: SourceImages = field(default_factory=SourceImages.none)

    Settings: ClassVar[type[Settings]] = EditSettings

    # ------------------------------------------------------------------------------------------------------ preparing

    def prepare(self, settings: EditSettings) -> EditSettings:
        """The settings with pictures and directions as data URIs, and with the proposed return step.

        BadInput for unreadable files, for directions of another base model, and for texts that CLIP cannot tell apart.
        """
        fields = pictures_as_settings(self, settings)
        if settings.directions:
            settings = settings.map_directions(lambda source: read_direction(source).to_uri())
            adapted_unet = AdaptedUnet(self.unet)
            directions = [read_direction(use.file) for use in settings.uses()]
            for direction in directions:
                adapted_unet.load_adapter(direction)
            proposed = max(direction.return_step for direction in directions)
            fields |= {"source": directions[0].facts["source"], "prompt": directions[0].facts["target"]}
        else:
            check_texts(self.clip, settings)
            proposed = proposed_return_step(self, settings)
        if edits_by_text(self.unet, settings):
            fields["steps"] = settings.steps or STEPS
        fields["return_step"] = settings.return_step or proposed
        if settings.mode == "paper" and not settings.directions:
            fields["return_step"] = max(fields["return_step"], PAPER_UP)
        return replace(settings, **fields)

    def estimate(self, settings: EditSettings) -> Estimate:
        """Estimates and warnings before a run. BadInput where the run would raise it."""
        return estimate(self, self.prepare(settings))

    # -------------------------------------------------------------------------------------------------------- running

    @torch.no_grad()
    def __call__(
        self, settings: EditSettings, journal: Journal | None = None
    ) -> Generator[Step, None, list[Picture]]:
        """Learn, invert, sample: yield Steps, return one picture for each strength, the chosen strength first.

        Stopped, thrown in at a yield, ends the learning; the pictures are then drawn with what was learned so far.
        """
        journal = journal or Journal()
        identity = {"settings": settings.to_dict(), "models": self.fingerprint()}
        journal.begin(identity, settings.current_names)
        return (yield from self._under(settings.source)._run(settings, journal))

    def _under(self, prompt: str) -> Edit:
        """The same models, the denoiser under a text."""
        return replace(self, unet=self.unet.under(prompt))

    def _run(self, settings: EditSettings, journal: Journal) -> Generator[Step, None, list[Picture]]:
        """A run whose journal has begun, with the denoiser under the source's text."""
        stop, trouble = _Stop(), None
        inputs = read_inputs(self, settings)
        x = yield from self._purified(settings, inputs.x)
        if edits_by_text(self.unet, settings):
            draw = InstantDrawing(settings, inputs, x)
            pictures = yield from stop.quietly(strip_pictures(settings, inputs, x, draw))
            return [replace(picture, facts=picture.facts | draw.facts()) for picture in pictures]
        inversion: Any = None  # a Trajectory, once the walk up is made
        adapted_unet: AdaptedUnet | None = None
        training: AdapterTraining | None = None
        learns = settings.update_count() > 0
        if not learns or settings.mode == "quick":
            inversion = yield from self._inverted(settings, x, settings.step_count())
        if settings.directions:
            adapted_unet = AdaptedUnet(self.unet)
            for use in settings.uses():
                adapted_unet.load_adapter(read_direction(use.file))
        elif learns:
            training_images, inversions = x, inversion
            if settings.mode != "quick":
                most = settings.update_count() if settings.mode == "paper" else None
                parts = torch.split(inputs.source_images[:most], MOST_AT_ONCE)
                training_images = torch.cat([self.unet.encode(part) for part in parts])
                inversions = None
            if settings.mode == "paper":
                inversions = yield from self._inverted(settings, training_images, PAPER_UP)
            training = AdapterTraining(
                self.unet, self.clip, self.critic, settings, settings.return_step, inputs.direction_from(x),
                training_images, inversions,
            )  # fmt: skip
            trouble = yield from self._learn(settings, training, journal, stop)
            if stop.asked or trouble:
                settings = replace(settings, until=training.step)
            adapted_unet = AdaptedUnet(self.unet)
            learned = as_direction(
                self, settings, training.adapted_unet.tensors(), training.step, training.curves
            )
            adapted_unet.load_adapter(learned)
        if inversion is None:
            inversion = yield from stop.quietly(self._inverted(settings, x, settings.step_count()))
        draw = partial(self._draw, settings, inputs, inversion, adapted_unet)
        pictures = yield from stop.quietly(strip_pictures(settings, inputs, x, draw))
        if training is not None:
            facts = _training_facts(training, trouble)
            pictures = [replace(picture, facts=picture.facts | facts) for picture in pictures]
        return pictures

    @staticmethod
    def check_direction(settings: EditSettings, path: str) -> None:
        """BadInput when a run with these settings learns no direction, or when it cannot be saved under this name."""
        check_direction_name(path)
        if not settings.update_count():
            raise BadInput("edit.nothing_to_save")

    def direction(self, settings: EditSettings, journal: Journal) -> Direction:
        """The direction that a run of these prepared settings learned. BadInput when it learned none."""
        snapshot = journal.latest()
        if snapshot is None:
            raise BadInput("edit.learned_nothing", mode=settings.mode)
        return as_direction(self, settings, adapter_of(snapshot), snapshot.step, snapshot.facts["curves"])

    @torch.no_grad()
    def image_at(self, settings: EditSettings, journal: Journal, step: int) -> Image.Image:
        """The edit with the direction of one snapshot of a journal of these prepared settings, in at most 8 steps."""
        models = self._under(settings.source)
        adapted_unet = AdaptedUnet(models.unet)
        adapted_unet.load_adapter(as_direction(models, settings, adapter_of(journal.load(step)), step, []))
        inputs = read_inputs(models, settings)
        quicker = replace(settings, steps=min(settings.step_count(), 8), inversion_iterations=0)
        x = finished(models._purified(settings, inputs.x))
        inversion = finished(models._up(quicker, x, quicker.step_count()))
        drawn = finished(models._draw(quicker, inputs, inversion, adapted_unet, [settings.strength]))
        return edited_images(settings, inputs, x, [settings.strength], drawn)[0]

    @torch.no_grad()
    def round_trip(self, settings: EditSettings, images: Tensor) -> Tensor:
        """(n, 3, s, s) -> the same shape, inverted and sampled by the model alone, errors not added back."""
        inversion = finished(self._up(settings, self.unet.encode(images), settings.step_count()))
        return self.unet.decode(finished(ddim_sample(self._noise_of, inversion, add_back=False))).clamp(-1, 1)

    def fingerprint(self) -> str:
        """A short hash of the denoiser's and CLIP's weights, to refuse a journal of other networks."""
        return network_hash(self.unet)[:8] + network_hash(self.clip.image)[:8]

    # ---------------------------------------------------------------------------------------------------------- stages

    def _purified(self, settings: EditSettings, x: Tensor) -> Generator[Step, None, Tensor]:
        """The picture after `purify` rounds of adding noise to the return step and sampling in PAPER_DOWN steps.

        This moves pictures of other kinds towards the model's distribution (Kim et al. 2022, section 3.4; Meng et al.
        2022, SDEdit).
        """
        noisiest = settings.return_step - 1
        for k in range(settings.purify):
            generator = generator_of(settings.seed, k)
            noisy = add_noise(x, self.unet.alphas_cumprod[noisiest], generator)
            image = self.unet.decode(ddim_walk(self.unet, noisy, noisiest, CLEAN, PAPER_DOWN)).clamp(-1, 1)
            x = self.unet.encode(image)
            yield Step("purify", k + 1, settings.purify, {}, lambda image=image: image)
        return x

    def _learn(
        self, settings: EditSettings, training: AdapterTraining, journal: Journal, stop: _Stop
    ) -> Generator[Step, None, Message | None]:
        """Make the updates that are left. Returns why when the loss is not finite, else None."""
        if (snapshot := journal.latest()) is not None:
            training.restore(snapshot)
        trouble, saved = None, training.step
        count = min(settings.update_count(), settings.until or settings.update_count())
        while training.step < count and not stop.asked:
            if trouble := training.advance():
                break
            if journal.due(training.step) or training.step == count:
                journal.save(training.snapshot())
                saved = training.step
            try:
                x = training.shown
                yield Step("learn", training.step, count, training.metrics(), lambda x=x: self.unet.decode(x))
            except Stopped:
                stop.asked = True
        if saved != training.step:
            journal.save(training.snapshot())
        return trouble

    def _up(
        self, settings: EditSettings, x: Tensor, steps: int
    ) -> Generator[tuple[int, Tensor], None, Trajectory]:
        grid = time_grid(settings.return_step, steps)
        return ddim_invert(self._noise_of, self.unet.alphas_cumprod, x, grid, settings.inversion_iterations)

    def _inverted(self, settings: EditSettings, x: Tensor, steps: int) -> Generator[Step, None, Trajectory]:
        """The walk up as Steps that show x."""
        return (yield from as_steps("invert", steps, self._up(settings, x, steps), self.unet.decode))

    def _draw(
        self,
        settings: EditSettings,
        inputs: EditInputs,
        inversion: Trajectory,
        adapted_unet: AdaptedUnet | None,
        strengths: list[float],
    ) -> Generator[Step, None, Tensor]:
        """(n, c, h, w), one x for each strength: with the adapters, or, without, under CLIP's gradient."""
        device = inputs.x.device
        if adapted_unet is not None:
            uses = settings.uses()
            amount = torch.tensor(strengths, device=device)

            def noise_of(x: Tensor, step: int) -> Tensor:
                amounts = [
                    amount * use.strength * (use.window[0] > step >= use.window[1]) for use in uses
                ] or [amount]
                adapted_unet.set_strengths(amounts)
                return adapted_unet.noise_of(x, step)

            sampling = ddim_sample(noise_of, inversion, len(strengths), inputs.small_mask)
        else:
            sampling = guided_sample(
                self._noise_of, self.unet.decode, self.clip, inputs.direction_from(inversion.states[0]).clip,
                inversion, torch.tensor([0.0, *strengths], device=device), guidance=settings.guidance,
                l1_weight=settings.l1_weight, tv_weight=settings.tv_weight,
                generator=generator_of(settings.seed), mask=inputs.small_mask,
            )  # fmt: skip

        def decode(x: Tensor) -> Tensor:
            return self.unet.decode(x[-len(strengths) :])

        drawn = yield from as_steps("draw", len(inversion.errors), sampling, decode)
        return drawn[-len(strengths) :]

    @property
    def _noise_of(self) -> NoisePredictor:
        return noise_predictor(self.unet)


def _training_facts(training: AdapterTraining, trouble: Message | None) -> dict[str, Any]:
    """What a picture's record tells of the learning, and of why it ended early."""
    facts = {
        "updates": training.step,
        "curves": training.curves,
        "overshot": overshot(training.curves),
    }
    return facts | ({"ended": str(trouble), "ended_by": trouble.to_json()} if trouble else {})


@dataclass
class _Stop:
    """Whether the run has been asked to end. What is left to do is then done without Steps."""

    asked: bool = False

    def quietly(self, work: Generator[Step, None, Any]) -> Generator[Step, None, Any]:
        """Do the work, yielding its steps until a stop. Returns what the work returns."""
        while True:
            try:
                step = next(work)
            except StopIteration as end:
                return end.value
            if not self.asked:
                try:
                    yield step
                except Stopped:
                    self.asked = True
