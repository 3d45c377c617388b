"""Random numbers: the generator of a seed, and how every DALL·E draws its next token from the logits."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def generator_of(seed: int, part: int | None = None) -> torch.Generator:
    """The CPU's random generator for a seed in [0, 2^64), or for one of its parts, such as a step in [0, 2^20).

    torch keeps only the low 32 bits of a seed (mt19937). A larger seed is therefore hashed, so that it is not the same
    as one below 2^32.
    """
    if seed >= 2**32:
        number = int.from_bytes(hashlib.blake2b(f"{seed}/{part}".encode(), digest_size=4).digest(), "big")
    else:
        number = seed if part is None else (seed << 20) + part
    return torch.Generator().manual_seed(number)


def sample(logits: Tensor, uniform: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Sample one token a row by inverting the cumulative distribution at `uniform`.

    logits (n, v) float32, uniform (n,) in [0, 1) -> (n,) tokens. Top-k (0 for all) comes before top-p (Holtzman et al.
    2020): the smallest set of likeliest tokens whose probability reaches top_p.
    """
    logits = logits / temperature
    if 0 < top_k < logits.shape[1]:
        ordered, token = logits.topk(top_k, dim=1)
    else:
        ordered, token = logits.sort(dim=1, descending=True, stable=True)
    share = ordered.softmax(1)
    reached = share.cumsum(1)
    if top_p < 1:
        share = share.where(reached - share < top_p, 0)
        reached = share.cumsum(1)
    chosen = (reached <= uniform[:, None] * reached[:, -1:]).sum(1).clamp(max=token.shape[1] - 1)
    return token.gather(1, chosen[:, None])[:, 0]
