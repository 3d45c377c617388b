"""The losses that pull texts to their pictures, over the joint batch of all processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor


class PairLoss(ABC):
    """Base of both losses. Every picture of the same thing is a positive of a text."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator

    @abstractmethod
    def __call__(
        self, image: Tensor, text: Tensor, concepts: Tensor, scale: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        """image, text (n, d) of unit length; concepts (n,) ids, -1 for one of a kind; scale multiplies the cosines."""

    def joint(self, image: Tensor, text: Tensor, concepts: Tensor) -> tuple[Tensor, Tensor, Tensor, slice]:
        """image, text (n, d) and ids (n,), -1 for one of a kind, of this process -> those of all, m rows each.

        Returns image, text, (m, m) bool where a picture and a text belong together, and which rows are this process's.
        """
        mine = slice(None)
        if self.accelerator.num_processes > 1:
            rank, n = self.accelerator.process_index, len(image)
            image, text = cast(Tensor, Gathered.apply(image)), cast(Tensor, Gathered.apply(text))
            concepts = cast(Tensor, self.accelerator.gather(concepts))
            mine = slice(rank * n, rank * n + n)
        same = (concepts[:, None] == concepts[None, :]) & (concepts[:, None] >= 0)
        same |= torch.eye(len(concepts), dtype=torch.bool, device=concepts.device)
        return image, text, same, mine


class ContrastiveLoss(PairLoss):
    """The symmetric cross-entropy (Radford et al. 2021, figure 3)."""

    def __call__(
        self, image: Tensor, text: Tensor, concepts: Tensor, scale: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        """As PairLoss. A bias would change nothing."""
        image, text, same, mine = self.joint(image, text, concepts)
        target = same / same.sum(1, keepdim=True)
        logits = scale * image @ text.T
        rows = -(target * F.log_softmax(logits, 1)).sum(1)
        columns = -(target * F.log_softmax(logits.T, 1)).sum(1)
        return (rows[mine] + columns[mine]).mean() / 2


class SigmoidLoss(PairLoss):
    """Each pair of a picture and a text is a question of its own (Zhai et al. 2023, SigLIP, algorithm 1)."""

    def __call__(
        self, image: Tensor, text: Tensor, concepts: Tensor, scale: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        """As PairLoss; `bias` is added to the scaled cosines."""
        image, text, same, mine = self.joint(image, text, concepts)
        logits = scale * image[mine] @ text.T + (0 if bias is None else bias)
        return -F.logsigmoid(torch.where(same[mine], logits, -logits)).sum(1).mean()


class Gathered(torch.autograd.Function):
    """(n, d) of each process -> the rows of all in order; gradients flow back, as a sum, to where each row came from."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        rows = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(rows, x)
        return torch.cat(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]
