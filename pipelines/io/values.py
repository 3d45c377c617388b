"""Type checks of values that were read from JSON or msgpack.

They return what `isinstance` returns, and tell the type checker what the value holds.
"""

from __future__ import annotations

from typing import Any, TypeGuard


def is_dict(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether a value is a dict. JSON's and msgpack's readers here make only dicts whose keys are texts."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Whether a value is a list."""
    return isinstance(value, list)
