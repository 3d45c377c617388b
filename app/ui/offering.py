"""What the page offers for a prompt: the advisor of a pipeline whose vocabulary is known."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

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


@lru_cache(maxsize=2)
def _advisor(clip: Any, words: frozenset[str]) -> Advisor:
    return Advisor(clip, words)
