"""How a candidate of Diffuse was drawn: drawn once more, alone, while everything is watched.

The noise schedule, the clean picture that each step means with guidance and without, and where the words look.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from pipelines.core.generators import finished, mapped
from pipelines.core.looks import under_looks
from pipelines.core.pipeline import Step
from pipelines.core.prompts import one_text, parse_terms
from pipelines.diffuse.collage import Collage
from pipelines.diffuse.course import course_of
from pipelines.diffuse.latents import Scene, read_scene
from pipelines.diffuse.layout import Walk, controlled, read_layout, windows_of
from pipelines.diffuse.pipeline import Diffuse
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.diffuse.sketch import after_sketch, sketch_size, sketched
from pipelines.diffuse.word_weights import parse_word_weights
from pipelines.errors import BadInput
from pipelines.io.images import to_pil
from pipelines.models.attention import AttentionMaps, HasAttention
from pipelines.models.latent_diffusion import Course, Known, LatentDiffusion, Tick, preview, walk

T = TypeVar("T")

DARK = "#1E1B16"  # of what no word looks at


@dataclass(frozen=True)
class Moment:
    """One step of the walk. The latents there are `picture` times the clean ones and `noise` times unit noise."""

    picture: float
    noise: float
    guess: Image.Image  # the clean picture that the step means, at most 32 latents a side
    unguided: Image.Image | None  # the same of the walk without guidance; None where the run had none


@dataclass(frozen=True)
class WordMap:
    """Where a word looks: `map` is (height, width) float32, the share of attention it gets at each place of the latents.

    A word that occurs several times is one. Several words in a row that have a weight together are one more.
    """

    text: str
    map: Tensor

    @property
    def share(self) -> float:
        """The share of all attention, in [0, 1] unless words are weighed."""
        return self.map.mean().item()


@dataclass(frozen=True)
class Explanation:
    """All that was seen. `word_maps` are in the order of the prompt; what is left of the attention is not of any word."""

    settings: DiffuseSettings
    picture: Image.Image
    unguided: Image.Image | None
    moments: list[Moment]
    word_maps: list[WordMap]


@torch.no_grad()
def explain(pipeline: Diffuse, settings: DiffuseSettings, seed: int) -> Generator[Step, None, Explanation]:
    """Draw the candidate with this seed of a run again and watch; yield a Step a step of the walk.

    It is drawn alone, in the first of the looks, so rounding may differ from the run's. BadInput when the settings cannot
    be run, or when the model's attention cannot be watched.
    """
    model = pipeline.diffusion
    if not isinstance(model, HasAttention):
        raise BadInput("diffuse.not_explained")
    if len(parse_terms(settings.drawn_prompt)) > 1:
        raise BadInput("diffuse.explain_parts")
    settings = pipeline.prepare(replace(settings, seed=seed, candidates=1, keep=1))
    looks = settings.looks()[:1] or [""]
    collage = Collage.of(model, settings)
    model, prompt = under_looks(model, settings.drawn_prompt, looks)
    settings = replace(settings, prompt=prompt, read_as="")
    scene = read_scene(model, settings)
    guided = (settings.guidance or 0) > 1
    attention = _attention_maps(model, settings)
    small = sketch_size(model, settings, scene)
    known = yield from _known(model, settings, scene, small)
    if collage is not None:
        alone = {text: finished(collage.draw(text, [settings.seed], looks)) for text in collage.texts}
        known = collage.laid(alone)
    large = after_sketch(settings, small)
    ticks, final = yield from _watched(_walk(model, large, known, attention), 1 + guided, 0)
    plain, plain_final = [], None
    if guided:
        off = _walk(model, replace(large, guidance=1.0), known, None)
        plain, plain_final = yield from _watched(off, 2, 1)
    guesses = [to_pil(preview(model, tick, 1))[0] for tick in ticks]
    others = [to_pil(preview(model, tick, 1))[0] for tick in plain] or [None] * len(guesses)
    moments = [
        Moment(*model.mixture(tick.t), guess, other)
        for tick, guess, other in zip(ticks, guesses, others, strict=True)
    ]

    def picture(latents: Tensor) -> Image.Image:
        decoded = model.decode(latents)
        return (to_pil(decoded) if scene is None else scene.finished(decoded))[0]

    unguided = None if plain_final is None else picture(plain_final)
    return Explanation(
        settings, picture(final), unguided, moments, _word_maps(model, settings, attention.maps())
    )


def _word_maps(model: HasAttention, settings: DiffuseSettings, maps: Tensor) -> list[WordMap]:
    tokens = model.prompt_tokens(one_text(settings.drawn_prompt, "word_weights"))
    words = dict.fromkeys(word.text.lower() for word in tokens.words if word.is_spoken)
    words |= dict.fromkeys(word for word, _ in parse_word_weights(settings.word_weights))
    return [WordMap(word, maps[list(tokens.keys_of(word))].sum(0)) for word in words]


def _attention_maps(model: LatentDiffusion, settings: DiffuseSettings) -> AttentionMaps:
    """What collects the attention of one picture, drawn whole or by windows."""
    assert settings.width is not None and settings.height is not None
    size = (settings.height // model.factor, settings.width // model.factor)
    windows = windows_of(model, settings, 1)
    return (
        AttentionMaps(size)
        if windows is None
        else AttentionMaps(size, windows.side, windows.places, windows.together)
    )


def _known(
    model: LatentDiffusion, settings: DiffuseSettings, scene: Scene | None, small: tuple[int, int] | None
) -> Generator[Step, None, Known | None]:
    """What the walk begins from; where that is a sketch it is drawn, and a Step a step of it is yielded."""
    if scene is None or small is None:
        return None if scene is None else scene.known
    _, known = yield from _watched(sketched(model, settings, [settings.seed], scene, small), 1, 0)
    return known


def _walk(
    model: Any, settings: DiffuseSettings, known: Known | None, attention: AttentionMaps | None
) -> Walk:
    """The walk of one row; its attention is collected where there is something to collect it."""
    assert settings.width is not None and settings.height is not None and settings.steps is not None
    size, steps, guidance = (settings.width, settings.height), settings.steps, settings.guidance or 0.0

    def begin(condition: Any, course: Course) -> Walk:
        return walk(model, [settings.seed], size, condition, steps, guidance, known, course)

    conditions = course_of(model, settings, 1)
    layout = read_layout(model, settings, 1)
    if layout is not None:
        return layout.walk(begin, *conditions, None if attention is None else partial(_in_front, attention))
    return begin(*(conditions if attention is None else controlled(model, *conditions, attention)))


def _in_front(attention: AttentionMaps, control: Any) -> AttentionMaps:
    attention.first = control
    return attention


def _watched(
    ticks: Generator[Tick, None, T], walks: int, before: int
) -> Generator[Step, None, tuple[list[Tick], T]]:
    """All ticks of a walk and what it returns; yields a Step a tick, counted over `walks` with those `before`."""
    seen: list[Tick] = []

    def step(tick: Tick) -> Step:
        seen.append(tick)
        return Step("explain", before * tick.total + tick.done, walks * tick.total)

    end = yield from mapped(ticks, step)
    return seen, end


# ------------------------------------------------------------------------------------------------------------ pictures


def word_map_picture(picture: Image.Image, map: Tensor, side: int = 256) -> Image.Image:
    """The picture where a word looks, and fading to dark where it does not; the map is scaled to its own range.

    `map` is (height, width). The longer side of the result is at most `side` pixels.
    """
    low, high = map.min(), map.max()
    heat = ((map - low) / (high - low).clamp_min(1e-8) * 255).round().to(torch.uint8)
    share = min(1.0, side / max(picture.size))
    size = (max(1, round(picture.width * share)), max(1, round(picture.height * share)))
    small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    mask = Image.fromarray(heat.numpy()).resize(size, Image.Resampling.BICUBIC)
    dark = Image.blend(small.convert("L").convert("RGB"), Image.new("RGB", size, DARK), 0.8)
    return Image.composite(small, dark, mask)
