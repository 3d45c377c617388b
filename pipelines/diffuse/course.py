"""How the walk of a run goes: its sampler and steps, where it is guided, and by windows or whole."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from pipelines.core.prompts import parse_terms
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.diffuse.word_weights import parse_word_weights
from pipelines.errors import BadInput
from pipelines.models.attention import WeighsWords
from pipelines.models.latent_diffusion import OWN, Course, LatentDiffusion
from pipelines.models.windows import Windows

# sampler, share of the steps
PACES = {"normal": (OWN, 1.0), "fast": ("dpm++2m", 0.5), "careful": ("heun", 1.0)}
FEW_STEPS = 10  # a model that proposes fewer is made for them and for its own sampler
CAREFUL_FEW = 4.0  # times as many steps of such a model
WHOLE = 1.5  # times the model's own side: up to here a picture is drawn whole


def proposed(model: LatentDiffusion, settings: DiffuseSettings, from_picture: bool) -> dict[str, Any]:
    """Sampler, steps, guidance and rounds, where they are not given those that the pace and the model propose.

    BadInput when the strength of a run that starts `from_picture` leaves no step.
    """
    sampler, share = PACES[settings.pace]
    if model.proposed_steps < FEW_STEPS:
        sampler, share = OWN, CAREFUL_FEW if settings.pace == "careful" else 1.0
    own = max(round(model.proposed_steps * share), 1)
    if from_picture:
        own = max(own, math.ceil(1 / settings.strength))
    steps = settings.steps or own
    if from_picture and int(steps * settings.strength) < 1:
        least = math.ceil(1 / settings.strength)
        raise BadInput("diffuse.no_steps_left", strength=settings.strength, steps=steps, least=least)
    guidance = model.proposed_guidance if settings.guidance is None else settings.guidance
    return {
        "sampler": sampler if settings.sampler == OWN else settings.sampler,
        "steps": steps,
        "guidance": guidance,
        "rounds": model.proposed_rounds if settings.rounds is None else settings.rounds,
    }


def course_of(model: LatentDiffusion, settings: DiffuseSettings, rows: int) -> tuple[Any, Course]:
    """The condition of prepared settings for `rows` pictures drawn together, and how they are drawn."""
    assert settings.width is not None and settings.height is not None
    size, negative = (settings.width, settings.height), settings.negative_prompt
    guided = (settings.guidance or 0) > 1
    interval = (settings.guidance_start, settings.guidance_end)
    windows = Windows(model, size, rows) if by_windows(model, settings) else None
    weights = parse_word_weights(settings.word_weights)

    def condition(prompt: str, without: str, guided: bool) -> Any:
        if windows is not None:
            made = windows.condition(prompt, without, guided)
        else:
            made = model.condition(prompt, without, *size, rows, guided)
        if not (weights and isinstance(model, WeighsWords)):
            return made
        return model.weighed(made, prompt, weights, rows if windows is None else rows * windows.together)

    predict = None if windows is None else windows.predict
    course = Course(settings.sampler, interval, predict=predict, rounds=settings.rounds or 0)
    terms = parse_terms(settings.drawn_prompt)
    if len(terms) > 1:
        parts = tuple((share, condition(text, "", False)) for text, share in terms)
        return condition(negative, "", False), replace(course, terms=parts)
    text = terms[0][0]
    if guided and interval != (0.0, 1.0):
        course = replace(course, unguided=condition(text, negative, False))
    return condition(text, negative, guided), course


def by_windows(model: LatentDiffusion, settings: DiffuseSettings) -> bool:
    """Whether prepared settings are drawn by windows of the model's own size."""
    longer = max(settings.width or 0, settings.height or 0)
    if settings.windows == "auto":
        return longer > WHOLE * model.image_size
    return settings.windows == "always"
