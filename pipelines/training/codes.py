"""The code books of codecs: running means of what chose each code, k-means, near codes, and their scale."""

from __future__ import annotations

from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor

from pipelines.models.vqgan.dvae import Dvae
from pipelines.models.vqgan.network import Vqgan

SPREAD = 1.2  # of the codes
NEIGHBOURS = 8  # codes that are asked for in place of one, itself among them


class RunningCodes:
    """Each code is the running mean of the encodings that chose it (van den Oord et al. 2017, appendix A.1).

    A code that nothing chose for `patience` steps is put onto an encoding of the batch (as Dhariwal et al. 2020).
    """

    def __init__(self, codes: Tensor, accelerator: Accelerator, memory: float):
        """`codes` (k, c) are changed in place; `memory` is how much of a running mean stays in a step."""
        self.codes, self.accelerator, self.memory = codes, accelerator, memory
        self.unused = torch.zeros(len(codes), device=codes.device)  # steps since last used
        self.counts, self.sums = torch.ones_like(self.unused), codes.detach().clone()

    def state(self) -> dict[str, Tensor]:
        """What the next step depends on, beside the codes."""
        return {"unused": self.unused, "counts": self.counts, "sums": self.sums}

    @torch.no_grad()
    def follow(self, tokens: Tensor, z: Tensor, seed: int, patience: int, revive: bool) -> Tensor:
        """Move the codes by (n, h, w) tokens and their encodings (n, c, h, w) of this process; all use the joint batch.

        `seed` is the chance of the step, the same in every process. Returns the share of codes in recent use.
        """
        tokens, z = (cast(Tensor, self.accelerator.gather(tensor)) for tensor in (tokens, z))
        vectors, chosen = flat(z), tokens.flatten()
        self.counts.mul_(self.memory).add_(
            torch.bincount(chosen, minlength=len(self.counts)) * (1 - self.memory)
        )
        self.sums.mul_(self.memory).index_add_(0, chosen, vectors, alpha=1 - self.memory)
        self.codes.copy_(self.sums / self.counts[:, None].clamp(min=1e-6))
        self.unused += 1
        self.unused[chosen] = 0
        dead = (self.unused > patience).nonzero()[:, 0]
        if revive and len(dead):
            generator = torch.Generator().manual_seed(seed)
            dead = dead[torch.randperm(len(dead), generator=generator)[:64].to(dead.device)]
            somewhere = torch.randint(len(vectors), (len(dead),), generator=generator).to(vectors.device)
            self.codes[dead] = vectors[somewhere]
            self.counts[dead], self.sums[dead] = 1 - self.memory, vectors[somewhere] * (1 - self.memory)
            self.unused[dead] = 0
        return (self.unused <= patience).float().mean()


def flat(z: Tensor) -> Tensor:
    """(n, c, h, w) -> (n h w, c)."""
    return z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])


@torch.no_grad()
def spread(codec: Vqgan | Dvae) -> None:
    """Scale the codes to a deviation of SPREAD, and the layers around them, so that tokens and pictures stay.

    Optimize walks among the codes by steps of a fixed length, which should mean the same for every training.
    """
    scale = SPREAD / codec.codes.std()
    codec.codes.mul_(scale)
    codec.after_codes.weight.div_(scale)
    if isinstance(codec, Vqgan):  # the encoder of the other one does not speak in codes
        codec.before_codes.weight.mul_(scale)
        cast(Tensor, codec.before_codes.bias).mul_(scale)


def k_means(points: Tensor, count: int, seed: int, rounds: int = 12) -> Tensor:
    """The (count, d) centres of (n, d) points by Lloyd's rounds, from centres drawn among the points."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randperm(len(points), generator=generator).repeat(-(-count // len(points)))[:count]
    centres = points[first.to(points.device)]
    for _ in range(rounds):
        nearest = torch.cat([torch.cdist(chunk, centres).argmin(1) for chunk in points.split(8192)])
        counts = torch.bincount(nearest, minlength=count)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return centres


def neighbours(codes: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest codes of each of (k, d), itself first, and their shares of its target: both (k, NEIGHBOURS).

    A share is proportional to exp(-distance^2 / temperature) (Lee et al. 2022). The temperature is half
    of the usual squared distance to the next code.
    """
    distance, near = torch.cdist(codes, codes).square().topk(min(NEIGHBOURS, len(codes)), largest=False)
    temperature = distance[:, 1:2].median() / 2
    return near, (-distance / temperature.clamp(min=1e-12)).softmax(1)
