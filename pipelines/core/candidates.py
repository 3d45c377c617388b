"""Candidates: several pictures for one prompt, each drawn from a seed of its own, in batches of one fixed size."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """How the model reads a prompt: its tokens, how many fit, what was cut, which words it never saw."""

    tokens: list[str]
    limit: int
    cut: str
    unknown: list[str]


def candidate_seed(seed: int, index: int) -> int:
    """The seed of one candidate of a run. The first has the run's own, so any candidate can be redrawn as a run of one."""
    if index == 0:
        return seed
    digest = hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def candidate_seeds(seed: int, count: int) -> list[int]:
    """The seeds of the first `count` candidates of a run."""
    return [candidate_seed(seed, index) for index in range(count)]


@dataclass(frozen=True)
class Batch:
    """Candidates that are drawn together.

    `rows` pictures are drawn whatever the number of candidates, so that how numbers round does not depend on it. The
    last batch is filled up with idle rows.
    """

    seeds: list[int]  # of the candidates that were asked for, at most `rows`
    rows: int
    index: int  # from 0
    count: int  # of batches in the run

    @property
    def row_seeds(self) -> list[int]:
        """One seed for each row; idle rows repeat the first."""
        return [*self.seeds, *self.seeds[:1] * (self.rows - len(self.seeds))]

    @property
    def finished(self) -> int:
        """Candidates of the run that are drawn when this batch is."""
        return self.index * self.rows + len(self.seeds)


def batches(seeds: list[int], rows: int) -> list[Batch]:
    """The candidates with these seeds, in order, `rows` at a time."""
    parts = [seeds[first : first + rows] for first in range(0, len(seeds), rows)]
    return [Batch(part, rows, index, len(parts)) for index, part in enumerate(parts)]
