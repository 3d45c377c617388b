"""The story of a CLIP whose towers were trained on alone: each such training is a round, told with the one before it."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn


def fingerprint(tower: nn.Module) -> Tensor:
    """(8,) uint8, which tells the weights of a tower from others'."""
    weights = torch.cat([value.flatten().cpu() for value in tower.state_dict().values()])
    return torch.tensor(list(hashlib.sha256(weights.numpy().tobytes()).digest()[:8]), dtype=torch.uint8)


def with_round(history: dict[str, Any], tower: str, facts: dict[str, Any], begun: Tensor) -> dict[str, Any]:
    """The facts of the CLIP before, with one more round of `tower` ("image" or "text") and the figures of the whole.

    `begun` is the fingerprint of the tower that the round began with: the same training, exported again, is one round.
    """
    before, mark = history.get(tower), bytes(begun.tolist()).hex()
    if before and before.get("begun") == mark:
        before = before["before"]
    return {
        **history,
        "figures": facts["figures"],
        tower: {**facts, "begun": mark, "before": before},
    }
