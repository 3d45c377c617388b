"""Ranking pictures by CLIP: a prompt ensemble, scores with their noise, near-duplicates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.models.base import Clip
from pipelines.models.typed import floats, integers

DUPLICATE = 0.94  # cosine above which two pictures count as the same
TEMPLATES = ("{}", "a {}", "a 3d {}", "a flat {}", "a cartoon {}")
CHINESE_TEMPLATES = ("{}", "立体的{}", "扁平的{}", "卡通的{}")


def ensemble(prompt: str) -> list[str]:
    """The prompt in several wordings, whose mean vector scores more steadily than one (Radford et al. 2021, 3.1.4)."""
    chinese = re.search(r"[\u4e00-\u9fff]", prompt) is not None
    return [template.format(prompt) for template in (CHINESE_TEMPLATES if chinese else TEMPLATES)]


def text_vector(clip: Clip, text: str) -> Tensor:
    """(d,) of unit length: the mean of the vectors of the text's wordings."""
    return F.normalize(clip.encode_text(ensemble(text)).mean(0), dim=0)


@dataclass(frozen=True)
class Ranking:
    """The scores of candidates for one prompt. Lists are in order of candidates, except `order`, which is best first."""

    scores: list[float]  # mean cosine over the ensemble; empty without a prompt
    noise: float  # how far a score moves, on average, with the wording of the prompt
    order: list[int]
    duplicate_of: list[int | None]  # the better candidate that looks the same

    @property
    def tied(self) -> int:
        """The number of candidates whose score is within the noise of the best, the best included."""
        best = self.scores[self.order[0]]
        return sum(best - score < self.noise * 2**0.5 for score in self.scores)

    def kept(self, count: int, hide_duplicates: bool) -> list[int]:
        """The numbers of the best `count` candidates, best first, without near-duplicates when `hide_duplicates`."""
        return [k for k in self.order if not (hide_duplicates and self.duplicate_of[k] is not None)][:count]

    def facts(self, k: int, seeds: list[int]) -> dict[str, Any]:
        """The facts of candidate `k` for its record, as JSON values. `seeds` are those of all candidates."""
        twin = self.duplicate_of[k]
        facts: dict[str, Any] = {"candidate": k, "candidates": len(seeds)}
        if self.scores:
            mean = sum(self.scores) / len(seeds)
            facts |= {"noise": self.noise, "tied": self.tied, "mean_score": mean}
        return {**facts, "duplicate_of": None if twin is None else seeds[twin]}


@torch.no_grad()
def score(clip: Clip, prompt: str, vectors: Tensor) -> tuple[Tensor, float]:
    """(n, d) image vectors of unit length -> (n,) cosines with the prompt in [-1, 1], and the noise of a score.

    The noise is the standard error of a score over the wordings of the prompt. It is 0 for a single picture.
    """
    wordings = clip.encode_text(ensemble(prompt))
    each = vectors @ wordings.T  # (n, wordings)
    scores = vectors @ F.normalize(wordings.mean(0), dim=0)
    if len(vectors) < 2:
        return scores, 0.0
    apart = each - each.mean(0)  # a wording that lifts all candidates alike says nothing
    return scores, (apart.std(1).mean() / each.shape[1] ** 0.5).item()


@torch.no_grad()
def score_terms(clip: Clip, terms: Sequence[tuple[str, float]], vectors: Tensor) -> tuple[Tensor, float]:
    """`score` for texts with weights: cosines with the weighted sum of the texts' vectors, and their noise."""
    if len(terms) == 1:
        return score(clip, terms[0][0], vectors)
    total = torch.stack([weight * text_vector(clip, text) for text, weight in terms]).sum(0)
    length = total.square().sum().sqrt().clamp(min=1e-6)
    noise = sum((weight * score(clip, text, vectors)[1]) ** 2 for text, weight in terms) ** 0.5
    return vectors @ (total / length), noise / length.item()


@torch.no_grad()
def score_parts(clip: Clip, vectors: dict[str, Tensor]) -> Tensor:
    """The mean of the cosines of what each text's pictures are to CLIP, (n, d) of unit length, with the text: (n,)."""
    return torch.stack([score(clip, text, seen)[0] for text, seen in vectors.items()]).mean(0)


def rank(
    clip: Clip,
    prompt: str | Sequence[tuple[str, float]],
    vectors: Tensor,
    guesses: Tensor | None = None,
    parts: Tensor | None = None,
) -> Ranking:
    """Rank n pictures for a prompt, or texts with weights, by their (n, d) image vectors of unit length.

    `guesses` (n, d) are vectors of what the pictures were on the way; the score is then the mean of both cosines. So it is
    with `parts` (n,), cosines of what the pictures are made of. Without a text they keep their order.
    """
    terms = [(prompt, 1.0)] if isinstance(prompt, str) else prompt
    scores, noise, order = list[float](), 0.0, list(range(len(vectors)))
    if terms:
        seen = vectors if guesses is None else (vectors + guesses) / 2
        cosines, noise = score_terms(clip, terms, seen)
        if parts is not None:
            cosines, noise = (cosines + parts) / 2, noise / 2
        scores, order = floats(cosines), integers(cosines.argsort(descending=True, stable=True))
    alike = (vectors @ vectors.T > DUPLICATE).cpu()
    duplicate_of: list[int | None] = [None] * len(order)
    originals: list[int] = []
    for k in order:
        duplicate_of[k] = next((better for better in originals if alike[k, better]), None)
        if duplicate_of[k] is None:
            originals.append(k)
    return Ranking(scores, noise, order, duplicate_of)
