"""How the VQGAN learns (Esser et al. 2021): as the VQ-VAE, and by perceptual and adversarial losses.

The perceptual features come from the project's own CLIP, since it is the network that will look at the pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from pipelines.errors import BadInput
from pipelines.io.images import ssim
from pipelines.models.checkpoint import load_weights, read_header, save_checkpoint
from pipelines.models.clip.network import Clip, EfficientNetTower, ImageTower, tf_same_conv
from pipelines.models.vqgan.network import VqganConfig
from pipelines.training.autoencoder import as_images
from pipelines.training.codes import RunningCodes, k_means
from pipelines.training.data.dataset import Dataset
from pipelines.training.frozen import load_clip
from pipelines.training.pretrained import begin_with
from pipelines.training.vqvae import VqvaeTrainer


class Discriminator(nn.Sequential):
    """A patch discriminator (Isola et al. 2017): (n, 3, h, w) -> (n, 1, h / 8, w / 8) logits."""

    def __init__(self, width: int = 32):
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for k in range(2):
            wide = width * 2**k
            layers += [
                nn.Conv2d(wide, 2 * wide, 4, 2, 1, bias=False),
                nn.GroupNorm(8, 2 * wide),
                nn.LeakyReLU(0.2),
            ]
        super().__init__(*layers, nn.Conv2d(4 * width, 1, 3, 1, 1))


class VqganTrainer(VqvaeTrainer):
    """Trains a Vqgan on emoji scenes; `pack` is the folder with the CLIP whose features judge the likeness."""

    name = "vqgan"
    perceptual_weight, adversarial_weight, adversarial_from = 0.2, 0.1, 0.6
    continuous = 0.3

    def __init__(
        self,
        accelerator: Accelerator,
        emoji: Dataset,
        pack: Path,
        seed: int = 0,
        size: str = "tiny",
        start: Path | None = None,
        **options: Any,
    ):
        """`start` is an earlier checkpoint, of which the tensors that fit are taken; the codes are laid anew.

        On a user's pictures the DALL·E's codes stay: see `keeps_codes`.
        """
        self.checkpoint = start
        super().__init__(accelerator, emoji, seed, size, **options)
        self.clip: Clip | None = None
        if (pack / "clip.safetensors").exists():
            self.clip = load_clip(pack, accelerator.device)
            convert_conv2d_weight_memory_format(self.clip.image, torch.channels_last)

    def begin(self) -> None:
        critic = Discriminator()
        if self.checkpoint is not None:
            self.rate *= 0.4  # larger steps would first undo what was learned
            fitted = begin_with(self.vqgan, self.checkpoint)
            anew = "" if self.keeps_codes else ", its codes laid anew by k-means"
            self.start = f"{len(fitted)} tensors of {self.checkpoint.name}{anew}"
        convert_conv2d_weight_memory_format(critic, torch.channels_last).to(self.accelerator.device)
        super().begin()
        self.networks["discriminator"] = critic
        self.optimizers["discriminator"] = torch.optim.AdamW(
            critic.parameters(), lr=self.rate / 2, betas=(0.5, 0.98), weight_decay=0.0
        )
        if self.checkpoint is not None:
            codes = self.vqgan.codes.data
            if not self.keeps_codes:
                codes.copy_(k_means(self._encodings(2_048), len(codes), self.seed))
            self.running = RunningCodes(codes, self.accelerator, self.memory)

    @property
    def keeps_codes(self) -> bool:
        """Whether a start's tokens keep their meaning, so that a user's DALL·E can begin with the one that drew them."""
        return self.name == "vqgan" and not self.emoji.of_things

    def compile_targets(self) -> list[nn.Module]:
        return [*super().compile_targets(), self.networks["discriminator"]]

    def update(self, batch: tuple[Tensor, Tensor, int], progress: float) -> dict[str, Tensor]:
        vqgan, critic, images = self.vqgan, self.networks["discriminator"], as_images(batch[0])
        tokens, z, again = self.through_codes(images, batch[1])
        code_loss, pixel_loss = self.commitment_loss(z, tokens), self.pixel_loss(again, images)
        loss = pixel_loss + code_loss
        metrics = {"pixel": pixel_loss, "code": code_loss}
        if self.clip is not None:
            metrics["perceptual"] = self.perceptual(again, images)
            loss = loss + self.perceptual_weight * metrics["perceptual"]
        if progress > self.adversarial_from:
            with self.accelerator.autocast():
                adversarial = -critic(again).float().mean()
            loss = loss + self._adaptive_weight(loss, adversarial) * adversarial
            metrics["adversarial"] = adversarial
        self.backward_and_step(loss, vqgan, "vqgan")
        if progress > self.adversarial_from - 0.05:  # the discriminator starts a little earlier
            self.optimizers["discriminator"].zero_grad()
            with self.accelerator.autocast():
                real, fake = critic(images).float(), critic(again.detach()).float()
            metrics["discriminator"] = F.relu(1 - real).mean() + F.relu(1 + fake).mean()  # hinge loss
            self.backward_and_step(metrics["discriminator"], None, "discriminator")
        metrics["codes used"] = self._follow_codes(tokens, z.detach(), batch[2], progress)
        return metrics

    def pixel_loss(self, again: Tensor, images: Tensor) -> Tensor:
        """Absolute and squared error of (n, 3, h, w) in [-1, 1], and what they lack in SSIM (Zhao et al. 2017)."""
        unlike = 1 - ssim((again + 1) / 2, (images + 1) / 2).mean()
        return F.l1_loss(again, images) + 3 * F.mse_loss(again, images) + 0.2 * unlike

    def perceptual(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of channel-normalized features of CLIP's first stages (as Zhang et al. 2018, unweighted)."""
        assert self.clip is not None
        with self.accelerator.autocast():
            ours = _first_features(self.clip.image, self.clip.prepare(a))
            with torch.no_grad():
                theirs = _first_features(self.clip.image, self.clip.prepare(b))
        distances = [
            (F.normalize(x.float(), dim=1) - F.normalize(y.float(), dim=1)).square().sum(1).mean()
            for x, y in zip(ours, theirs, strict=True)
        ]
        return torch.stack(distances).sum()

    def _adaptive_weight(self, loss: Tensor, adversarial: Tensor) -> Tensor:
        """Balance by the joint gradients at the decoder's last layer (Esser et al. 2021, equation 7)."""
        last = self.vqgan.decoder.conv_out.weight
        gradients = [torch.autograd.grad(term, last, retain_graph=True)[0] for term in (loss, adversarial)]
        nll, generator = self.mean_over_processes(torch.stack(gradients))
        return self.adversarial_weight * (nll.norm() / (generator.norm() + 1e-4)).clamp(max=10)


class CodecTrainer(VqganTrainer):
    """Trains the crisper VQGAN of twice as many tokens a side, whose continuous latents the prior draws."""

    name = "codec"
    SIZES: ClassVar[dict[str, dict[str, Any]]] = {
        # 5.7, 16.3 and 65.1 million parameters; 16 x 16 tokens of a picture of 128
        "tiny": {
            "batch_size": 16,
            "rate": 1e-3,
            "patch": 4,
            "widths": (96, 192),
            "code_count": 4096,
            "code_size": 8,
        },
        "small": {
            "batch_size": 64,
            "rate": 6e-4,
            "patch": 2,
            "widths": (96, 192, 256),
            "layer_count": 2,
            "code_count": 4096,
        },
        "base": {
            "batch_size": 64,
            "rate": 3e-4,
            "patch": 2,
            "widths": (192, 384, 512),
            "layer_count": 2,
            "code_count": 8192,
            "code_size": 32,
        },
    }


class DecoderTrainer(CodecTrainer):
    """Goes on training the decoder of the pack's codec alone, for likeness of pixels.

    Encoder and codes stay as they are, and with them every latent and token: a prior trained on them still fits.
    In half of the steps the latents that do not go through codes have noise, of up to `noise` deviations of the codes:
    what a prior draws is not quite what an encoder says, and the decoder shall make a clean picture of it
    (noise-augmented decoding, Zheng et al. 2025, RAE).
    """

    name, file = "decoder", "codec.safetensors"
    perceptual_weight, continuous, noise = 0.1, 0.6, 0.4

    def __init__(
        self,
        accelerator: Accelerator,
        emoji: Dataset,
        pack: Path,
        seed: int = 0,
        size: str = "tiny",
        **options: Any,
    ):
        config, self.history = read_header(pack / self.file)
        sizes = VqganConfig.from_dict(config).to_dict()
        super().__init__(accelerator, emoji, pack, seed, size, **{**options, **sizes})
        load_weights(pack / self.file, self.vqgan)
        self.vqgan.requires_grad_(False)
        for part in (self.vqgan.decoder, self.vqgan.after_codes):
            part.requires_grad_(True)

    def update(self, batch: tuple[Tensor, Tensor, int], progress: float) -> dict[str, Tensor]:
        images, quantized = as_images(batch[0]), batch[1][:, None, None, None]
        with torch.no_grad():
            z = self.vqgan.encode(images)
            noisy = z + self._noise(batch[2]).to(z)
            codes = torch.where(quantized, self.vqgan.embed(self.vqgan.quantize(z)), noisy)
        with self.accelerator.autocast():
            again = self.vqgan.decode(codes).float()
        pixel_loss = self.pixel_loss(again, images)
        loss, metrics = pixel_loss, {"pixel": pixel_loss}
        if self.clip is not None:
            metrics["perceptual"] = self.perceptual(again, images)
            loss = loss + self.perceptual_weight * metrics["perceptual"]
        self.backward_and_step(loss, self.vqgan, "vqgan")
        return metrics

    def _noise(self, seed: int) -> Tensor:
        """Noise of one step, (code_size, grid, grid), the same for all its pictures and in all processes."""
        chance = torch.Generator().manual_seed(seed)
        level = self.noise * max(0.0, 2 * float(torch.rand((), generator=chance)) - 1)
        config, deviation = self.vqgan.config, self.vqgan.codes.std().cpu()
        return level * deviation * torch.randn(config.code_size, config.grid, config.grid, generator=chance)

    def export(self, path: Path, facts: dict[str, Any]) -> None:
        """The figures are of the whole; how the decoder went on is told inside the VQGAN's own story."""
        history = {**self.history, "figures": facts["figures"], "decoder": facts}
        save_checkpoint(path, self.vqgan, self.vqgan.config.to_dict(), history, self.kind)


def _first_features(tower: nn.Module, x: Tensor) -> list[Tensor]:
    """The image tower's first stages only; the later ones cost more and say little about pixels."""
    if isinstance(tower, EfficientNetTower):
        h, count = F.relu6(tf_same_conv(cast(nn.Conv2d, tower.stem), x)), 3
    elif isinstance(tower, ImageTower):
        h, count = tower.stem(x), 2
    else:
        raise BadInput("training.clip_without_stages")
    features = []
    for stage in tower.stages[:count]:
        h = stage(h)
        features.append(h)
    return features
