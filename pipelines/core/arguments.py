"""Command-line flags whose errors are BadInput, one sentence each, and the table that commands of figures print."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any, NoReturn

from pipelines.errors import BadInput


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises BadInput where argparse would print its usage and exit.

    It takes ArgumentParser's keywords. Flags cannot be abbreviated.
    """

    def __init__(self, **words: Any) -> None:
        super().__init__(allow_abbrev=False, **words)

    def error(self, message: str) -> NoReturn:
        """Raise BadInput with argparse's message and a hint at --help."""
        raise BadInput("core.usage", message=message, program=self.prog)


def number(kind: type, lo: float, hi: float) -> Callable[[str], Any]:
    """A function for argparse's `type` that reads a number from `lo` to `hi`, both included.

    `kind` is int or float. The function takes the flag's text and raises ArgumentTypeError for what is no such number,
    nan included.
    """

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not lo <= value <= hi:
            words = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not {words} from {lo:,} to {hi:,}")
        return value

    return read


def told(figures: dict[str, Any], *, as_json: bool) -> str:
    """Figures by name as a table, numbers to four digits, or as one JSON object."""
    if as_json:
        return json.dumps(figures)
    return "\n".join(f"{name:44} {_shown(value)}" for name, value in figures.items())


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
