"""How the dVAE learns (Ramesh et al. 2021, section 2.1 and appendix A.2): the evidence lower bound, relaxed.

Tokens are drawn by Gumbel-softmax (Jang et al. 2017; Maddison et al. 2017), whose temperature falls. The bound is
divided by the numbers in a picture, as theirs, so the KL divergence of a token has the weight beta / numbers a token.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.utils import convert_conv2d_weight_memory_format

from pipelines.models.vqgan.dvae import Dvae, DvaeConfig, to_open
from pipelines.training.autoencoder import AutoencoderTrainer, as_images
from pipelines.training.data.dataset import Dataset, Pictures

COLDEST = 1 / 16  # below, the relaxed bound is as good as the true one
KL_WEIGHT = 6.6


class DvaeTrainer(AutoencoderTrainer):
    """Trains a Dvae. Both schedules are cosines over the first part of the budget, where theirs count updates."""

    name = kind = "dvae"
    ema_networks = ("dvae",)
    cooled, weighed = 0.5, 0.1  # shares of the budget after which temperature and weight stay

    def __init__(
        self, accelerator: Accelerator, emoji: Dataset, seed: int = 0, size: str = "tiny", **options: Any
    ):
        sizes = {**self.SIZES[size], **options}
        batch_size, rate = sizes.pop("batch_size"), sizes.pop("rate")
        super().__init__(accelerator, emoji, seed, batch_size)
        torch.manual_seed(seed)
        dvae = Dvae(DvaeConfig(**sizes))
        convert_conv2d_weight_memory_format(dvae, torch.channels_last).to(accelerator.device)
        self.networks = {"dvae": dvae}
        adam = torch.optim.AdamW(dvae.parameters(), lr=rate, betas=(0.9, 0.999), weight_decay=1e-4)
        self.optimizers = {"dvae": adam}

    @property
    def dvae(self) -> Dvae:
        """The network."""
        return cast(Dvae, self.networks["dvae"])

    def batch_of(
        self, pictures: Pictures, rows: np.ndarray, rng: np.random.Generator, step: int, rank: int
    ) -> tuple[Tensor, Tensor, int]:
        """Scenes (n, 3, s, s) uint8; uniform numbers (n, code_count, h, w) in (0, 1); and the seed of the step."""
        drawn, _, seed = super().batch_of(pictures, rows, rng, step, rank)
        own, config = np.random.default_rng((self.seed, step, rank, 1)), self.dvae.config
        side = drawn.shape[-1] // config.factor
        uniform = own.random((len(drawn), config.code_count, side, side), dtype=np.float32)
        return drawn, torch.from_numpy(uniform), seed

    def update(self, batch: tuple[Tensor, Tensor, int], progress: float) -> dict[str, Tensor]:
        dvae, images = self.dvae, as_images(batch[0])
        temperature = annealed(progress / self.cooled, 1.0, COLDEST)
        with self.accelerator.autocast():
            logits = dvae.logits(images)
        logits = logits.float()
        shares = gumbel_softmax(logits, batch[1], temperature)
        codes = torch.einsum("nkhw,kc->nchw", shares, dvae.codes)
        with self.accelerator.autocast():
            medians, scales = dvae.distribution(codes)
        likelihood = logit_laplace(to_open(images), medians.float(), scales.float()).mean()
        divergence = from_uniform(logits).mean()
        weight = annealed(progress / self.weighed, 0.0, KL_WEIGHT) / (3 * dvae.config.factor**2)
        self.backward_and_step(weight * divergence - likelihood, dvae, "dvae")
        tokens = self.mean_over_processes(logits.softmax(1).mean((0, 2, 3)))
        perplexity = torch.special.entr(tokens).sum().exp()
        return {"likelihood": likelihood, "divergence": divergence, "code perplexity": perplexity}


def annealed(share: float, first: float, last: float) -> float:
    """A cosine from `first` to `last` as `share` goes from 0 to 1, and `last` after it."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def gumbel_softmax(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """Shares (n, k, h, w) of the k codes, sum 1, drawn for logits of the same shape by uniform numbers in [0, 1)."""
    gumbel = -torch.log(-torch.log(uniform.clamp(1e-7, 1 - 1e-7)))
    return ((logits + gumbel) / temperature).softmax(1)


def logit_laplace(pixels: Tensor, medians: Tensor, log_scales: Tensor) -> Tensor:
    """The logarithm of the density (appendix A.3) of pixels in (0, 1), whose logits are Laplace-distributed.

    `medians` are those of the logits; all shapes are alike.
    """
    distance = (torch.logit(pixels) - medians).abs() * torch.exp(-log_scales)
    return -distance - math.log(2) - log_scales - torch.log(pixels * (1 - pixels))


def from_uniform(logits: Tensor) -> Tensor:
    """The KL divergence in nats of each place's tokens, logits (n, k, h, w), from the uniform prior: (n, h, w)."""
    logarithms = logits.log_softmax(1)
    return (logarithms.exp() * logarithms).sum(1) + math.log(logits.shape[1])
