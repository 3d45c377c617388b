"""The symmetric contrastive loss (Radford et al. 2021), over the joint batch of all processes."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor
from torch.distributed.nn.functional import all_gather


class ContrastiveLoss:
    """The symmetric cross-entropy over the joint batch of all processes, every picture of the same thing positive."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator

    def __call__(self, image: Tensor, text: Tensor, concepts: Tensor, scale: Tensor) -> Tensor:
        """image, text (n, d) of unit length; things (n,) ids, -1 for one of a kind; scale multiplies the cosines."""
        count, rank = self.accelerator.num_processes, self.accelerator.process_index
        if count > 1:
            n = len(image)
            image, text = gather_with_gradient(image), gather_with_gradient(text)
            concepts = cast(Tensor, self.accelerator.gather(concepts))
            mine = slice(rank * n, rank * n + n)
        else:
            mine = slice(None)
        same = (concepts[:, None] == concepts[None, :]) & (concepts[:, None] >= 0)
        same |= torch.eye(len(concepts), dtype=torch.bool, device=concepts.device)
        target = same / same.sum(1, keepdim=True)
        logits = scale * image @ text.T
        rows = -(target * F.log_softmax(logits, 1)).sum(1)
        columns = -(target * F.log_softmax(logits.T, 1)).sum(1)
        return (rows[mine] + columns[mine]).mean() / 2


def gather_with_gradient(x: Tensor) -> Tensor:
    """The rows of all processes in order; gradients flow back to where each row came from."""
    return torch.cat(all_gather(x))
