"""Near codes draw nearly the same, so which of them a picture has is mostly noise. A DALL·E is told which are near."""

from __future__ import annotations

import torch
from torch import Tensor

NEIGHBOURS = 8  # codes that are asked for in place of one, itself among them


def neighbours(codes: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest codes of each of (k, d), itself first, and their shares of its target: both (k, NEIGHBOURS).

    A share is proportional to exp(-distance^2 / temperature) (Lee et al. 2022). The temperature is half
    of the usual squared distance to the next code.
    """
    distance, near = torch.cdist(codes, codes).square().topk(min(NEIGHBOURS, len(codes)), largest=False)
    temperature = distance[:, 1:2].median() / 2
    return near, (-distance / temperature.clamp(min=1e-12)).softmax(1)
