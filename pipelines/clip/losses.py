"""CLIP as the gradient: distances, directions and what keeps the rest, as losses on unit vectors and pictures."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.clip.ranking import ensemble
from pipelines.models.base import Clip

REACH = 0.3  # how far an edit of strength 1 moves a picture along the texts' direction, in cosine


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
