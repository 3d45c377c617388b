"""Numbers out of tensors, with types: torch itself says of `tolist` only Any."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor


def integers(tensor: Tensor) -> list[int]:
    """The values of an integer tensor (n,)."""
    return cast(Any, tensor).tolist()


def floats(tensor: Tensor) -> list[float]:
    """The values of a floating-point tensor (n,)."""
    return cast(Any, tensor).tolist()
