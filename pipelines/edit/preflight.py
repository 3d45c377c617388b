"""Checks and estimates before a run of Edit: fit of texts and picture, return step, seconds and megabytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from pipelines.clip.ranking import text_vector
from pipelines.core.looks import of_style
from pipelines.edit.flow_edit import NOISES, RETURN_STEP, edits_by_text, flow_grid
from pipelines.edit.inputs import Models, read_inputs, source_image_count
from pipelines.edit.instant import FOCUSES
from pipelines.edit.settings import EditSettings
from pipelines.edit.strip import strip
from pipelines.edit.tuning import PAPER_UP
from pipelines.errors import BadInput
from pipelines.models.base import Clip

ALIKE = 0.985  # cosine of two texts that CLIP takes for one


@dataclass(frozen=True)
class Estimate:
    """Estimates before a run.

    `match`, in [0, 1], is the share of the pack's pictures that fit the source text less than the picture, None without
    one. `alike` is the cosine of the two texts. `seconds` and `megabytes` are estimates of time and memory.
    """

    match: float | None
    alike: float
    return_step: int
    seconds: float
    megabytes: float
    warnings: list[str] = field(default_factory=list[str])


def estimate(models: Models, settings: EditSettings) -> Estimate:
    """Estimates and warnings for a run of prepared settings. Times one call of each network."""
    alike, match = 0.0, None
    warnings: list[str] = []
    if not settings.directions and not settings.target_images:
        alike = texts_cosine(models.clip, settings)
        if alike < 0.35:
            warnings.append("far apart")
    if settings.image:
        image = read_inputs(models, settings).image
        with torch.no_grad():
            text = text_vector(models.clip, settings.source)
            own = (models.clip.encode_image(image) @ text).item()
            others = models.pictures.cosines(models.clip, text[None]) if len(models.pictures) else None
        match = None if others is None else (others < own).float().mean().item()
        if match is not None and match < 0.8 and not settings.directions:
            warnings.append("source does not describe it")
    seconds, megabytes = _cost(models, settings)
    return Estimate(match, alike, settings.return_step, seconds, megabytes, warnings)


def check_texts(clip: Clip, settings: EditSettings) -> None:
    """BadInput when the cosine of the two texts is above ALIKE.

    Not checked when examples replace the target, nor for an instant edit to a look, which the denoiser is told apart.
    """
    if settings.mode == "instant" and of_style(settings.style):
        return
    if not settings.target_images and (alike := texts_cosine(clip, settings)) > ALIKE:
        raise BadInput(
            "edit.texts_too_alike", source=settings.source[:60], target=settings.target[:60], cosine=alike
        )


def texts_cosine(clip: Clip, settings: EditSettings) -> float:
    """The cosine of source and target text, in [-1, 1]."""
    return (text_vector(clip, settings.source) @ text_vector(clip, settings.target)).item()


def proposed_return_step(models: Models, settings: EditSettings) -> int:
    """A return step from 350 to 600 that grows with the distance of the texts; 500 for examples; FlowEdit's own.

    After Kwon et al. 2023, Asyrp, whose editing interval grows with the distance of the texts by CLIP.
    """
    if edits_by_text(models.unet, settings):
        return RETURN_STEP
    if settings.target_images:
        return 500
    return int(min(max(350 + 350 * (1 - texts_cosine(models.clip, settings)), 350), 600)) // 10 * 10


@torch.no_grad()
def _cost(models: Models, settings: EditSettings) -> tuple[float, float]:
    """Estimated seconds and megabytes of a prepared run, from the time of one call of each network."""
    side = models.unet.config.image_size
    image = torch.zeros(1, 3, side, side, device=models.clip.device)
    x = models.unet.encode(image)
    times = torch.zeros(1, dtype=torch.long, device=x.device)
    weights = sum(p.numel() for p in models.unet.parameters()) * 4
    activations = 90e6 * x.numel() / (3 * 64**2)
    if x.shape != image.shape:
        activations += 12e6 * (side / 64) ** 2  # of the codec
    megabytes = (weights * 2 + activations * (5 if settings.update_count() else 1)) / 1e6
    if edits_by_text(models.unet, settings):
        strengths = strip(settings.strength, settings.strip)
        if settings.focus is None:  # some are drawn to choose among, and one of these is in the strip
            strengths += [1.0] * len(FOCUSES)
        grid, begins = flow_grid(settings.return_step, settings.step_count(), strengths)
        batch, steps = x.repeat(2 * NOISES, 1, 1, 1), times.repeat(2 * NOISES)
        return (len(grid) - 1 + sum(begins)) * _fastest(lambda: models.unet(batch, steps)), megabytes
    unet, decode, clip = (
        _fastest(call)
        for call in (
            lambda: models.unet(x, times),
            lambda: models.unet.decode(x),
            lambda: models.clip.encode_image(image),
        )
    )
    up, down = (
        settings.step_count() * (1 + settings.inversion_iterations),
        settings.step_count() * settings.strip,
    )
    calls = up + down * (1 if settings.mode == "instant" else 1.5)
    updates, learning = settings.update_count(), 0.0
    if settings.mode == "instant" and not settings.directions:
        calls += down * 8 * (clip + decode) / unet
    elif updates:
        batch = {"quick": 4 * 3, "reusable": 4 * 4, "paper": 6 * 3}[settings.mode]
        learning = updates * (batch * (unet + decode) + 16 * clip)
        if settings.mode == "paper":
            learning += min(source_image_count(models, settings), updates) * PAPER_UP * unet
    return calls * unet + learning, megabytes


def _fastest(call: Callable[[], Any]) -> float:
    """Seconds of the faster of three calls."""
    seconds: list[float] = []
    for _ in range(3):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)
