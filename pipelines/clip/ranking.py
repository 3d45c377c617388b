"""CLIP as the judge and the gradient: a prompt ensemble, a ranking with its noise, near-duplicates, the losses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.models.clip.network import Clip

DUPLICATE = 0.94  # cosine above which two pictures count as the same
REACH = 0.3  # how far an edit of strength 1 moves a picture along the texts' direction, in cosine
TEMPLATES = ("{}", "a {}", "a 3d {}", "a flat {}", "a cartoon {}")
CHINESE_TEMPLATES = ("{}", "立体的{}", "扁平的{}", "卡通的{}")


def ensemble(prompt: str) -> list[str]:
    """The prompt in several wordings; their average is a steadier judge than any one (Radford et al. 2021, 3.1.4)."""
    chinese = re.search(r"[\u4e00-\u9fff]", prompt) is not None
    return [template.format(prompt) for template in (CHINESE_TEMPLATES if chinese else TEMPLATES)]


def text_vector(clip: Clip, text: str) -> Tensor:
    """(d,) of unit length: the mean over the text's wordings."""
    return F.normalize(clip.encode_text(ensemble(text)).mean(0), dim=0)


@dataclass(frozen=True)
class Ranking:
    """Candidates judged by one prompt. Lists are in order of candidates; `order` is best first."""

    scores: list[float]  # mean cosine over the ensemble
    noise: float  # how far a score moves, on average, with the wording of the prompt
    order: list[int]
    duplicate_of: list[int | None]  # the better candidate that looks the same

    @property
    def tied(self) -> int:
        """How many of the first are within the noise of the best; 1 when the best stands alone."""
        best = self.scores[self.order[0]]
        return sum(best - score < self.noise * 2**0.5 for score in self.scores)

    def kept(self, count: int, hide_duplicates: bool) -> list[int]:
        """The best candidates, without those that look like a better one when these are hidden."""
        return [k for k in self.order if not (hide_duplicates and self.duplicate_of[k] is not None)][:count]

    def facts(self, k: int, seeds: list[int]) -> dict[str, Any]:
        """What a candidate's record says of its ranking; `seeds` are those of all candidates."""
        twin = self.duplicate_of[k]
        return {
            "candidate": k,
            "candidates": len(seeds),
            "noise": self.noise,
            "tied": self.tied,
            "mean_score": sum(self.scores) / len(seeds),
            "duplicate_of": None if twin is None else seeds[twin],
        }


@torch.no_grad()
def judge(clip: Clip, prompt: str, vectors: Tensor) -> tuple[Tensor, float]:
    """(n, d) image vectors -> (n,) scores, and the noise of a score."""
    wordings = clip.encode_text(ensemble(prompt))
    each = vectors @ wordings.T  # (n, wordings)
    scores = vectors @ F.normalize(wordings.mean(0), dim=0)
    if len(vectors) < 2:
        return scores, 0.0
    apart = each - each.mean(0)  # a wording that lifts all candidates alike says nothing
    return scores, (apart.std(1).mean() / each.shape[1] ** 0.5).item()


def rank(clip: Clip, prompt: str, vectors: Tensor) -> Ranking:
    """Rank pictures by their (n, d) image vectors of unit length."""
    scores, noise = judge(clip, prompt, vectors)
    order = scores.argsort(descending=True, stable=True).tolist()
    alike = (vectors @ vectors.T > DUPLICATE).cpu()
    duplicate_of: list[int | None] = [None] * len(order)
    originals: list[int] = []
    for k in order:
        duplicate_of[k] = next((better for better in originals if alike[k, better]), None)
        if duplicate_of[k] is None:
            originals.append(k)
    return Ranking(scores.tolist(), noise, order, duplicate_of)


def great_circle(a: Tensor, b: Tensor) -> Tensor:
    """Half the squared angle between unit vectors (..., d), in [0, pi^2 / 2]; 1.23 when they say nothing of each other.

    Equal to 2 arcsin(|a - b| / 2)^2 (Crowson et al. 2022), by an arctangent whose slope is finite everywhere.
    """
    across = ((a - b).square().sum(-1) + 1e-12).sqrt()
    along = ((a + b).square().sum(-1) + 1e-12).sqrt()
    return 2 * torch.atan2(across, along).square()


def text_direction(clip: Clip, source: str, target: str) -> Tensor:
    """(d,) of unit length: from the source's wordings to the target's, each averaged (Kim et al. 2022, equation 10)."""
    from_text, to_text = (clip.encode_text(ensemble(text)).mean(0) for text in (source, target))
    return F.normalize(to_text - from_text, dim=0)


def directional_similarity(before: Tensor, after: Tensor, direction: Tensor) -> Tensor:
    """cos(after - before, direction): (..., d) unit image vectors and unit directions -> (...,) in [-1, 1].

    0 where nothing changed.
    """
    change = after - before
    length = (change.square().sum(-1) + 1e-12).sqrt()
    return (change * direction).sum(-1) / length


def directional_loss(before: Tensor, after: Tensor, direction: Tensor, form: str = "plain") -> Tensor:
    """1 - cos, in [0, 2], as in the paper (Kim et al. 2022, equation 10), or "log": -log((1 + cos) / 2), steep while the
    change points away from the direction and flat as it turns towards it, as the authors' program has it. (...,)."""
    cosine = directional_similarity(before, after, direction)
    if form == "log":
        return -torch.log(((1 + cosine) / 2).clamp(min=1e-6))
    return 1 - cosine


def keeping_loss(before: Tensor, after: Tensor, keep: float, smooth: float) -> Tensor:
    """`keep` times the L1 of the change and `smooth` times its total variation: (n, 3, h, w) twice -> (n,)."""
    change = after - before
    across = (change[..., 1:] - change[..., :-1]).abs().mean((1, 2, 3))
    down = (change[..., 1:, :] - change[..., :-1, :]).abs().mean((1, 2, 3))
    return keep * change.abs().mean((1, 2, 3)) + smooth * (across + down)


def reach_loss(before: Tensor, after: Tensor, direction: Tensor, strength: Tensor | float = 1.0) -> Tensor:
    """How much of the way along the direction is still to go, in units of REACH; 0 on arrival. (...,).

    The cosine of `directional_loss` is blind to how much changed, and content with next to nothing. This gives the
    change its length, and `strength` its meaning; a negative one goes the other way.
    """
    strength = torch.as_tensor(strength, device=before.device)
    along = ((after - before) @ direction) * strength.sign()
    return (strength.abs() - along / REACH).clamp(min=0)
