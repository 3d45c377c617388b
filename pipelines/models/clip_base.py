"""Shared by all CLIPs: how cosines become logits, and a memory of the texts that were encoded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_REMEMBERED = 20_000  # prompts


class ClipNetwork(nn.Module, ABC):
    """Base of CLIPs. A subclass sets `log_scale` and, where it was trained with a sigmoid, `bias`."""

    log_scale: nn.Parameter  # logarithm of the inverse of the learned temperature

    def __init__(self) -> None:
        super().__init__()
        self._remembered: dict[str, Tensor] = {}

    @abstractmethod
    def tokenize(self, prompts: list[str]) -> Tensor:
        """List of n texts -> (n, t) token ids on the device, cut to what fits."""

    @abstractmethod
    def text_features(self, tokens: Tensor) -> Tensor:
        """(n, t) token ids -> (n, d), not normalized."""

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.log_scale.device

    @property
    def logit_scale(self) -> float:
        """What turns a cosine into a logit."""
        return self.log_scale.detach().float().exp().item()

    @property
    def logit_bias(self) -> float | None:
        """What is added to a logit before its sigmoid. None where it was trained with a softmax."""
        bias: Tensor | None = getattr(self, "bias", None)
        return None if bias is None else bias.detach().float().item()

    @torch.no_grad()
    def encode_text(self, prompts: list[str]) -> Tensor:
        """List of n texts -> (n, d) float32 of unit length, without a gradient, cached per prompt."""
        return cached_text_embeddings(
            self._remembered, prompts, lambda new: self.text_features(self.tokenize(new)), self.device
        )

    def forget_texts(self) -> None:
        """Empty the memory of texts, whose vectors are no longer true when the text tower has changed."""
        self._remembered.clear()


def cached_text_embeddings(
    memory: dict[str, Tensor], prompts: list[str], read: Callable[[list[str]], Tensor], device: torch.device
) -> Tensor:
    """(n, d) float32 of unit length: the normalized output of `read` for each prompt, cached in `memory`.

    `memory` is emptied when it would hold more than MOST_REMEMBERED prompts.
    """
    new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in memory]
    if len(memory) + len(new) > MOST_REMEMBERED:
        memory.clear()
        new = list(dict.fromkeys(prompts))
    for start in range(0, len(new), 256):
        chunk = new[start : start + 256]
        memory.update(zip(chunk, F.normalize(read(chunk).float(), dim=-1), strict=True))
    return torch.stack([memory[prompt].to(device) for prompt in prompts])
