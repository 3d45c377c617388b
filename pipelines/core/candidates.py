"""Random numbers: seeds of candidates, which are drawn in batches of one fixed size, and generators of steps."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    before: int = 0  # the number of the run's candidates in the batches before this one
    looks: tuple[str, ...] = ()  # of the candidates, in their order; () for none

    @property
    def row_seeds(self) -> list[int]:
        """One seed a row, `rows` of them. Idle rows repeat the first."""
        return [*self.seeds, *self.seeds[:1] * (self.rows - len(self.seeds))]

    @property
    def finished(self) -> int:
        """The number of the run's candidates that are drawn after this batch."""
        return self.before + len(self.seeds)

    @property
    def row_looks(self) -> list[str]:
        """One look a row, "" for none. Idle rows repeat the first."""
        looks = self.looks or ("",)
        return [*looks, *looks[:1] * (self.rows - len(looks))]

    def parts(self, chosen: Sequence[int], rows: int) -> list[Batch]:
        """Batches of `rows` of some of its candidates, numbers from 0, in their order."""
        found = batches([self.seeds[k] for k in chosen], rows)
        looks = [self.looks[k] for k in chosen] if self.looks else []
        return [replace(part, looks=tuple(looks[part.before : part.finished])) for part in found]


def batches(seeds: list[int], rows: int) -> list[Batch]:
    """Batches of `rows` for the candidates with these seeds, in order."""
    starts = range(0, len(seeds), rows)
    return [
        Batch(seeds[first : first + rows], rows, index, len(starts), first)
        for index, first in enumerate(starts)
    ]


def spread(seeds: list[int], looks: list[str], rows: int, alike: bool) -> list[Batch]:
    """Batches of candidates that take turns in some looks; without looks those of `batches`.

    `alike` puts candidates of one look together, so that all rows of a batch have it.
    """
    if not looks:
        return batches(seeds, rows)
    pairs = [(looks[k % len(looks)], seed) for k, seed in enumerate(seeds)]
    groups = [[pair for pair in pairs if pair[0] == look] for look in looks] if alike else [pairs]
    parts = [group[first : first + rows] for group in groups for first in range(0, len(group), rows)]
    found: list[Batch] = []
    for part in parts:
        before = sum(len(batch.seeds) for batch in found)
        names = tuple(look for look, _ in part)
        found.append(Batch([seed for _, seed in part], rows, len(found), len(parts), before, names))
    return found


def generator_at(seed: int, step: int, purpose: str) -> torch.Generator:
    """A CPU generator seeded by seed, step and purpose, so that a resumed run needs no generator state."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{step}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
