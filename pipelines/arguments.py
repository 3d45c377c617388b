"""Command-line flags whose complaints are one sentence, like all others."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from pipelines.errors import BadInput


class Parser(argparse.ArgumentParser):
    """argparse that raises BadInput instead of printing its usage and leaving."""

    def __init__(self, **words: Any) -> None:
        super().__init__(allow_abbrev=False, **words)

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message}; see {self.prog} --help")
