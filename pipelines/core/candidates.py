"""Random numbers: seeds of candidates, which are drawn in batches of one fixed size, and generators of steps."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch


def candidate_seed(seed: int, index: int) -> int:
    """The seed of the candidate `index` (from 0) of a run with `seed`: in [0, 2^32), but for the first.

    The first candidate has the run's own seed, so any candidate can be drawn again as a run of one with its own seed.
    """
    if index == 0:
        return seed
    digest = hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def candidate_seeds(seed: int, count: int) -> list[int]:
    """The seeds of the first `count` candidates of a run with `seed`, in order."""
    return [candidate_seed(seed, index) for index in range(count)]


@dataclass(frozen=True)
class Batch:
    """Candidates that are drawn together.

    Every batch draws `rows` pictures, so that rounding does not depend on the number of candidates. The last batch is
    filled up with idle rows.
    """

    seeds: list[int]  # of the candidates that were asked for, at most `rows`
    rows: int
    index: int  # from 0
    count: int  # of batches in the run

    @property
    def row_seeds(self) -> list[int]:
        """One seed a row, `rows` of them. Idle rows repeat the first."""
        return [*self.seeds, *self.seeds[:1] * (self.rows - len(self.seeds))]

    @property
    def finished(self) -> int:
        """The number of the run's candidates that are drawn after this batch."""
        return self.index * self.rows + len(self.seeds)


def batches(seeds: list[int], rows: int) -> list[Batch]:
    """Batches of `rows` for the candidates with these seeds, in order."""
    parts = [seeds[first : first + rows] for first in range(0, len(seeds), rows)]
    return [Batch(part, rows, index, len(parts)) for index, part in enumerate(parts)]


def generator_at(seed: int, step: int, purpose: str) -> torch.Generator:
    """A CPU generator seeded by seed, step and purpose, so that a resumed run needs no generator state."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{step}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
