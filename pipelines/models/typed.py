"""Type hints for values that arrive without any: numbers out of tensors, and JSON."""

from __future__ import annotations

from typing import Any, TypeGuard, cast

from torch import Tensor


def integers(tensor: Tensor) -> list[int]:
    """The values of an integer tensor (n,)."""
    return cast(Any, tensor).tolist()


def floats(tensor: Tensor) -> list[float]:
    """The values of a floating-point tensor (n,)."""
    return cast(Any, tensor).tolist()


def is_dict(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether a value is a dict. Its keys are taken to be text, as in JSON, and are not checked."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Whether a value is a list."""
    return isinstance(value, list)
