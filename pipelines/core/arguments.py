"""Command-line flags whose complaints are one sentence, like all others."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from pipelines.errors import BadInput


class Parser(argparse.ArgumentParser):
    """argparse that raises BadInput instead of printing its usage and leaving."""

    def __init__(self, **words: Any) -> None:
        super().__init__(allow_abbrev=False, **words)

    def error(self, message: str) -> NoReturn:
        raise BadInput("core.usage", message=message, program=self.prog)


def number(kind: type, lo: float, hi: float) -> Callable[[str], Any]:
    """A flag's type: an int or a float from `lo` to `hi`, both allowed; nan is in no range."""

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
