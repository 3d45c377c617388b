"""How the VQ-VAE learns (van den Oord et al. 2017): squared error, commitment, and codes that are running means."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor
from torch.nn.utils import convert_conv2d_weight_memory_format

from pipelines.models.vqgan.network import Vqgan, VqganConfig
from pipelines.training.autoencoder import AutoencoderTrainer, as_images
from pipelines.training.codes import RunningCodes
from pipelines.training.data.dataset import Dataset

COMMITMENT = 0.25  # the paper's beta


class VqvaeTrainer(AutoencoderTrainer):
    """Trains a Vqgan without a critic. The squared error is measured by the variance of the pictures."""

    name = "vqvae"
    ema_networks = ("vqgan",)
    patience = 40  # steps for which a code may stay unused
    memory = 0.98  # how much of a code's running mean stays in a step
    revived = 0.8  # of the budget: later, unused codes are left alone

    def __init__(
        self, accelerator: Accelerator, emoji: Dataset, seed: int = 0, size: str = "tiny", **options: Any
    ):
        sizes = {**self.SIZES[size], **options}
        batch_size, self.rate = sizes.pop("batch_size"), sizes.pop("rate")
        super().__init__(accelerator, emoji, seed, batch_size)
        torch.manual_seed(seed)
        vqgan = Vqgan(VqganConfig(**sizes))
        vqgan.codes.requires_grad_(False)  # running means, not descended
        self.networks, self.optimizers = {"vqgan": vqgan}, {}
        self.variance = max(self._icons(emoji.train[:: max(1, len(emoji.train) // 256)]).var().item(), 1e-3)
        self.begin()

    def begin(self) -> None:
        """Move the network to the device, with its optimizer and the running means of its codes."""
        convert_conv2d_weight_memory_format(self.vqgan, torch.channels_last).to(self.accelerator.device)
        learned = [p for p in self.vqgan.parameters() if p.requires_grad]
        self.optimizers["vqgan"] = torch.optim.AdamW(
            learned, lr=self.rate, betas=(0.8, 0.98), weight_decay=0.0
        )
        self.running = RunningCodes(self.vqgan.codes.data, self.accelerator, self.memory)

    @property
    def vqgan(self) -> Vqgan:
        """The network."""
        return cast(Vqgan, self.networks["vqgan"])

    def extra_state(self) -> dict[str, Tensor]:
        return self.running.state()

    def update(self, batch: tuple[Tensor, Tensor, int], progress: float) -> dict[str, Tensor]:
        images = as_images(batch[0])
        tokens, z, again = self.through_codes(images, batch[1])
        error, commitment = F.mse_loss(again, images), self.commitment_loss(z, tokens)
        self.backward_and_step(error / self.variance + commitment, self.vqgan, "vqgan")
        metrics = {"squared error": error, "commitment": commitment}
        return metrics | {"codes used": self._follow_codes(tokens, z.detach(), batch[2], progress)}

    def through_codes(self, images: Tensor, quantized: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, 3, h, w) and which rows go through codes (n,) -> tokens, encodings and reconstructions.

        The decoder's gradient goes to the encoder as if there were no codes (straight-through, equation 3 and below).
        """
        with self.accelerator.autocast():
            z = self.vqgan.encode(images)
        z = z.float()
        tokens = self.vqgan.quantize(z.detach())  # in float32: in bfloat16 the nearest is often another one
        step = (self.vqgan.embed(tokens) - z).detach() * quantized[:, None, None, None].to(z)
        with self.accelerator.autocast():
            return tokens, z, self.vqgan.decode(z + step).float()

    def commitment_loss(self, z: Tensor, tokens: Tensor) -> Tensor:
        """The third term of equation 3: the encodings (n, c, h, w) are held near the codes of their tokens."""
        return COMMITMENT * F.mse_loss(z, self.vqgan.embed(tokens))

    def _follow_codes(self, tokens: Tensor, z: Tensor, seed: int, progress: float) -> Tensor:
        return self.running.follow(tokens, z, seed, self.patience, revive=progress < self.revived)
