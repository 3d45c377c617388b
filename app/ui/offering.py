"""What the page offers for a prompt: the advisor of a pipeline whose vocabulary is known."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from pipelines.core.prompts import written_scenes
from pipelines.models.base import known_as
from pipelines.see.offers import Advisor, Offers


def advisor_of(pipeline: Any) -> Advisor | None:
    """The advisor of a pipeline whose reader tells its words; None for others."""
    readers = (getattr(getattr(pipeline, "diffusion", None), "clip", None), getattr(pipeline, "clip", None))
    for clip in readers:
        words = getattr(getattr(clip, "tokenizer", None), "words", None)
        if words:
            return _advisor(clip, words)
    return None


def offers_for(pipeline: Any, prompt: str, unknown: list[str]) -> Offers:
    """What is offered for a prompt that a pipeline reads; nothing where its words are not known."""
    reader = getattr(pipeline, "tokenizer", None)
    if reader is not None and not getattr(reader, "words", None):
        return Offers()
    advisor = advisor_of(pipeline)
    return Offers() if advisor is None else advisor.offers(prompt, unknown)


def offers_for_scenes(clip: Any, prompt: str) -> Offers:
    """What is offered for a prompt of scenes by which a CLIP steers, with names for the things that it would misread.

    Texts of less than full weight are mostly no things. AttributeError when the CLIP does not tell its words.
    """
    offers = offers_for(SimpleNamespace(clip=clip), prompt, clip.tokenizer.unknown_words(prompt))
    targets = [target for scene in written_scenes(prompt, "scenes") for target in scene.targets]
    texts = [target.text for target in targets if target.weight >= 1]
    called = {text: (name,) for text in texts if (name := known_as(clip.tokenizer, text))}
    return replace(offers, instead={**offers.instead, **called})


@lru_cache(maxsize=2)
def _advisor(clip: Any, words: frozenset[str]) -> Advisor:
    return Advisor(clip, words)
