"""What networks of one role share: image codecs their tokens, CLIPs their memory of prompts."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_REMEMBERED = 20_000  # prompts


class Codec(nn.Module, ABC):
    """Pictures to image tokens and back through a table of codes. Convolutional: sides are multiples of the factor."""

    codes: nn.Parameter  # (code_count, code_size)

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, c, h / factor, w / factor), near the codes."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """(n, c, h, w) codes, or anything between them -> (n, 3, h * factor, w * factor), about [-1, 1]."""

    def nearest(self, z: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, h, w) tokens: the nearest code by Euclidean distance."""
        n, c, h, w = z.shape
        flat, codes = z.permute(0, 2, 3, 1).reshape(-1, c).float(), self.codes.float()
        distance = codes.square().sum(1) - 2 * flat @ codes.T  # |z|^2 is the same for every code
        return distance.argmin(1).view(n, h, w)

    def embed(self, tokens: Tensor) -> Tensor:
        """(n, h, w) tokens -> (n, c, h, w) their codes."""
        return F.embedding(tokens, self.codes).permute(0, 3, 1, 2)

    def tokens_of(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, h / factor, w / factor) tokens."""
        return self.nearest(self.encode(images))

    def pictures_of(self, tokens: Tensor) -> Tensor:
        """(n, h, w) tokens -> (n, 3, h * factor, w * factor), about [-1, 1]."""
        return self.decode(self.embed(tokens))

    def seamless(self) -> Self:
        """A twin on the same weights whose convolutions wrap around, so that pictures meet themselves at the edges."""
        shared = {id(one): one for one in (*self.parameters(), *self.buffers())}
        twin = copy.deepcopy(self, shared)
        for module in twin.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
                module.padding_mode = "circular"
        return twin


def remembered(
    memory: dict[str, Tensor], prompts: list[str], read: Callable[[list[str]], Tensor], device: torch.device
) -> Tensor:
    """(n, d) float32 of unit length: what `read` makes of each prompt, from `memory` when it was read before."""
    new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in memory]
    if len(memory) + len(new) > MOST_REMEMBERED:
        memory.clear()
        new = list(dict.fromkeys(prompts))
    for start in range(0, len(new), 256):
        chunk = new[start : start + 256]
        memory.update(zip(chunk, F.normalize(read(chunk).float(), dim=-1), strict=True))
    return torch.stack([memory[prompt].to(device) for prompt in prompts])
