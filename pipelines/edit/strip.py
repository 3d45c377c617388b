"""The strip of strengths that an edit shows side by side: even strengths, or those along which CLIP moves by equal steps.

A picture hardly changes at some strengths and all at once at others. For equal steps some strengths are drawn first, and
how far each moves the picture for CLIP says where those of the strip are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from itertools import accumulate

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipelines.core.pipeline import Picture, Step
from pipelines.edit.inputs import EditInputs
from pipelines.edit.results import as_pictures, edited_images
from pipelines.edit.settings import EditSettings
from pipelines.models.typed import floats

PROBES = 7  # strengths drawn first, with 0

Draw = Callable[[list[float]], Generator[Step, None, Tensor]]  # samples x for each of some strengths


def strip_pictures(
    settings: EditSettings, inputs: EditInputs, x: Tensor, draw: Draw
) -> Generator[Step, None, list[Picture]]:
    """The pictures of all strengths, which `draw` samples, the chosen strength first; `x` is what was inverted."""
    strengths, moves = strip(settings.strength, settings.strip), None
    if settings.even_strip and settings.strip > 2:
        probes = [round(strip_end(settings.strength) * k / (PROBES - 1), 4) for k in range(PROBES)]
        drawn = yield from draw(probes)
        moves = clip_moves(inputs, edited_images(settings, inputs, x, probes, drawn))
        strengths = even_strengths(probes, moves, settings.strength, settings.strip)
    drawn = yield from draw(strengths)
    images = edited_images(settings, inputs, x, strengths, drawn)
    return as_pictures(settings, inputs, strengths, images, clip_moves(inputs, images) if moves else None)


def strip(strength: float, count: int) -> list[float]:
    """`count` even strengths from 0 to 1.5, or to -1 for a negative `strength`, which replaces the nearest of them."""
    if count == 1:
        return [strength]
    return with_chosen(
        [round(float(value), 4) for value in np.linspace(0, strip_end(strength), count)], strength
    )


def strip_end(strength: float) -> float:
    """The last strength of a strip with this one."""
    return 1.5 if strength >= 0 else -1.0


def with_chosen(strengths: list[float], strength: float) -> list[float]:
    """The strengths, with `strength` in the place of the nearest of them."""
    nearest = min(range(len(strengths)), key=lambda k: abs(strengths[k] - strength))
    return [strength if k == nearest else value for k, value in enumerate(strengths)]


def clip_moves(inputs: EditInputs, images: list[Image.Image]) -> list[float]:
    """How far each picture is from the original for CLIP: the angle between their vectors, in degrees."""
    before = inputs.image
    shown = torch.cat([before, *(inputs.framing.reduced(image).to(before.device) for image in images)])
    vectors: Tensor = inputs.models.clip.encode_image(shown).float()
    # the chord is more exact than the cosine for what hardly moved
    chords = floats((vectors[1:] - vectors[0]).square().sum(1).sqrt().clamp(max=2))
    return [round(math.degrees(2 * math.asin(chord / 2)), 2) for chord in chords]


def even_strengths(probes: list[float], moves: list[float], strength: float, count: int) -> list[float]:
    """`count` strengths from 0 to the last of `probes`, at which CLIP moves by equal steps; `strength` is one of them.

    `moves` are those of the probes, of which the first has strength 0. What falls between two probes is interpolated;
    where CLIP goes back, it stands.
    """
    risen = list(accumulate([0.0, *moves[1:]], max))
    risen = [move + 1e-6 * k for k, move in enumerate(risen)]  # so that each has one strength
    wanted = [risen[-1] * k / (count - 1) for k in range(count)]
    values = [round(float(np.interp(move, risen, probes)), 4) for move in wanted]
    return with_chosen(values, strength)
