"""Values that were read from JSON or msgpack.

The checks of types return what `isinstance` returns, and tell the type checker what the value holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeGuard


def is_dict(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether a value is a dict. JSON's and msgpack's readers here make only dicts whose keys are texts."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Whether a value is a list."""
    return isinstance(value, list)


def json_lines(text: str) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """The lines of JSON Lines that are not empty: each one's number, from 1, and its object. None for any other line."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        yield number, value if is_dict(value) else None
