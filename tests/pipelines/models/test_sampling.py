"""Random numbers of seeds."""

from __future__ import annotations

import torch

from pipelines.models.sampling import generator_of


def test_seeds_above_32_bits_are_seeds_of_their_own() -> None:
    """torch alone would take the low 32 bits: 2^32 would be 0, and the parts of a seed would run over 64 bits."""
    seeds = (0, 1, 2**32 - 1, 2**32, 2**32 + 1, 2**53 + 1, 2**64 - 1)
    drawn = [torch.rand(4, generator=generator_of(seed, part)) for seed in seeds for part in (None, 0, 1)]
    known = torch.rand(4, generator=torch.Generator().manual_seed((7 << 20) + 3))
    assert torch.equal(torch.rand(4, generator=generator_of(7, 3)), known)  # as pictures before were drawn
    large = [tuple(numbers.tolist()) for numbers in drawn[9:]]
    assert len(set(large)) == 12 and not set(large) & {tuple(numbers.tolist()) for numbers in drawn[:9]}
