"""Losses on CLIP's vectors and on pictures: distances, directions and the preservation of the rest."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.clip.ranking import ensemble
from pipelines.models.base import Clip

UNIT_SHIFT = 0.3  # how far an edit of strength 1 moves a picture along the texts' direction, in cosine


def great_circle(a: Tensor, b: Tensor) -> Tensor:
    """Half the squared angle between unit vectors: (..., d) twice -> (...,) in [0, pi^2 / 2].

    It is 1.23 for orthogonal vectors. It equals 2 arcsin(|a - b| / 2)^2 (Crowson et al. 2022), computed with an
    arctangent, whose gradient is finite everywhere.
    """
    across = ((a - b).square().sum(-1) + 1e-12).sqrt()
    along = ((a + b).square().sum(-1) + 1e-12).sqrt()
    return 2 * torch.atan2(across, along).square()


def text_direction(clip: Clip, source: str, target: str) -> Tensor:
    """(d,) of unit length: from the mean of the source's wordings to the target's (Kim et al. 2022, equation 10)."""
    from_text, to_text = (clip.encode_text(ensemble(text)).mean(0) for text in (source, target))
    return F.normalize(to_text - from_text, dim=0)


def directional_similarity(before: Tensor, after: Tensor, direction: Tensor) -> Tensor:
    """The cosine of `after` - `before` with `direction`: (..., d) unit vectors -> (...,) in [-1, 1].

    It is 0 where nothing changed.
    """
    change = after - before
    length = (change.square().sum(-1) + 1e-12).sqrt()
    return (change * direction).sum(-1) / length


def directional_loss(before: Tensor, after: Tensor, direction: Tensor, form: str = "plain") -> Tensor:
    """How far the change of image vectors is from the direction: (..., d) unit vectors -> (...,).

    The form "plain" is 1 - cos, in [0, 2] (Kim et al. 2022, equation 10). The form "log" is -log((1 + cos) / 2), as in
    the authors' program; it is steep where the change points away from the direction.
    """
    cosine = directional_similarity(before, after, direction)
    if form == "log":
        return -torch.log(((1 + cosine) / 2).clamp(min=1e-6))
    return 1 - cosine


def preservation_loss(before: Tensor, after: Tensor, l1_weight: float, tv_weight: float) -> Tensor:
    """`l1_weight` times the mean L1 of the change plus `tv_weight` times its total variation.

    (n, 3, h, w) twice -> (n,).
    """
    change = after - before
    across = (change[..., 1:] - change[..., :-1]).abs().mean((1, 2, 3))
    down = (change[..., 1:, :] - change[..., :-1, :]).abs().mean((1, 2, 3))
    return l1_weight * change.abs().mean((1, 2, 3)) + tv_weight * (across + down)


def magnitude_loss(
    before: Tensor, after: Tensor, direction: Tensor, strength: Tensor | float = 1.0
) -> Tensor:
    """What is missing of the change along the direction, in units of UNIT_SHIFT.

    (..., d) unit vectors -> (...,) at least 0.

    `directional_loss` does not depend on the length of the change; this loss asks for a length of `strength` * UNIT_SHIFT.
    A negative strength asks for a change in the opposite direction.
    """
    strength = torch.as_tensor(strength, device=before.device)
    along = ((after - before) @ direction) * strength.sign()
    return (strength.abs() - along / UNIT_SHIFT).clamp(min=0)
