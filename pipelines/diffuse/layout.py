"""Prompt-to-Prompt in Diffuse (Hertz et al. 2022): a picture keeps the layout of another prompt's, and words have weights.

The source prompt and the target prompt walk side by side from the same noise. For a share of the steps the target uses the
source's attention: in cross-attention that of the words that stand for its own, in self-attention that of the places.
Weights multiply the attention to words during the whole walk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pipelines.core.prompts import one_text
from pipelines.diffuse.course import by_windows, course_of
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.diffuse.word_weights import parse_word_weights
from pipelines.errors import BadInput
from pipelines.models.attention import AttentionEdit, AttentionRecorder, AttentionStore, Control, HasAttention
from pipelines.models.latent_diffusion import Course, LatentDiffusion, Tick
from pipelines.models.windows import Windows
from pipelines.models.words import Alignment, align

Walk = Generator[Tick, None, Tensor]
Begin = Callable[[Any, Course], Walk]  # starts a walk under a condition


@dataclass(frozen=True)
class Layout:
    """What the walks of a run keep of a source prompt, and how they weigh their own words."""

    model: HasAttention
    source: tuple[Any, Course]  # of the source prompt
    rows: int  # that the network reads at once under the text
    share: float
    alignment: Alignment
    scale: Tensor | None

    def walk(
        self,
        begin: Begin,
        condition: Any,
        course: Course,
        around: Callable[[Control], Control] | None = None,
    ) -> Walk:
        """The target's walk under a condition. `around` puts another control around its own."""
        store = AttentionStore()
        control: Control = AttentionEdit(store, self.rows, self.alignment, self.scale)
        control = control if around is None else around(control)
        source = begin(*controlled(self.model, *self.source, AttentionRecorder(store, self.rows)))
        target = begin(*controlled(self.model, condition, course, control))
        done, kept = 0, math.inf if self.share else 0.0  # steps of the target; steps that take over
        while True:
            store.set_step(done, kept)
            if store.cross_attention:
                store.weights.clear()
                kept = self.share * next(source).total
                store.set_step(done, kept)
            try:
                tick = next(target)
            except StopIteration as end:
                return end.value
            done += 1
            yield tick


def controlled(model: HasAttention, condition: Any, course: Course, control: Control) -> tuple[Any, Course]:
    """A condition and a course with a control of attention, in the steps without guidance too."""
    if course.unguided is not None:
        course = replace(course, unguided=model.controlled(course.unguided, control))
    return model.controlled(condition, control), course


def read_layout(model: LatentDiffusion, settings: DiffuseSettings, rows: int) -> Layout | None:
    """The layout that prepared settings ask for; None where the source's attention and the weights change nothing."""
    weights = parse_word_weights(settings.word_weights)
    original = settings.source_prompt.strip() or settings.drawn_prompt
    if not isinstance(model, HasAttention) or (original == settings.drawn_prompt and not weights):
        return None
    tokens = model.prompt_tokens(one_text(settings.drawn_prompt, "source_prompt"))
    source = course_of(model, replace(settings, prompt=original, word_weights=""), rows)
    scale = None
    if weights:
        scale = torch.ones(tokens.end)
        for word, weight in weights:
            scale[list(tokens.keys_of(word))] = weight
    alignment = align(model.prompt_tokens(one_text(original, "source_prompt")), tokens)
    windows = windows_of(model, settings, rows)
    read = rows if windows is None else rows * windows.together
    return Layout(model, source, read, settings.layout, alignment, scale)


def windows_of(model: LatentDiffusion, settings: DiffuseSettings, rows: int) -> Windows | None:
    """The windows by which prepared settings are drawn; None for a picture that is drawn whole."""
    assert settings.width is not None and settings.height is not None
    return Windows(model, (settings.width, settings.height), rows) if by_windows(model, settings) else None


def check_layout(model: LatentDiffusion, settings: DiffuseSettings) -> None:
    """BadInput when the model's attention cannot be changed, or when a weight is for a word that it does not read."""
    weights = parse_word_weights(settings.word_weights)
    if not weights and not settings.source_prompt.strip():
        return
    if not isinstance(model, HasAttention):
        raise BadInput("diffuse.no_attention", setting="word_weights" if weights else "source_prompt")
    for prompt in filter(None, (settings.drawn_prompt, settings.source_prompt.strip())):
        one_text(prompt, "word_weights" if weights else "source_prompt")
    tokens = model.prompt_tokens(one_text(settings.drawn_prompt, "word_weights"))
    words = ", ".join(word.text for word in tokens.words if word.is_spoken)
    for word, _ in weights:
        if not tokens.keys_of(word):
            raise BadInput("diffuse.word_not_in_prompt", word=word[:40], words=words[:200])
