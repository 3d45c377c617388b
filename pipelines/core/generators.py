"""Generators that yield what they are doing and return a result: what they yield, changed, and the result alone."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

A = TypeVar("A")
B = TypeVar("B")
R = TypeVar("R")


def mapped(work: Generator[A, None, R], change: Callable[[A], B]) -> Generator[B, None, R]:
    """Yield `change` of everything that a generator yields, and return what it returns."""
    while True:
        try:
            item = next(work)
        except StopIteration as end:
            return end.value
        yield change(item)


def finished(work: Generator[Any, None, R]) -> R:
    """What a generator that nobody watches returns at its end."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value
