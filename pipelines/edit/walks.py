"""Walks along the noise, which yield numbers of steps and x, as Steps."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from torch import Tensor

from pipelines.core.pipeline import Step


def shown(
    stage: str, total: int, walk: Generator[tuple[int, Tensor], None, Any], decode: Callable[[Tensor], Tensor]
) -> Generator[Step, None, Any]:
    """A walk that yields numbers of steps and x, as Steps that show x decoded. Returns what the walk returns."""
    while True:
        try:
            done, x = next(walk)
        except StopIteration as end:
            return end.value
        yield Step(stage, done, max(total, done), {}, lambda x=x: decode(x))
