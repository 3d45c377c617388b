"""Batches far larger than memory with the gradients of the joint batch (Gao et al. 2021, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor


def cached_backward(
    groups: Sequence[Sequence[Callable[[], Tensor]]],
    loss_of: Callable[..., tuple[Tensor, dict[str, Tensor]]],
    backward: Callable[[Tensor], object],
) -> dict[str, Tensor]:
    """Add the gradients of a loss of many vectors to the parameters, of one part of the vectors at a time.

    Each group is a list of functions whose outputs, (n, d) rows with equal numbers each time they are called, are one
    argument of `loss_of` when joined. First all vectors are computed without a graph, then the loss and its gradient in
    the vectors, then each part once more with a graph, which is given its share of that gradient. `backward` is called
    with scalars. Returns the metrics, which `loss_of` gives beside the loss.
    """
    with torch.no_grad():
        parts = [[encode() for encode in group] for group in groups]
    joined = [torch.cat(rows).detach().requires_grad_() for rows in parts]
    loss, metrics = loss_of(*joined)
    backward(loss)
    for group, rows, vectors in zip(groups, parts, joined, strict=True):
        gradients = cast(Tensor, vectors.grad).split([len(part) for part in rows])
        for encode, gradient in zip(group, gradients, strict=True):
            again = encode()
            if again.requires_grad:  # a tower may be frozen
                backward((again * gradient).sum())
    return {name: value.detach() for name, value in metrics.items()}
