"""How every DALL·E draws its next token from the logits."""

from __future__ import annotations

from torch import Tensor


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
